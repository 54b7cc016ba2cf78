//! `Gemm` and ONNX Runtime's `FusedMatMul` with a constant weight, in any layout, as `MatMul (x, w)` with `w` of shape (in, out), and `Add`.
use super::expand;
use crate::{Context, constant};
use graft_ir::{Attr, Builder, Graph, Node, Result, Value};

/// ONNX Runtime's product with transposes and a factor in it.
pub(super) const FUSED: &str = "com.microsoft.FusedMatMul";

/// y = alpha·x'·w' + beta·c becomes `Add (MatMul (x', alpha·w'), beta·c)`: layout and factors are constant expressions
/// of the weights, which cost nothing when the graph runs. A `Gemm` of two computed matrices stays;
/// ONNX Runtime's product of two is written out.
///
/// The `MatMul` is called as the `Gemm` was, so that its module path survives; the result keeps its name.
pub(super) fn to_matmul(graph: &Graph, ctx: &mut Context<'_>) -> Result<Graph> {
    let constants = constant::values(graph);
    let mut out = graph.clone();
    let mut b = Builder::new(&mut out);
    for node in std::mem::take(&mut b.graph.nodes) {
        let is_constant = |i: usize| node.input(i).is_none_or(|v| constants.contains(&v));
        match (&*node.op, node.input(0), node.input(1), node.output(0)) {
            ("Gemm", Some(x), Some(w), Some(y)) if is_constant(1) && is_constant(2) => {
                linear(&node, x, w, y, &mut b)?;
            }
            (FUSED, Some(x), Some(w), Some(y)) if is_constant(1) && is_plain(&node, b.graph)? => {
                linear(&node, x, w, y, &mut b)?;
            }
            (FUSED, ..) => match expand::body(&node, b.graph, ctx) {
                Some(body) => expand::write_out(&node, body, &mut b)?,
                None => b.graph.nodes.push(node),
            },
            ("Gemm", ..) => {
                (ctx.log)(&format!(
                    "canonicalize: Gemm `{}` stays: its weight or bias is not constant",
                    node.name
                ));
                b.graph.nodes.push(node);
            }
            _ => b.graph.nodes.push(node),
        }
    }
    Ok(out)
}

/// Whether the operands' axes stay in their order, exchanged rows and columns of a weight aside.
fn is_plain(node: &Node, graph: &Graph) -> Result<bool> {
    let is_matrix = node.input(1).and_then(|w| graph.shape(w)).is_some_and(|dims| dims.len() == 2);
    let moves = |attr: &str| node.int(attr).map(|set| set.unwrap_or(0) != 0);
    Ok(is_matrix && !moves("transA")? && !moves("transBatchA")?)
}

fn linear(gemm: &Node, x: Value, w: Value, y: Value, b: &mut Builder<'_>) -> Result<()> {
    let scope = format!("{}_", b.graph.name(y));
    b.scope(scope);
    let x = if gemm.int("transA")?.unwrap_or(0) != 0 { transposed("x_t", x, b)? } else { x };
    let w = if gemm.int("transB")?.unwrap_or(0) != 0 { transposed("w_t", w, b)? } else { w };
    let w = scaled("w_scaled", w, gemm.float("alpha")?, b)?;
    let matmul =
        Node { name: gemm.name.clone(), meta: gemm.meta.clone(), ..Node::new("MatMul", &[x, w], &[y]) };
    let Some(bias) = gemm.input(2) else { return b.append(matmul) };
    let bias = scaled("bias_scaled", bias, gemm.float("beta")?, b)?;
    let product = b.push("product", Node { outputs: Vec::new(), ..matmul })?;
    let name = if gemm.name.is_empty() { String::new() } else { format!("{}/bias", gemm.name) };
    b.append(Node { name, meta: gemm.meta.clone(), ..Node::new("Add", &[product, bias], &[y]) })
}

fn transposed(hint: &str, v: Value, b: &mut Builder<'_>) -> Result<Value> {
    b.push(hint, Node::new("Transpose", &[v], &[]).with("perm", Attr::Ints(vec![1, 0])))
}

/// `factor · v`; `v` itself where the factor is 1 or not given.
fn scaled(hint: &str, v: Value, factor: Option<f32>, b: &mut Builder<'_>) -> Result<Value> {
    let Some(factor) = factor.filter(|&f| f != 1.0) else { return Ok(v) };
    let factor = b.scalar_like("factor", f64::from(factor), v)?;
    b.op(hint, "Mul", &[v, factor])
}
