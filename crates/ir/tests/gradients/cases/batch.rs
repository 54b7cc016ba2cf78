//! Normalisation by statistics of batches, instances and groups.
use super::{Case, case};
use crate::{draw::Draw, example::Example};
use graft_ir::Attr;

pub(crate) const CASES: &[Case] = &[
    case("BatchNormalization", |d| {
        let dims = image(d);
        let example = scaled(d, &dims, dims[1]);
        let (mean, variance) = (d.any(&[dims[1]]), d.floats(&[dims[1]], 0.5, 2.0));
        example.x(mean).x(variance)
    }),
    case("GroupNormalization", |d| {
        let mut dims = image(d);
        let groups = dims[1];
        dims[1] *= 2;
        // Scaled by group before opset 21, by channel from there on.
        let width = if d.opset < 21 { groups } else { dims[1] };
        scaled(d, &dims, width).int("num_groups", groups as i64)
    }),
    case("InstanceNormalization", |d| {
        let dims = image(d);
        scaled(d, &dims, dims[1])
    }),
    case("LpNormalization", |d| {
        let mut dims = d.dims(0, 2);
        dims.push(d.positive());
        let (axis, p) = (d.axis(dims.len()), 1 + d.below(2));
        let x = d.nonzero(&dims);
        d.node().x(x).int("axis", axis).int("p", p as i64)
    }),
    case("MeanVarianceNormalization", |d| {
        let mut dims = image(d);
        dims[2] = dims[2].max(3);
        let x = d.distinct(&dims, 0);
        d.node().x(x).with("axes", Attr::Ints(vec![0, 2]))
    }),
];

/// Batch, channels and an axis, none of them empty.
fn image(d: &mut Draw) -> Vec<usize> {
    vec![d.positive(), d.positive(), 1 + d.positive()]
}

fn scaled(d: &mut Draw, dims: &[usize], width: usize) -> Example {
    let (x, scale, bias) = (d.any(dims), d.any(&[width]), d.any(&[width]));
    d.with_known_sizes().node().x(x).x(scale).x(bias).with("epsilon", Attr::Float(0.125))
}
