//! Normalisation, and the library's functions for it.
use super::{Case, case};
use crate::{draw::Draw, example::Example};

pub(crate) const CASES: &[Case] = &[
    case("Softmax", along_axis),
    case("LogSoftmax", along_axis),
    case("LayerNormalization", |d| {
        let example = scaled(d);
        let bias = d.any(&example.1);
        let example = if d.coin() { example.0.x(bias) } else { example.0 };
        match d.below(2) {
            0 => example,
            _ => example.results(&[true, false, false]),
        }
    }),
    case("RMSNormalization", |d| scaled(d).0),
    case("graft.LayerNorm", |d| {
        let mut dims = d.dims(1, 3);
        let width = 1 + d.positive();
        dims.push(width);
        let (x, scale, bias) = (d.any(&dims), d.any(&[width]), d.any(&[width]));
        let example = d.node().x(x).x(scale).x(bias).with("epsilon", graft_ir::Attr::Float(0.125));
        example.results(&[true, false, false])
    }),
    case("graft.RmsNorm", |d| {
        let mut dims = d.dims(1, 3);
        let width = 1 + d.positive();
        dims.push(width);
        let (x, scale) = (d.any(&dims), d.any(&[width]));
        let example = d.node().x(x).x(scale).with("epsilon", graft_ir::Attr::Float(0.125));
        example.results(&[true, false])
    }),
];

fn along_axis(d: &mut Draw) -> Example {
    let mut dims = d.dims(0, 2);
    dims.push(d.positive());
    let axis = d.axis(dims.len());
    let x = d.any(&dims);
    d.node().x(x).int("axis", axis)
}

/// A norm over the last axis or several, without bias, and the shape of the scale, which may be repeated.
fn scaled(d: &mut Draw) -> (Example, Vec<usize>) {
    let mut dims = d.dims(0, 2);
    dims.push(1 + d.positive());
    let axis = d.axis(dims.len());
    let first = usize::try_from(axis).unwrap_or((axis + dims.len() as i64) as usize);
    let scale_dims = d.narrowed(&dims[first..]);
    let (x, scale) = (d.any(&dims), d.any(&scale_dims));
    (d.node().x(x).x(scale).int("axis", axis).with("epsilon", graft_ir::Attr::Float(0.125)), scale_dims)
}
