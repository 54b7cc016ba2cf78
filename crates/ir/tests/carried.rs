//! Ops that cannot be run or differentiated are carried: the graph prints, parses, verifies and infers around them, and
//! only running them is refused, by name.
use graft_ir::{Array, Code, DType, Graph, Precision, Value, check, eval::eval, infer, ops, parse};

/// A graph in which `x` goes through `node` to `h` and from there to `y`.
fn graph(node: &str) -> Graph {
    with_cell(&format!("h = {node}"))
}

/// The same with all of the statement in which `h` is computed.
fn with_cell(statement: &str) -> Graph {
    let text = format!(
        "<ir_version: 10, opset_import: [\"\" : 17, \"com.microsoft\" : 1]>\n\
         g (float[3, 2, 4] x, float[1, 20, 4] w, float[1, 20, 5] r, bool c) => (float[3, 2, 4] y) {{\n\
           [cell] {statement}\n  [after] y = Tanh (h)\n}}\n"
    );
    parse(&text).unwrap_or_else(|e| panic!("{statement}: {e}"))
}

const NODES: &[&str] = &[
    "LSTM <hidden_size = 5> (x, w, r)",
    "GRU <hidden_size = 5> (x, w, r)",
    "RNN <hidden_size = 5> (x, w, r)",
    "If <then_branch = t () => (a) { a = Identity (x) }, else_branch = e () => (b) { b = Neg (x) }> (c)",
    "Multinomial (x)",
    "com.microsoft.NoSuchOp (x)",
];

/// Forms of ops that the table has, which it writes out in others.
const FORMS: &[&str] = &[
    "h = com.microsoft.Attention <num_heads = 2, do_rotary = 1> (x, w)",
    "h = com.microsoft.GroupQueryAttention <num_heads = 2, kv_num_heads = 1> (x, x, x, w, w, c, c, \"\", \"\", \"\", \"\", w)",
    "h = com.microsoft.GroupQueryAttention <num_heads = 2, kv_num_heads = 1, k_quant_type = \"PER_TENSOR\"> (x, x, x, w, w, c, c)",
    "h = com.microsoft.GroupQueryAttention <num_heads = 2, kv_num_heads = 1, sliding_window_cache = 1> (x, x, x, w, w, c, c)",
    "h = com.microsoft.GroupQueryAttention <num_heads = 2, kv_num_heads = 1, smooth_softmax = 1> (x, x, x, w, w, c, c)",
    "h, \"\", \"\", s = com.microsoft.MultiHeadAttention <num_heads = 2> (x, x, x)",
];

#[test]
fn forms_that_are_not_written_out_are_carried_and_refused_by_name() {
    for statement in FORMS {
        let mut graph = with_cell(statement);
        check(&graph).unwrap_or_else(|e| panic!("{statement}: {e}"));
        infer::infer(&mut graph).unwrap_or_else(|e| panic!("{statement}: {e}"));
        let e = eval(&graph, &feeds(&graph), Precision::Native).unwrap_err();
        let op = &graph.nodes[0].op;
        assert!(ops::lookup(op, 17).is_some() && e.code == Code::UNKNOWN_OP, "{statement}: {e}");
        assert!(e.to_string().contains(&format!("node `cell` ({op})")), "{statement}: {e}");
    }
}

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
        let e = eval(&graph, &feeds(&graph), Precision::Native).unwrap_err();
        assert_eq!(e.code, Code::UNKNOWN_OP, "{node}: {e}");
        assert!(e.to_string().contains(&format!("node `cell` ({op})")), "{node}: {e}");
    }
}

/// Something for each input.
fn feeds(graph: &Graph) -> Vec<Option<Array>> {
    let feed = |&v: &Value| {
        let ty = graph[v].ty.as_ref().unwrap();
        let (dims, n) = (ty.sizes().unwrap(), ty.sizes().unwrap().iter().product());
        Some(match ty.dtype {
            DType::Bool => Array::int(DType::Bool, dims, vec![1; n]),
            dtype => Array::float(dtype, dims, vec![0.5; n]),
        })
    };
    graph.inputs.iter().map(feed).collect()
}
