//! Ops that cannot be run or differentiated are carried: the graph prints, parses, verifies and infers around them, and
//! only running them is refused, by name.
use graft_ir::{Array, Code, DType, Graph, Precision, check, eval::eval, infer, ops, parse};

/// A graph in which `x` goes through `node` to `h` and from there to `y`.
fn graph(node: &str) -> Graph {
    let text = format!(
        "<ir_version: 10, opset_import: [\"\" : 17, \"com.microsoft\" : 1]>\n\
         g (float[3, 2, 4] x, float[1, 20, 4] w, float[1, 20, 5] r, bool c) => (float[3, 2, 4] y) {{\n\
           [cell] h = {node}\n  [after] y = Tanh (h)\n}}\n"
    );
    parse(&text).unwrap_or_else(|e| panic!("{node}: {e}"))
}

const NODES: &[&str] = &[
    "LSTM <hidden_size = 5> (x, w, r)",
    "GRU <hidden_size = 5> (x, w, r)",
    "RNN <hidden_size = 5> (x, w, r)",
    "If <then_branch = t () => (a) { a = Identity (x) }, else_branch = e () => (b) { b = Neg (x) }> (c)",
    "Multinomial (x)",
    "com.microsoft.NoSuchOp (x)",
];

#[test]
fn carried_ops_survive_text_verification_and_inference() {
    for node in NODES {
        let mut graph = graph(node);
        check(&graph).unwrap_or_else(|e| panic!("{node}: {e}"));
        infer::infer(&mut graph).unwrap_or_else(|e| panic!("{node}: {e}"));
        let text = graph.to_string();
        assert_eq!(parse(&text).unwrap().to_string(), text);
    }
}

#[test]
fn running_them_is_refused_by_name() {
    for node in NODES {
        let graph = graph(node);
        let op = &graph.nodes[0].op;
        assert!(ops::lookup(op, 17).is_none(), "{op} is in the table and no longer carried");
        let feeds: Vec<Option<Array>> = (graph.inputs.iter())
            .map(|&v| {
                let ty = graph[v].ty.as_ref().unwrap();
                let (dims, n) = (ty.sizes().unwrap(), ty.sizes().unwrap().iter().product());
                Some(match ty.dtype {
                    DType::Bool => Array::int(DType::Bool, dims, vec![1; n]),
                    dtype => Array::float(dtype, dims, vec![0.5; n]),
                })
            })
            .collect();
        let e = eval(&graph, &feeds, Precision::Native).unwrap_err();
        assert_eq!(e.code, Code::UNKNOWN_OP, "{node}: {e}");
        assert!(e.to_string().contains(&format!("node `cell` ({op})")), "{node}: {e}");
    }
}
