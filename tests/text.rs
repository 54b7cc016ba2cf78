//! Random graphs survive their text: what is printed is parsed to the same graph, and verifies.
use graft_ir::{Attr, DType, Dim, Graph, Node, Tensor, Type, Value, parse, text, verify};
use proptest::prelude::*;

/// How one more node is to be made: which op, operands among the values so far, an attribute, a note.
type Step = (usize, Vec<usize>, Option<f32>, Option<String>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0usize..4,
        prop::collection::vec(any::<usize>(), 1..3),
        prop::option::of(any::<f32>()),
        prop::option::of("[ -~\n]{0,12}"),
    );
    prop::collection::vec(step, 0..12)
}

fn dims() -> impl Strategy<Value = Vec<Dim>> {
    let dim = prop_oneof![
        (0i64..9).prop_map(Dim::from),
        "[a-z]{1,3}".prop_map(|s| Dim::symbol(&s)),
        (1i64..4, 0i64..3).prop_map(|(k, c)| Dim::symbol("batch") * Dim::from(k) + Dim::from(c)),
        Just(Dim::symbol("a name that is no polynomial (")),
    ];
    prop::collection::vec(dim, 0..4)
}

fn graph(name: &str, dims: Vec<Dim>, weights: &[Vec<f32>], steps: &[Step]) -> Graph {
    let mut graph = Graph { name: name.into(), ir_version: 10, ..Graph::default() };
    graph.opsets.extend([(String::new(), 21), ("our.domain".into(), 1)]);
    let mut values: Vec<Value> = vec![graph.add_input("x", Type { dtype: DType::Float, shape: Some(dims) })];
    for (i, data) in weights.iter().enumerate() {
        values.push(graph.add_param(format!("{name}/w.{i}"), Tensor::f32(&[data.len()], data)));
    }
    for (i, (op, operands, attr, note)) in steps.iter().enumerate() {
        let op = ["Relu", "Add", "our.domain.Op", "Constant"][*op];
        let inputs: Vec<Value> = operands.iter().map(|o| values[o % values.len()]).collect();
        let result = graph.add_value(format!("{i} of \"{name}\""), None);
        let mut node = Node::new(op, &inputs, &[result]);
        node.name = note.clone().unwrap_or_default();
        node.attrs.extend(attr.map(|a| ("alpha".to_string(), Attr::Float(a))));
        node.meta.extend(note.clone().map(|n| (n.clone(), n)));
        graph.nodes.push(node);
        values.push(result);
    }
    graph.outputs.extend(values.last());
    graph
}

/// NaN has many bits and one text.
fn has_nan(weights: &[Vec<f32>], steps: &[Step]) -> bool {
    weights.iter().flatten().any(|w| w.is_nan()) || steps.iter().any(|s| s.2.is_some_and(f32::is_nan))
}

proptest! {
    #[test]
    fn print_and_parse_agree(
        name in "[ -~]{0,10}",
        dims in dims(),
        weights in prop::collection::vec(prop::collection::vec(any::<f32>(), 0..20), 0..3),
        steps in steps(),
    ) {
        let graph = graph(&name, dims, &weights, &steps);
        prop_assert_eq!(verify(&graph), []);
        let printed = graph.to_string();
        let parsed = parse(&printed).unwrap();
        prop_assert_eq!(&parsed.to_string(), &printed);
        prop_assert_eq!(verify(&parsed), []);
        let whole = text::PrintOptions { weight_elements: usize::MAX, ..text::PrintOptions::default() };
        let complete = parse(&text::print(&graph, whole)).unwrap();
        if !has_nan(&weights, &steps) {
            // Values are numbered by where they are first mentioned; everything else is equal.
            let facts = |g: &Graph, vs: &[Value]| vs.iter().map(|&v| g[v].clone()).collect::<Vec<_>>();
            prop_assert_eq!(facts(&complete, &complete.params), facts(&graph, &graph.params));
            prop_assert_eq!(facts(&complete, &complete.inputs), facts(&graph, &graph.inputs));
            let plain = |n: &Node| (n.name.clone(), n.op.clone(), n.attrs.clone(), n.meta.clone());
            prop_assert!(complete.nodes.iter().map(plain).eq(graph.nodes.iter().map(plain)));
        }
    }
}
