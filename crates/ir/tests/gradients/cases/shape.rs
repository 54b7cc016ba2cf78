//! Ops that change shapes, cut and put together.
use super::{Case, case};
use crate::{draw::Draw, example::Example};
use graft_ir::{Array, Attr, DType};

pub(crate) const CASES: &[Case] = &[
    case("Concat", concat),
    case("DepthToSpace", |d| {
        let (size, mode) = (1 + d.below(2), d.one_of(&["DCR", "CRD"]));
        let dims = [d.positive(), d.positive() * size * size, d.positive(), d.positive()];
        let x = d.any(&dims);
        d.with_known_sizes().node().x(x).int("blocksize", size as i64).with("mode", Attr::Str(mode.into()))
    }),
    case("Expand", expand),
    case("Flatten", |d| {
        let dims = d.dims(0, 3);
        let axis = d.below(dims.len() + 1) as i64 - if d.coin() { dims.len() as i64 } else { 0 };
        let x = d.any(&dims);
        d.node().x(x).int("axis", axis.min(dims.len() as i64))
    }),
    case("Pad", pad),
    case("Reshape", reshape),
    case("Slice", slice),
    case("SpaceToDepth", |d| {
        let size = 1 + d.below(2);
        let dims = [d.positive(), d.positive(), d.positive() * size, d.positive() * size];
        let x = d.any(&dims);
        d.with_known_sizes().node().x(x).int("blocksize", size as i64)
    }),
    case("Split", split),
    case("Squeeze", |d| {
        let dims = d.narrowed(&[1, 2, 1, 3]);
        let ones: Vec<i64> = (0..dims.len()).filter(|&i| dims[i] == 1).map(|i| i as i64).collect();
        let x = d.any(&dims);
        let named = d.coin();
        let example = d.node().x(x);
        if named { example.ints(&ones) } else { example }
    }),
    case("Tile", |d| {
        let dims = d.dims(0, 3);
        let (x, repeats) = (d.any(&dims), d.ints(&[dims.len()], 0, 4));
        let example = d.node().x(x);
        constant_or_fed(d, example, repeats)
    }),
    case("Transpose", |d| {
        let dims = d.dims(0, 4);
        let (x, named) = (d.any(&dims), d.coin());
        let mut left: Vec<i64> = (0..dims.len() as i64).collect();
        let perm = (0..dims.len()).map(|_| left.remove(d.below(left.len()))).collect();
        let example = d.node().x(x);
        if named { example.with("perm", Attr::Ints(perm)) } else { example }
    }),
    case("Trilu", |d| {
        let lead = d.dims(0, 1);
        let (rows, columns, k, upper) = (d.size(), d.size(), d.below(5) as i64 - 2, d.coin());
        let x = d.any(&[&lead[..], &[rows, columns]].concat());
        let example = d.node().x(x).int("upper", upper.into());
        if d.coin() { example.constant(Array::int(DType::Int64, vec![], vec![k])) } else { example }
    }),
    case("Unsqueeze", |d| {
        let dims = d.dims(0, 2);
        let n = d.below(3);
        let rank = dims.len() + n;
        let axes: Vec<i64> = (0..n).map(|i| i as i64 - if d.coin() { rank as i64 } else { 0 }).collect();
        let x = d.any(&dims);
        d.node().x(x).ints(&axes)
    }),
];

/// Adds an integer operand that inference may or may not see.
fn constant_or_fed(d: &mut Draw, example: Example, operand: Array) -> Example {
    if d.coin() { example.fed(operand) } else { example.constant(operand) }
}

fn list(values: &[i64]) -> Array {
    Array::int(DType::Int64, vec![values.len()], values.to_vec())
}

fn concat(d: &mut Draw) -> Example {
    let mut dims = d.dims(1, 3);
    let (axis, n) = (d.axis(dims.len()), 1 + d.below(3));
    let at = axis.rem_euclid(dims.len() as i64) as usize;
    let mut example = d.node().int("axis", axis);
    for _ in 0..n {
        dims[at] = d.size();
        example = example.x(d.any(&dims));
    }
    example
}

