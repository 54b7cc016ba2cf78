//! Reading and writing at positions.
use super::{Case, case};
use crate::{draw::Draw, example::Example};
use graft_ir::{Array, Attr, DType};

pub(crate) const CASES: &[Case] = &[
    case("CumSum", |d| {
        let dims = d.dims(1, 3);
        let (x, axis) = (d.any(&dims), d.axis(dims.len()));
        let (exclusive, reverse) = (d.coin(), d.coin());
        let axis = Array::int(DType::Int64, vec![], vec![axis]);
        d.node().x(x).constant(axis).int("exclusive", exclusive.into()).int("reverse", reverse.into())
    }),
    case("Gather", gather),
    case("GatherElements", |d| {
        let (dims, axis, at) = positive_dims(d);
        let mut index_dims: Vec<usize> = dims.iter().map(|&n| n - d.below(2).min(n - 1)).collect();
        index_dims[at] = d.size();
        let (x, indices) = (d.any(&dims), signed(d, &index_dims, dims[at]));
        d.node().x(x).fed(indices).int("axis", axis)
    }),
    case("GatherND", gather_nd),
    case("ScatterElements", scatter_elements),
    case("ScatterND", scatter_nd),
    case("TopK", |d| {
        let dims: Vec<usize> = d.dims(1, 3).iter().map(|&n| n.max(1)).collect();
        let axis = d.axis(dims.len());
        let at = axis.rem_euclid(dims.len() as i64) as usize;
        let (x, k, largest) = (d.distinct(&dims, 0), d.below(dims[at] + 1), d.coin());
        d.node()
            .x(x)
            .ints(&[k as i64])
            .int("axis", axis)
            .int("largest", largest.into())
            .results(&[true, false])
    }),
];

/// A shape without empty axes, one of its axes, and where that is counted from the front.
fn positive_dims(d: &mut Draw) -> (Vec<usize>, i64, usize) {
    let dims: Vec<usize> = d.dims(1, 3).iter().map(|&n| n.max(1)).collect();
    let axis = d.axis(dims.len());
    let at = axis.rem_euclid(dims.len() as i64) as usize;
    (dims, axis, at)
}

/// Indices into an axis of size `size`, from either end.
fn signed(d: &mut Draw, dims: &[usize], size: usize) -> Array {
    d.ints(dims, -(size as i64), size as i64)
}

fn gather(d: &mut Draw) -> Example {
    let (dims, axis, at) = positive_dims(d);
    let index_dims = d.dims(0, 2);
    let (x, indices) = (d.any(&dims), signed(d, &index_dims, dims[at]));
    let example = d.node().x(x).int("axis", axis);
    if d.coin() { example.fed(indices) } else { example.constant(indices) }
}

fn gather_nd(d: &mut Draw) -> Example {
    let (dims, _, _) = positive_dims(d);
    let batch = d.below(dims.len());
    let depth = 1 + d.below(dims.len() - batch);
    let mut index_dims = [&dims[..batch], &d.dims(0, 1)].concat();
    index_dims.push(depth);
    let smallest = dims[batch..batch + depth].iter().copied().min().unwrap_or(1);
    let (x, indices) = (d.any(&dims), signed(d, &index_dims, smallest));
    // The depth must be a number: it decides the rank.
    let example = d.with_known_sizes().node().x(x).fed(indices);
    if batch > 0 { example.int("batch_dims", batch as i64) } else { example }
}

/// Each place is written at most once, unless what is written is added.
fn scatter_elements(d: &mut Draw) -> Example {
    let (dims, axis, at) = positive_dims(d);
    let add = d.opset >= 16 && d.coin();
    let (x, updates) = (d.any(&dims), d.any(&dims));
    let indices = if add {
        signed(d, &dims, dims[at])
    } else {
        // Along the axis the indices run backwards.
        let behind: usize = dims[at + 1..].iter().product();
        let n = dims.iter().product::<usize>();
        let data = (0..n).map(|i| (dims[at] - 1 - i / behind % dims[at]) as i64).collect();
        Array::int(DType::Int64, dims.clone(), data)
    };
    let example = d.node().x(x).fed(indices).x(updates).int("axis", axis);
    if add { example.with("reduction", Attr::Str("add".into())) } else { example }
}

fn scatter_nd(d: &mut Draw) -> Example {
    let (dims, _, _) = positive_dims(d);
    let add = d.opset >= 16 && d.coin();
    let n = 1 + d.below(dims[0]);
    let updates = d.any(&[&[n], &dims[1..]].concat());
    let indices = if add {
        signed(d, &[n, 1], dims[0])
    } else {
        Array::int(DType::Int64, vec![n, 1], (0..n as i64).rev().collect())
    };
    let x = d.any(&dims);
    let example = d.node().x(x).fed(indices).x(updates);
    if add { example.with("reduction", Attr::Str("add".into())) } else { example }
}
