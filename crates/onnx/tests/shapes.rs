//! What inference says of whole models with a dynamic batch and sequence, and that running them agrees.
use graft_ir::{Array, DType, Dim, Graph, Precision, Result, Type, Value, eval, infer, random};
use std::path::Path;

/// Models as different exporters write them, and the sizes of their inputs.
const MODELS: &[&str] = &["parity/base.onnx", "parity/base_dynamo.onnx", "models/tiny_bert_ts14.onnx"];

fn load(name: &str) -> Graph {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name);
    let mut graph = graft_onnx::load(&path).unwrap().graph;
    // What the exporter declared must not be needed: only inputs and weights keep their types.
    let results: Vec<Value> = graph.nodes.iter().flat_map(|n| n.defines().collect::<Vec<_>>()).collect();
    for v in results {
        graph[v].ty = None;
    }
    infer::infer(&mut graph).unwrap();
    graph
}

/// The symbols in the shapes of the inputs.
fn symbols(graph: &Graph) -> Vec<String> {
    let dims = graph.inputs.iter().filter_map(|&v| graph.shape(v)).flatten();
    let mut symbols: Vec<String> =
        dims.flat_map(|d| d.symbols().map(str::to_string).collect::<Vec<_>>()).collect();
    symbols.sort();
    symbols.dedup();
    symbols
}

fn bound(ty: &Type, sizes: &[(String, usize)]) -> Option<Vec<usize>> {
    let value = |s: &str| sizes.iter().find(|(name, _)| name == s).map(|&(_, n)| Dim::from(n));
    ty.shape.as_ref()?.iter().map(|d| d.substitute(value).as_size()).collect()
}

/// Token ids below 2, so that they are in range of every table and of every mask.
fn feeds(graph: &Graph, sizes: &[(String, usize)]) -> Vec<Option<Array>> {
    let feed = |&v: &Value| {
        let ty = graph[v].ty.as_ref()?;
        let dims = bound(ty, sizes)?;
        let n = dims.iter().product::<usize>() as u64;
        let bits = (0..n).map(|i| i64::from(random::bits(1, 1, u64::from(v.0), i) & 1)).collect();
        assert_eq!(ty.dtype, DType::Int64);
        Some(Array::int(DType::Int64, dims, bits))
    };
    graph.inputs.iter().map(feed).collect()
}

#[test]
fn every_value_has_a_known_type() {
    for name in MODELS {
        let graph = load(name);
        let given = symbols(&graph);
        for node in &graph.nodes {
            for v in node.defines() {
                let ty = graph[v].ty.as_ref();
                let dims = ty.and_then(|ty| ty.shape.as_ref());
                let plain = |d: &Dim| d.symbols().all(|s| given.iter().any(|g| g == s));
                let found = ty.map(Type::to_string);
                assert!(
                    dims.is_some_and(|d| d.iter().all(plain)),
                    "{name}: `{}` ({}) is {found:?}",
                    graph.name(v),
                    node.op
                );
            }
        }
    }
}

#[test]
fn running_gives_the_inferred_sizes_and_values() -> Result<()> {
    for name in MODELS {
        let mut graph = load(name);
        graph.outputs = graph.nodes.iter().flat_map(|n| n.defines().collect::<Vec<_>>()).collect();
        for sizes in [[1, 1], [2, 5], [3, 2]] {
            let sizes: Vec<(String, usize)> = symbols(&graph).into_iter().zip(sizes).collect();
            let found = eval::eval(&graph, &feeds(&graph, &sizes), Precision::Native)?;
            for (&v, array) in graph.outputs.iter().zip(&found) {
                let wanted = graph[v].ty.as_ref().and_then(|ty| bound(ty, &sizes));
                assert_eq!(wanted.as_ref(), Some(&array.dims), "{name}: `{}` at {sizes:?}", graph.name(v));
                if let Some(known) = &graph[v].known {
                    let value = |s: &str| sizes.iter().find(|(n, _)| n == s).map(|&(_, n)| Dim::from(n));
                    let known: Vec<i64> =
                        known.iter().filter_map(|d| d.substitute(value).as_const()).collect();
                    assert_eq!(known, array.ints()?, "{name}: elements of `{}` at {sizes:?}", graph.name(v));
                }
            }
        }
    }
    Ok(())
}
