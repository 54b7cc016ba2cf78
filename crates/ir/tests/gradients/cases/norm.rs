//! Softmax and normalisation.
use super::{Case, case};
use crate::{draw::Draw, example::Example};
use graft_ir::Attr;

pub(crate) const CASES: &[Case] = &[
    case("LayerNormalization", |d| {
        let (example, scale) = normalised(d);
        let bias = d.any(&scale);
        if d.coin() { example.x(bias) } else { example }
    }),
    case("LogSoftmax", along_axis),
    case("RMSNormalization", |d| normalised(d).0),
    case("Softmax", along_axis),
];

/// A shape whose axes are not empty.
fn positive_dims(d: &mut Draw) -> Vec<usize> {
    d.dims(1, 3).iter().map(|&n| n.max(1)).collect()
}

fn along_axis(d: &mut Draw) -> Example {
    let dims = positive_dims(d);
    let (x, axis) = (d.any(&dims), d.axis(dims.len()));
    d.node().x(x).int("axis", axis)
}

/// A norm over the last axes with a scale, and the sizes of the scale.
fn normalised(d: &mut Draw) -> (Example, Vec<usize>) {
    let dims = positive_dims(d);
    let axis = d.axis(dims.len());
    let scale = dims[axis.rem_euclid(dims.len() as i64) as usize..].to_vec();
    let (x, weight) = (d.any(&dims), d.any(&scale));
    let example = d.node().x(x).x(weight).int("axis", axis);
    // Large enough that differences stay small where all elements are equal.
    (example.with("epsilon", Attr::Float(0.25)), scale)
}