fn expand(d: &mut Draw) -> Example {
    let dims = d.dims(0, 3);
    let (from, to) = (d.narrowed(&dims), d.narrowed(&dims));
    let (x, to) = (d.any(&from), list(&to.iter().map(|&n| n as i64).collect::<Vec<_>>()));
    let example = d.node().x(x);
    constant_or_fed(d, example, to)
}

fn pad(d: &mut Draw) -> Example {
    let dims: Vec<usize> = d.dims(1, 3).iter().map(|n| n + 1).collect();
    let x = d.any(&dims);
    let named = d.coin() && d.opset >= 18;
    let axes: Vec<i64> = if named { vec![d.axis(dims.len())] } else { (0..dims.len() as i64).collect() };
    // At most one element of each axis is taken away, and each has one at least.
    let (before, after) = (d.ints(&[axes.len()], 0, 3), d.ints(&[axes.len()], -1, 3));
    let pads = list(&[before.ints().unwrap(), after.ints().unwrap()].concat());
    let example = d.node().x(x);
    let example = constant_or_fed(d, example, pads);
    if named { example.absent().ints(&axes) } else { example }
}

fn reshape(d: &mut Draw) -> Example {
    let dims = d.dims(1, 3);
    let zeros = d.opset >= 14 && d.coin();
    let dims = if zeros { dims } else { dims.iter().map(|&n| n.max(1)).collect() };
    let mut target: Vec<i64> = dims.iter().rev().map(|&n| n as i64).collect();
    if !zeros {
        match d.below(3) {
            0 => target = vec![-1],
            1 => target[0] = -1,
            // Zeros copy the sizes in front.
            _ => target = (0..dims.len()).map(|i| if i == 0 { 0 } else { dims[i] as i64 }).collect(),
        }
    }
    let x = d.any(&dims);
    let example = d.node().x(x);
    let example = constant_or_fed(d, example, list(&target));
    if zeros { example.int("allowzero", 1) } else { example }
}

fn slice(d: &mut Draw) -> Example {
    let dims = d.dims(1, 3);
    let axes: Vec<i64> = d.axes(dims.len());
    let n = axes.len();
    let bound = |d: &mut Draw| d.one_of(&[0, 1, -1, 2, -2, 5, i64::MAX, -7]);
    let (starts, mut ends): (Vec<i64>, Vec<i64>) = (0..n).map(|_| (bound(d), bound(d))).unzip();
    let mut steps = vec![1; n];
    if d.coin() {
        steps = (0..n).map(|_| d.one_of(&[1, -1, 2, -2])).collect();
        let backwards = steps.iter().zip(&mut ends).filter(|(k, _)| **k < 0);
        backwards.for_each(|(_, end)| *end = if *end == 0 { i64::MIN } else { *end });
    }
    let x = d.any(&dims);
    let mut example = d.node().x(x);
    for bounds in [&starts, &ends] {
        example = constant_or_fed(d, example, list(bounds));
    }
    example = constant_or_fed(d, example, list(&axes));
    if steps.iter().all(|&k| k == 1) { example } else { constant_or_fed(d, example, list(&steps)) }
}

fn split(d: &mut Draw) -> Example {
    let mut dims = d.dims(1, 3);
    let (axis, n, kind) = (d.axis(dims.len()), 1 + d.below(3), d.below(3));
    let at = axis.rem_euclid(dims.len() as i64) as usize;
    let sizes: Vec<usize> = (0..n).map(|_| d.size()).collect();
    // Even parts, or in opset 18 the last one shorter, or sizes as they come.
    dims[at] = match kind {
        0 => n * sizes[0],
        1 if d.opset >= 18 => n * sizes[0].max(2) - 1,
        _ => sizes.iter().sum(),
    };
    let x = d.any(&dims);
    let flows: Vec<bool> = (0..n).map(|i| i == 0 || d.coin()).collect();
    let example = d.node().x(x).int("axis", axis).results(&flows);
    match kind {
        0 if d.opset >= 18 => example.int("num_outputs", n as i64),
        0 => example,
        1 if d.opset >= 18 => example.int("num_outputs", n as i64),
        _ => constant_or_fed(d, example, list(&sizes.iter().map(|&s| s as i64).collect::<Vec<_>>())),
    }
}
