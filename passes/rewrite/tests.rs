//! Matching and replacing, on functions and graphs as text.
use super::{Pattern, Replacement, rewrite};
use graft_ir::{Graph, parse, parse_functions};

const LORA: &str = "
Lora (x, w, a, b, scale) => (y, h) {
  base = MatMul (x, w)
  h = MatMul (x, a)
  up = MatMul (h, b)
  delta = Mul (up, scale)
  y = Add (base, delta)
}";

/// Replaces by calls; returns the graph's nodes as text, and what was logged.
fn outlined(function: &str, graph: &str) -> (String, Vec<String>) {
    let mut functions = parse_functions(function).unwrap();
    functions[0].body.opsets.insert(String::new(), 17);
    let graph = parse(&format!("<ir_version: 10, opset_import: [\"\" : 17]>\n{graph}")).unwrap();
    let mut log = Vec::new();
    let mut note = |line: &str| log.push(line.to_string());
    let pattern = Pattern::new(&functions[0]).unwrap();
    let (out, n) = rewrite(&pattern, Replacement::Call, &graph, &|_, _| Ok(()), &mut note).unwrap();
    assert_eq!(out.functions.len(), usize::from(n > 0));
    (nodes(&out), log)
}

fn nodes(graph: &Graph) -> String {
    let graph = Graph { functions: Default::default(), ..graph.clone() }.to_string();
    let lines = graph.lines().skip_while(|line| !line.ends_with('{')).skip(1).take_while(|line| *line != "}");
    lines.map(|line| format!("{}\n", line.trim())).collect()
}

/// Asserts that `function` is found in a graph with these inputs, outputs and nodes, and what is left.
#[track_caller]
fn finds(function: &str, graph: &str, expected: &str) {
    let (found, log) = outlined(function, graph);
    assert_eq!((found.trim(), log), (expected, vec![]));
}

#[track_caller]
fn refuses(function: &str, graph: &str, reason: &str) {
    let (found, log) = outlined(function, graph);
    assert_eq!(found, nodes(&parse(graph).unwrap()));
    assert_eq!(log, if reason.is_empty() { vec![] } else { vec![reason.to_string()] });
}

#[test]
fn finds_a_body_in_any_order_of_commutative_operands() {
    let commuted = "
g (float[N, 4] x) => (float[N, 2] y) <float[4, 2] w, float[4, 1] a, float[1, 2] b, float s> {
  down = MatMul (x, a)
  up = MatMul (down, b)
  base = MatMul (x, w)
  [\"/lin/Add\"] delta = Mul (s, up)
  [\"/lin/Sum\"] y = Add (delta, base) #! graft.method: \"lora\"
}";
    finds(LORA, commuted, "[\"/lin/Sum\"] y = graft.Lora (x, w, a, b, s)  #! graft.method: \"lora\"");
}

#[test]
fn tries_the_other_order_where_an_inner_choice_was_wrong() {
    // Both operands of the outer Add are Muls; only one of the four readings fits.
    let function = "F (a, b) => (y) {\n p = Mul (a, b)\n q = Mul (a, a)\n y = Add (p, q)\n}";
    let graph = "
g (float[N] u, float[N] v) => (float[N] y) {
  r = Mul (u, v)
  s = Mul (v, v)
  y = Add (s, r)
}";
    finds(function, graph, "y = graft.F (v, u)");
}

#[test]
fn keeps_declared_results_that_are_read_outside() {
    let graph = "
g (float[N, 4] x) => (float[N, 1] h, float[N, 2] y, float[N, 1] z)
  <float[4, 2] w, float[4, 1] a, float[1, 2] b, float s> {
  base = MatMul (x, w)
  h = MatMul (x, a)
  z = Relu (h)
  up = MatMul (h, b)
  delta = Mul (up, s)
  y = Add (base, delta)
}";
    finds(LORA, graph, "y, h = graft.Lora (x, w, a, b, s)\nz = Relu (h)");
}

#[test]
fn refuses_if_an_inner_value_is_read_outside() {
    let graph = "
g (float[N, 4] x) => (float[N, 2] y, float[N, 2] up)
  <float[4, 2] w, float[4, 1] a, float[1, 2] b, float s> {
  base = MatMul (x, w)
  h = MatMul (x, a)
  up = MatMul (h, b)
  delta = Mul (up, s)
  y = Add (base, delta)
}";
    refuses(LORA, graph, "graft.Lora: not at `y`: `up` is used outside the match");
}

#[test]
fn refuses_if_an_operand_depends_on_a_result() {
    let graph = "
g (float[N, 4] x, float[N, 2] n) => (float[N, 2] y) <float[4, 2] w, float[4, 1] a, float[1, 2] b> {
  base = MatMul (x, w)
  h = MatMul (x, a)
  s = Relu (h)
  up = MatMul (h, b)
  delta = Mul (up, s)
  y = Add (base, delta)
}";
    refuses(LORA, graph, "graft.Lora: not at `y`: operand `s` depends on a result of the match");
}

#[test]
fn different_ops_are_no_match() {
    let graph = "
g (float[N, 4] x) => (float[N, 2] y) <float[4, 2] w, float[4, 1] a, float[1, 2] b, float s> {
  base = MatMul (x, w)
  h = MatMul (x, a)
  up = MatMul (h, b)
  delta = Div (up, s)
  y = Add (base, delta)
}";
    refuses(LORA, graph, "");
}

const HALF: &str = "Half <by, axis> (x) => (y) {
  c = Constant <value_float: float = 0.5> ()
  e = Constant <value_float: float = @by> ()
  s = Softmax <axis: int = @axis> (x)
  m = Mul (s, c)
  y = Add (m, e)
}";

#[test]
fn constants_may_be_weights_and_shared() {
    let graph = "
g (float[N] x, float[N] z) => (float[N] y, float[N] u) <float half = {0.5}> {
  half_too = Constant <value: tensor = float[1] {0.5}> ()
  by = Constant <value: tensor = float {3.0}> ()
  s = Softmax <axis: int = 0> (x)
  m = Mul (half, s)
  y = Add (by, m)
  t = Softmax (z)
  n = Mul (half_too, t)
  u = Add (n, half_too)
}";
    finds(HALF, graph, "y = graft.Half <axis = 0, by = 3.0> (x)\nu = graft.Half <axis = -1, by = 0.5> (z)");
}

#[test]
fn another_constant_is_no_match_nor_is_a_weight_that_can_be_overridden() {
    for (params, constant) in [("", "c = Constant <value_float: float = 0.25> ()"), ("c = {0.5}", "")] {
        let inputs = if constant.is_empty() { "float[N] x, float c" } else { "float[N] x" };
        let params = if params.is_empty() { "".into() } else { format!("<float {params}>") };
        let graph = format!(
            "g ({inputs}) => (float[N] y) {params} {{
  {constant}
  e = Constant <value_float: float = 1.0> ()
  s = Softmax (x)
  m = Mul (s, c)
  y = Add (m, e)
}}"
        );
        refuses(HALF, &graph, "");
    }
}

