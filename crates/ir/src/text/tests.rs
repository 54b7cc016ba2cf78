use super::*;
use crate::{Attr, Graph, Tensor, Type};
use proptest::prelude::*;

/// Everything that the form knows, as it prints it.
const FULL: &str = r#"<ir_version: 10, opset_import: ["" : 21, "graft" : 1], metadata_props: ["k": "say \"x\\y\""]>
"torch jit" (float["batch*seq", N, ?] x, int64 k, float[] any, untyped, float[2] bias) => (float["2*seq+1"] y, float h) <
  float[64, 32] "/lin/w",  #! graft.role: "a", "odd key": "line\nbreak"
  float[2] bias = {1, -2.5e-7},
  float[3] odd = {nan, inf, -inf},
  float16[2] half = {15360, 0},
  uint64[1] big = {18446744073709551615},
  string[2] words = {"a", "b\"c"},
  bool flag = {1},
  float[0] none = {},
  float[17] long
> {
  ["/lin/MatMul"] h = MatMul (x, "/lin/w")  #! graft.method: "lora"
  c = Constant <value = float[2, 2] {1, 2, 3, -4.5}> (flag)
  e = Constant <value_ints: ints = []> ()
  l = Constant <value = float[1000] {}> (flag)
  r, "", "float" = graft.Foo <a = 2.0, b = "x\"y", f = [1.0, nan], i = [1, -2], s = ["u", "v"], z = 1e-5> (h, "", c)
  = com.microsoft.Sink (r)
  t = If <else_branch = g_else () => (float[N] z) <float one = {1}> {
      z = Add (one, h)
      w = If <then_branch = inner () => (v) {
          v = Identity (x)
        }> (flag)
    }, then_branch = g () => (h) {
    }> (flag)
  y = "odd op" (h)
}
<domain: "graft", opset_import: ["" : 21]>
Foo <a, b, f, i, s, z = 1.0> (x, y, z) => (o, p, q) {
  o = Add (x, z)
  p = Constant <value_float: float = @a> ()
  q = Identity (o)
}
"#;

#[test]
fn prints_what_it_parses() {
    let graph = parse(FULL).unwrap();
    assert_eq!(graph.to_string(), FULL);
}

#[test]
fn parses_what_it_means() {
    let graph = parse(FULL).unwrap();
    let find = |name: &str| graph.find(name).unwrap();
    assert_eq!(graph.shape(find("x")).unwrap()[0], Dim::parse("seq*batch"));
    assert!(graph.shape(find("x")).unwrap()[2].is_unknown());
    assert_eq!(graph[find("k")].ty, Some(Type { dtype: crate::DType::Int64, shape: Some(Vec::new()) }));
    assert_eq!(graph[find("any")].ty.as_ref().unwrap().shape, None);
    assert_eq!(graph[find("untyped")].ty, None);
    assert!(graph.inputs.contains(&find("bias")) && graph.params.contains(&find("bias")));
    assert_eq!(graph[find("bias")].tensor, Some(Tensor::f32(&[2], &[1.0, -2.5e-7])));
    assert_eq!(graph[find("/lin/w")].meta["odd key"], "line\nbreak");
    assert_eq!(graph[find("long")].tensor, None);
    let conditional = graph.nodes.iter().find(|n| n.op == "If").unwrap();
    let mut captured: Vec<&str> = conditional.captures.iter().map(|&v| graph.name(v)).collect();
    captured.sort_unstable();
    assert_eq!(captured, ["flag", "h", "x"]);
    assert_eq!(graph.nodes[0].name, "/lin/MatMul");
    assert_eq!(graph.nodes[5].outputs, []);
    assert_eq!(graph.functions["graft.Foo"].attrs, ["a", "b", "f", "i", "s"]);
}

#[test]
fn reads_the_longer_forms_of_the_official_printer() {
    let text = r#"<opset_import: ["ai.onnx" : 17], producer_name: "p", model_version: 3>
        g (float[N] x = {}, float[2] w = {1, 2.0}) => (float[N] y) <float[N] h> # a comment
        { h = ai.onnx.Foo <axis: int = 1, alpha: float = 1, v: tensor = int64[1] name = {7}> (x) y = Relu (h) }"#;
    let graph = parse(&text.replace("float[N] x = {}", "float[N] x")).unwrap();
    assert_eq!(graph.opset(""), Some(17));
    assert_eq!(graph.nodes[0].op, "Foo");
    assert_eq!(graph.nodes[0].attrs["alpha"], Attr::Float(1.0));
    assert_eq!(graph.nodes[0].attrs["v"], Attr::Tensor(Tensor::i64(&[1], &[7])));
    assert_eq!(graph.params.len(), 1);
    assert!(parse(text).unwrap_err().message.contains("known sizes"));
}

