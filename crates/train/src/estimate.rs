//! How much memory a run will take, from the shapes of its graph.
use graft_ir::{Dim, Graph, Value};
use std::collections::{HashMap, HashSet};

/// Bytes of weights, and the most bytes of inputs and results that are alive at once, for batches of `batch` rows of
/// `length` tokens.
///
/// The outermost symbol of the inputs is taken for the batch, every other symbol for the length. What the executor
/// saves by working in place, and what it adds by packing, is not counted.
pub(crate) fn memory(graph: &Graph, batch: usize, length: usize) -> (u64, u64) {
    let outermost = |v: &Value| graph.shape(*v)?.first().cloned();
    let batches: HashSet<Dim> = graph.inputs.iter().filter_map(outermost).collect();
    let size = |symbol: &str| {
        let n = if batches.contains(&Dim::symbol(symbol)) { batch } else { length };
        Some(Dim::from(n))
    };
    let bytes = |v: Value| -> u64 {
        let Some((dtype, shape)) = graph.dtype(v).zip(graph.shape(v)) else { return 0 };
        let elements = shape.iter().try_fold(1u64, |n, dim| {
            n.checked_mul(dim.substitute(size).as_const().and_then(|d| u64::try_from(d).ok()).unwrap_or(0))
        });
        elements.unwrap_or(u64::MAX / 64).saturating_mul(dtype.bits() as u64) / 8
    };
    let weights = graph.params.iter().map(|&v| bytes(v)).sum();

    let params: HashSet<Value> = graph.params.iter().copied().collect();
    let mut last_use: HashMap<Value, usize> = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        node.reads().chain(node.defines()).for_each(|v| _ = last_use.insert(v, i));
    }
    graph.outputs.iter().for_each(|&v| _ = last_use.insert(v, usize::MAX));
    let mut alive: u64 = graph.inputs.iter().filter(|v| !params.contains(v)).map(|&v| bytes(v)).sum();
    let mut peak = alive;
    for (i, node) in graph.nodes.iter().enumerate() {
        alive += node.defines().map(bytes).sum::<u64>();
        peak = peak.max(alive);
        let touched: HashSet<Value> = node.reads().chain(node.defines()).collect();
        let done = |v: &Value| last_use.get(v) == Some(&i) && !params.contains(v);
        alive = alive.saturating_sub(touched.into_iter().filter(done).map(bytes).sum());
    }
    (weights, peak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_alive() {
        let text = r#"<ir_version: 10, opset_import: ["" : 21]>
g (float[batch, 4] x) => (float[batch, 4] y) <float[4] w> {
  a = Add (x, w)
  b = Mul (a, a)
  c = Mul (b, w)
  y = Add (c, x)
}
"#;
        let mut graph = graft_ir::parse(text).unwrap();
        graft_ir::infer::infer(&mut graph).unwrap();
        // x, a and b; then x, b and c; then x, c and y: three times 3 rows of 4 floats.
        assert_eq!(memory(&graph, 3, 1), (16, 3 * 48));
    }
}