#[test]
fn an_attribute_that_the_pattern_does_not_give_must_have_its_default() {
    let function = "F (x) => (y) {\n m = ReduceMean <axes: ints = [-1]> (x)\n y = Sub (x, m)\n}";
    let graph = |keep: &str| {
        format!(
            "g (float[N, 4] x) => (float y) {{\n m = ReduceMean <axes: ints = [-1]{keep}> (x)\n y = Sub (x, m)\n}}"
        )
    };
    let declared = |g: &str| g.replace("(float y)", "(float[N, 4] y)");
    finds(function, &declared(&graph(", keepdims: int = 1")), "y = graft.F (x)");
    refuses(function, &declared(&graph(", keepdims: int = 0")), "");
}

const GRAD: &str = "
LinearGrad (dy, x, w) => (dx, dw) {
  wt = Transpose <perm: ints = [1, 0]> (w)
  dx = MatMul (dy, wt)
  xt = Transpose <perm: ints = [1, 0]> (x)
  dw = MatMul (xt, dy)
}";

#[test]
fn several_results_are_found_together_unless_an_input_is_then_unknown() {
    let graph = |outputs: &str, nodes: &str| {
        format!("g (float[N, 2] dy, float[N, 4] x) => ({outputs}) <float[4, 2] w> {{\n{nodes}}}")
    };
    let (dx, dw) = (
        "wt = Transpose <perm: ints = [1, 0]> (w)\n dx = MatMul (dy, wt)\n",
        "xt = Transpose <perm: ints = [1, 0]> (x)\n dw = MatMul (xt, dy)\n",
    );
    finds(GRAD, &graph("dx, dw", &[dw, dx].concat()), "dx, dw = graft.LinearGrad (dy, x, w)");
    refuses(GRAD, &graph("dw", dw), "graft.LinearGrad: not at `dw`: nothing there reads its input `w`");
}

#[test]
fn a_match_that_would_change_a_type_is_refused() {
    // `1 + c` of shape [1] is what makes the sum of two scalars a list.
    let function = "F (x) => (y) {\n c = Constant <value_float: float = 0.5> ()\n y = Add (x, c)\n}";
    let graph = "g (float x) => (float[1] y) <float[1] c = {0.5}> {\n y = Add (x, c)\n}";
    let (found, log) = outlined(function, graph);
    assert_eq!(found, "y = Add (x, c)\n");
    assert!(log[0].contains("the replacement would be float"), "{log:?}");
}

#[test]
fn patterns_are_checked_when_built() {
    for (text, reason) in [
        ("F (x, z) => (y) {\n y = Relu (x)\n}", "input `z` does not occur"),
        ("F <alpha> (x) => (y) {\n y = Relu (x)\n}", "attribute `alpha` must be declared and occur"),
        (
            "F (x) => (y) {\n y = Elu <alpha: float = @alpha> (x)\n}",
            "attribute `alpha` must be declared and occur",
        ),
        ("F (x) => (y, x) {\n y = Relu (x)\n}", "result `x` is not computed"),
    ] {
        let functions = parse_functions(text).unwrap();
        let error = Pattern::new(&functions[0]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(reason), "{text}: {error}");
    }
}