#[test]
fn carries_attributes_that_text_cannot_say() {
    let mut graph = parse("g (x) => (y) {\n  y = Foo (x)\n}\n").unwrap();
    graph.nodes[0].attrs.insert("sparse".into(), Attr::Opaque(vec![0, 255, 7].into()));
    let text = graph.to_string();
    assert!(text.contains(r##"y = Foo (x)  #! "opaque:sparse": "00ff07""##), "{text}");
    assert_eq!(parse(&text).unwrap().nodes[0].attrs, graph.nodes[0].attrs);
}

#[test]
fn types_are_comments() {
    let graph = parse("g (float[N] x) => (float[N] y) {\n  y = Relu (x)  #! a: \"b\"\n}\n").unwrap();
    let text = print(&graph, PrintOptions { types: true, ..PrintOptions::default() });
    assert!(text.contains("  y = Relu (x)  #! a: \"b\"  # float[N]\n"), "{text}");
    assert_eq!(parse(&text).unwrap().to_string(), graph.to_string());
}

#[test]
fn errors_say_where() {
    let place = |text: &str| {
        let e = parse(text).unwrap_err();
        (e.at.join(""), e.message)
    };
    let cases = [
        ("g (x) => (y) {\n  y = Relu (x\n}", "3:1", "expected `,` or `)`, found `}`"),
        (
            "g (x) => (y) {\n  y = Relu <a = [] > (x) }",
            "2:17",
            "an empty list needs a type: `name: ints = []`",
        ),
        ("g (float[2] x = {1}) => () {}", "1:17", "float[2] does not hold 1 elements"),
        ("g (int8 x = {300}) => () {}", "1:13", "`300` is no element of a tensor of int8"),
        ("g (x) => (y) { y = F <a: int = 1.5> () }", "1:32", "`1.5` does not fit its type"),
        ("g (x) => (y) { y = F <a: ints = 1> () }", "1:33", "attribute `a` is of type int, expected ints"),
        ("g (x) => (\"y", "1:11", "the string has no end"),
        (
            "g (x) => (y) { y = F (x) } Foo (x) => () {} Foo () => () {}",
            "1:45",
            "function `graft.Foo` is defined twice",
        ),
        ("g (x) => (y) { §", "1:16", "unexpected character '§'"),
        ("", "1:1", "expected a name, found the end of the text"),
    ];
    for (text, at, message) in cases {
        assert_eq!(place(text), (at.into(), message.into()), "{text}");
    }
}

#[test]
fn nesting_is_limited() {
    let deep =
        |n: usize| format!("g () => () {{ {} {} }}", "= If <b = s () => () {".repeat(n), "}> ()".repeat(n));
    assert!(parse(&deep(32)).is_ok());
    assert!(parse(&deep(33)).unwrap_err().message.contains("nested"));
    assert!(parse(&deep(100_000)).is_err());
}

#[test]
fn function_files_share_a_header() {
    let text = "<domain: \"a.b\", opset_import: [\"\" : 18]> F (x) => (y) { y = Relu (x) }\n G (x) => (y) { y = a.b.F (x) }";
    let functions = parse_functions(text).unwrap();
    assert_eq!(functions.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["a.b.F", "a.b.G"]);
    assert_eq!(functions[1].body.opset(""), Some(18));
    assert_eq!(parse_functions("H () => () {}").unwrap()[0].name, "graft.H");
    assert_eq!(functions[0].to_string(), parse_functions(&functions[0].to_string()).unwrap()[0].to_string());
}

proptest! {
    #[test]
    fn mutated_texts_never_panic(cut in 0usize..2000, len in 0usize..40, insert in "[\\PC\n]{0,12}") {
        let text: Vec<char> = FULL.chars().collect();
        let cut = cut.min(text.len());
        let end = (cut + len).min(text.len());
        let mutated: String = text[..cut].iter().copied().chain(insert.chars()).chain(text[end..].iter().copied()).collect();
        if let Ok(graph) = parse(&mutated) {
            let once = graph.to_string();
            let again = parse(&once).map(|g: Graph| g.to_string());
            prop_assert_eq!(again.as_ref().ok(), Some(&once), "{:?}", again);
        }
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,200}") {
        let _ = (parse(&text), parse_functions(&text));
    }
}
