//! Numbers stored as integers with a scale.
use super::{Case, case};
use crate::{draw::Draw, example::Example};
use graft_ir::{Array, DType};

pub(crate) const CASES: &[Case] = &[case("DequantizeLinear", dequantize)];

/// The gradient flows into the scale: one number, one for each place of an axis, or one for each block along it.
fn dequantize(d: &mut Draw) -> Example {
    let dims: Vec<usize> = d.dims(1, 3).iter().map(|&n| n.max(2)).collect();
    let axis = d.axis(dims.len());
    let at = axis.rem_euclid(dims.len() as i64) as usize;
    let levels = |d: &mut Draw, dims: &[usize]| Array { dtype: DType::Int8, ..d.ints(dims, -9, 9) };
    let x = levels(d, &dims);
    let (scale_dims, block) = match d.below(if d.opset >= 21 { 3 } else { 2 }) {
        0 => (vec![], 0),
        1 => (vec![dims[at]], 0),
        _ => {
            let mut blocks = dims.clone();
            blocks[at] = dims[at].div_ceil(2);
            (blocks, 2)
        }
    };
    let (scale, zero) = (d.any(&scale_dims), levels(d, &scale_dims));
    // Before opset 13 there is no axis; the ops of this table take it as it is.
    let example = d.with_known_sizes().node().fed(x).x(scale).fed(zero).int("axis", axis);
    if block > 0 { example.int("block_size", block) } else { example }
}
