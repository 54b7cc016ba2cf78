//! Norms, with the sums that stand before them.
use super::{operand, plus};
use crate::{
    Attr, Builder, DType, Node, Result, Value,
    ops::{
        attention::count_to,
        norm::{stash_type, trailing},
    },
};

/// What ONNX Runtime adds to a variance where an op of its own does not say.
const EPSILON: f64 = 1e-12;

fn epsilon(node: &Node, default: f64) -> Result<f64> {
    Ok(node.float("epsilon")?.map_or(default, f64::from))
}

/// Layer norm of the last axis: y, mean and inverse deviation. `LayerNormalization` where the opset has it.
fn layer_norm(
    b: &mut Builder<'_>,
    x: Value,
    scale: Value,
    bias: Option<Value>,
    e: f64,
) -> Result<[Value; 3]> {
    if b.opset() >= 17 {
        let operands: Vec<Value> = [x, scale].into_iter().chain(bias).collect();
        let norm = Node::new("LayerNormalization", &operands, &[]).with("epsilon", Attr::Float(e as f32));
        let results = b.push_n("norm", norm, 3)?;
        return Ok([results[0], results[1], results[2]]);
    }
    let mean = b.reduce_mean(x, &[-1], true)?;
    let centred = b.sub(x, mean)?;
    let squared = b.mul(centred, centred)?;
    let variance = b.reduce_mean(squared, &[-1], true)?;
    let shifted = b.offset(variance, e)?;
    let deviation = b.op("deviation", "Sqrt", &[shifted])?;
    let normal = b.div(centred, deviation)?;
    let scaled = b.mul(normal, scale)?;
    let inverse = b.op("inverse", "Reciprocal", &[deviation])?;
    Ok([plus(b, scaled, bias)?, mean, inverse])
}

/// y = x / √(mean of x² + epsilon) · scale over the last axis, and the inverse root.
fn rms_norm(b: &mut Builder<'_>, x: Value, scale: Value, axes: &[i64], e: f64) -> Result<[Value; 2]> {
    let squared = b.mul(x, x)?;
    let mean = b.reduce_mean(squared, axes, true)?;
    let shifted = b.offset(mean, e)?;
    let root = b.op("root", "Sqrt", &[shifted])?;
    let inverse = b.op("inverse", "Reciprocal", &[root])?;
    let normal = b.mul(x, inverse)?;
    Ok([b.mul(normal, scale)?, inverse])
}

/// Operands x, skip, scale, bias of the norm, bias of the sum; results y, mean, inverse deviation, the sum.
pub(super) fn skip_layer_norm(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let sum = b.add(operand(node, 0)?, operand(node, 1)?)?;
    let sum = plus(b, sum, node.input(4))?;
    let e = epsilon(node, EPSILON)?;
    let [y, mean, inverse] = layer_norm(b, sum, operand(node, 2)?, node.input(3), e)?;
    Ok(vec![y, mean, inverse, sum])
}

/// Operands x, skip, scale, bias of the sum; results y, nothing that is ever computed (twice), the sum.
pub(super) fn skip_rms_norm(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let sum = b.add(operand(node, 0)?, operand(node, 1)?)?;
    let sum = plus(b, sum, node.input(3))?;
    let e = epsilon(node, EPSILON)?;
    let [y, inverse] = rms_norm(b, sum, operand(node, 2)?, &[-1], e)?;
    Ok(vec![y, inverse, inverse, sum])
}

/// Statistics in `stash_type`, the result in the type of the scale; `axis` and all later axes are normalised.
pub(super) fn rms_norm_alone(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let (x, scale) = (operand(node, 0)?, operand(node, 1)?);
    let axes: Vec<i64> = trailing(node, b.shape(x)?.len())?.into_iter().map(|a| a as i64).collect();
    let wide = b.cast(x, stash_type(node)?)?;
    let wide_scale = b.cast_like(scale, wide)?;
    let [y, inverse] = rms_norm(b, wide, wide_scale, &axes, epsilon(node, 1e-5)?)?;
    Ok(vec![b.cast_like(y, scale)?, inverse])
}

/// Operands ids, segments, tables of words, places and segments, scale, bias, mask, places; results y, the number of
/// tokens that the mask lets through, the sum of the embeddings.
pub(super) fn embed_layer_norm(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let ids = operand(node, 0)?;
    let words = rows(b, operand(node, 2)?, ids)?;
    let places = match node.input(8) {
        Some(places) => rows(b, operand(node, 3)?, places)?,
        None => {
            let n = b.size_of(ids, 1)?;
            let places = count_to(b, n)?;
            rows(b, operand(node, 3)?, places)?
        }
    };
    let sum = b.add(words, places)?;
    let segments = match (node.input(1), node.input(4)) {
        (Some(segments), Some(table)) => Some(rows(b, table, segments)?),
        _ => None,
    };
    let sum = plus(b, sum, segments)?;
    let [y, ..] = layer_norm(b, sum, operand(node, 5)?, node.input(6), epsilon(node, EPSILON)?)?;
    Ok(vec![y, n_seen(b, node, ids)?, sum])
}

/// Rows of `table` by index.
fn rows(b: &mut Builder<'_>, table: Value, indices: Value) -> Result<Value> {
    b.push("rows", Node::new("Gather", &[table, indices], &[]).with("axis", Attr::Int(0)))
}

/// How many elements of each row of the mask are 1; 0 without a mask.
fn n_seen(b: &mut Builder<'_>, node: &Node, ids: Value) -> Result<Value> {
    let mask = match node.input(7) {
        Some(mask) => mask,
        None => b.zeros_like(ids)?,
    };
    let one = b.scalar_like("one", 1.0, mask)?;
    let is_one = b.op("is_one", "Equal", &[mask, one])?;
    // Counted in `float`, which is exact up to 2^24 and has a kernel.
    let ones = b.cast(is_one, DType::Float)?;
    let n = b.reduce_sum(ones, &[1], false)?;
    b.cast(n, DType::Int32)
}
