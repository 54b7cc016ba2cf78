use super::*;
use crate::{DType, Tensor, Type, parse};

fn errors(body: &str) -> Vec<String> {
    let text = format!("<opset_import: [\"\" : 21, \"graft\" : 1]>\n{body}");
    errors_of(&parse(&text).unwrap())
}

fn errors_of(graph: &Graph) -> Vec<String> {
    let places = |e: &Error| e.at.iter().rev().map(|p| format!("{p}: ")).collect::<String>();
    verify(graph).iter().map(|e| format!("{}{}", places(e), e.message)).collect()
}

#[test]
fn a_valid_graph_has_no_errors() {
    let none: [&str; 0] = [];
    let body = "g (float[2] x, float[2] w, bool c) => (y, x) <float[2] w = {1, 2}> {
        t = If <then_branch = t () => (z) { z = Add (x, w) }, else_branch = e () => (x) {}> (c)
        y = graft.F <a = 1> (t)
    }
    <domain: \"graft\", opset_import: [\"\" : 21]> F <a> (x, z) => (y, u) { u = Cast <to: int = @a> (x) y = Relu (u) }";
    assert_eq!(errors(body), none);
}

#[test]
fn exists() {
    let mut graph = parse("<opset_import: [\"\" : 21]> g (x) => (y) { y = Relu (x) }").unwrap();
    graph.nodes[0].inputs[0] = Some(Value(7));
    assert_eq!(errors_of(&graph), ["there is no value number 7"]);
}

#[test]
fn name() {
    let mut graph = parse("<opset_import: [\"\" : 21]> g (x) => (y) { a = Relu (x) y = Neg (a) }").unwrap();
    let a = graph.find("a").unwrap();
    graph[a].name = "x".into();
    assert_eq!(errors_of(&graph), ["two values are called `x`"]);
    graph[a].name = String::new();
    assert_eq!(errors_of(&graph), ["a value has no name"]);
}

#[test]
fn once() {
    assert_eq!(
        errors("g (x, x) => (y) <float w, float w> { y = Relu (x) y = Neg (x) x, y = Foo () }"),
        [
            "`x` is defined more than once",
            "`w` is defined more than once",
            "node `y` (Neg): `y` is defined more than once",
            "node `x` (Foo): `x` is defined more than once",
            "node `x` (Foo): `y` is defined more than once",
        ]
    );
}

#[test]
fn defined() {
    assert_eq!(
        errors("g (x) => (y, z) { y = Add (x, w) }"),
        ["node `y` (Add): `w` is not defined", "output `z` is not defined"]
    );
}

#[test]
fn order() {
    assert_eq!(
        errors("g (x) => (y) { y = Relu (b) b = Neg (x) }"),
        ["node `y` (Relu): `b` is used before its definition"]
    );
    assert_eq!(
        errors("g (x) => (y) { [one] a = Add (x, c) b = Neg (a) c = Neg (b) y = Relu (c) }"),
        ["nodes wait for one another: `one` → `b` → `c` → `one`"]
    );
}

#[test]
fn param() {
    let mut graph = parse("<opset_import: [\"\" : 21]> g () => (w) <float[2] w> {}").unwrap();
    let w = graph.find("w").unwrap();
    graph[w].tensor = Some(Tensor::f32(&[3], &[1.0, 2.0, 3.0]));
    assert_eq!(errors_of(&graph), ["param `w` is said to be float[2], its data is float[3]"]);
    graph[w].ty = Some(Type::new(DType::Int64, [3usize]));
    assert_eq!(errors_of(&graph), ["param `w` is said to be int64[3], its data is float[3]"]);
    graph[w].ty = Some(Type { dtype: DType::Float, shape: None });
    assert!(errors_of(&graph).is_empty());
}

#[test]
fn domain() {
    assert_eq!(
        errors("g (x) => (y) { y = com.microsoft.Gelu (x) }"),
        ["node `y` (com.microsoft.Gelu): no opset of domain \"com.microsoft\" is imported"]
    );
}

#[test]
fn call_fits_its_function() {
    let function = "<domain: \"graft\", opset_import: [\"\" : 21]> F <a, b = 1> (x) => (y) { y = Relu (x) }";
    assert_eq!(
        errors(&format!("g (x) => (y) {{ y, z = graft.F (x, x) }}\n{function}")),
        [
            "node `y` (graft.F): the call has 2 operands, the function 1",
            "node `y` (graft.F): the call has 2 results, the function 1",
            "node `y` (graft.F): the call lacks attribute `a`",
        ]
    );
}

#[test]
fn subgraph() {
    let text = "<opset_import: [\"\" : 21]> g (c, x) => (y) {
        y = If <then_branch = t () => (z) { z = Add (x, w) u = Neg (v) v = Neg (x) }> (c) }";
    let mut graph = parse(text).unwrap();
    assert_eq!(
        errors_of(&graph),
        [
            "node `y` (If): `w` is not defined",
            "node `y` (If): attribute `then_branch`: node `u` (Neg): `v` is used before its definition",
        ]
    );
    graph.nodes[0].captures.clear();
    assert_eq!(
        errors_of(&graph)[..2],
        [
            "node `y` (If): attribute `then_branch`: the subgraph captures `x`, its node does not",
            "node `y` (If): attribute `then_branch`: the subgraph captures `w`, its node does not",
        ]
    );
}

#[test]
fn reference() {
    assert_eq!(
        errors(
            "g (x) => (y) { y = Cast <to: int = @a> (x) }\nF <a> (x) => (y) { y = Cast <to: int = @b> (x) }"
        ),
        [
            "node `y` (Cast): attribute `to`: `@a` stands outside of any function",
            "function `graft.F`: node `y` (Cast): no opset of domain \"\" is imported",
            "function `graft.F`: node `y` (Cast): attribute `to`: the function has no attribute `b`",
        ]
    );
}

#[test]
fn function() {
    let functions = "<domain: \"graft\", opset_import: [\"\" : 21, \"graft\" : 1]>
        A (x) => (y) { y = graft.B (x) } B (x) => (y) { y = graft.A (x) } C (x) => (y) { y = graft.C (x) }
        D (x) => (y) <float w = {1}> { y = Add (x, w) }";
    let mut graph = parse(&format!("<opset_import: [\"\" : 21]> g (x) => (x) {{}}\n{functions}")).unwrap();
    let misfiled = graph.functions.remove("graft.C").unwrap();
    graph.functions.insert("graft.E".into(), misfiled);
    assert_eq!(
        errors_of(&graph),
        [
            "function `graft.D`: the body of a function has no weights and captures nothing",
            "function `graft.E`: the function is called `graft.C`",
            "functions call themselves: `graft.A`, `graft.B`",
        ]
    );
}

#[test]
fn check_reports_everything_in_one_error() {
    let graph = parse("<opset_import: [\"\" : 21]> g (x) => (y) { a = Add (x, w) }").unwrap();
    let e = check(&graph).unwrap_err();
    assert_eq!((e.code, e.message.lines().count()), (Code::GRAPH, 2));
}
