//! Matrix products with transposes and a factor, or an activation, in them.
use super::{is_set, operand};
use crate::{Builder, Code, Error, Node, Result, Value};

/// y = alpha · a' · b', where a' is `a` with its axes in the order that `transA` and `transBatchA` ask for.
pub(super) fn fused_matmul(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let left = turned(b, operand(node, 0)?, is_set(node, "transA")?, is_set(node, "transBatchA")?)?;
    let right = turned(b, operand(node, 1)?, is_set(node, "transB")?, is_set(node, "transBatchB")?)?;
    let product = b.matmul(left, right)?;
    Ok(vec![match node.float("alpha")?.filter(|&alpha| alpha != 1.0) {
        Some(alpha) => b.scale(product, alpha.into())?,
        None => product,
    }])
}

/// With `batch` the first axis of `x` goes behind the other batch axes; then with `last` the last two are exchanged.
fn turned(b: &mut Builder<'_>, x: Value, last: bool, batch: bool) -> Result<Value> {
    let mut axes: Vec<usize> = (0..b.shape(x)?.len()).collect();
    let rank = axes.len();
    if batch && rank > 2 {
        axes[..rank - 1].rotate_left(1);
    }
    if last && rank > 1 {
        axes.swap(rank - 2, rank - 1);
    }
    b.transpose(x, &axes)
}

/// A `Gemm`, and the op behind it that the attribute names, with that op's own attributes behind `activation_`.
pub(super) fn fused_gemm(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let unnamed = || Error::new(Code::ATTRIBUTE, "attribute `activation` is missing");
    let activation = node.str("activation")?.ok_or_else(unnamed)?;
    let mut gemm = Node { inputs: node.inputs.clone(), ..Node::new("Gemm", &[], &[]) };
    let mut behind = Node::new(activation, &[], &[]);
    for (name, attr) in node.attrs.iter().filter(|(name, _)| *name != "activation") {
        match name.strip_prefix("activation_") {
            Some(own) => behind = behind.with(own, attr.clone()),
            None => gemm = gemm.with(name, attr.clone()),
        }
    }
    behind.inputs = vec![Some(b.push("product", gemm)?)];
    Ok(vec![b.push("activated", behind)?])
}
