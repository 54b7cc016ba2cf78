//! What a graph costs to run, as polynomials over its symbolic sizes.
use crate::{Dim, Graph, Node, product};

/// Floating-point operations of the matrix products in `graph` (a multiply-add counts as two), calls through their
/// bodies; element-wise work is left out. `None` for nodes whose shapes are not known, which `skipped` counts.
pub fn flops(graph: &Graph) -> Flops {
    let mut total = Flops::default();
    for node in &graph.nodes {
        match node_flops(graph, node) {
            Some(n) => total.count = total.count + n,
            None => total.skipped += 1,
        }
    }
    total
}

/// The result of [`flops`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flops {
    /// Operations, as a polynomial over the sizes that the graph leaves open.
    pub count: Dim,
    /// Matrix products whose shapes are not known.
    pub skipped: usize,
}

/// Floating-point operations of one matrix product or call; zero for other ops; `None` where shapes are missing.
pub fn node_flops(graph: &Graph, node: &Node) -> Option<Dim> {
    let shape = |i: usize| node.input(i).and_then(|v| graph.shape(v));
    let result = || node.output(0).and_then(|v| graph.shape(v));
    match node.op.as_str() {
        "MatMul" | "com.microsoft.FusedMatMul" => Some(twice(product(result()?) * shape(0)?.last()?.clone())),
        "Gemm" => {
            let axis = if node.int("transA").ok()?.unwrap_or(0) == 0 { 1 } else { 0 };
            Some(twice(product(result()?) * shape(0)?.get(axis)?.clone()))
        }
        op => match graph.functions.get(op) {
            Some(_) => call_flops(graph, node),
            None => Some(Dim::default()),
        },
    }
}

fn call_flops(graph: &Graph, call: &Node) -> Option<Dim> {
    let mut body = graph.functions.get(&call.op)?.bind(call).ok()?;
    body.functions.clone_from(&graph.functions);
    for (i, v) in body.inputs.clone().into_iter().enumerate() {
        if let Some(given) = call.input(i) {
            body[v].ty.clone_from(&graph[given].ty);
            body[v].known.clone_from(&graph[given].known);
        }
    }
    crate::infer::infer(&mut body).ok()?;
    let total = flops(&body);
    (total.skipped == 0).then_some(total.count)
}

fn twice(n: Dim) -> Dim {
    n * Dim::from(2i64)
}
