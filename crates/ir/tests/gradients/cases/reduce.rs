//! Reductions.
use super::{Case, case};
use crate::{draw::Draw, example::Example};
use graft_ir::{Array, Attr};

pub(crate) const CASES: &[Case] = &[
    case("ReduceL1", |d| reduction(d, 1, Draw::nonzero)),
    case("ReduceL2", |d| reduction(d, 1, Draw::nonzero)),
    case("ReduceLogSumExp", |d| reduction(d, 1, Draw::any)),
    case("ReduceMax", |d| reduction(d, 1, |d, dims| d.distinct(dims, 0))),
    case("ReduceMean", |d| reduction(d, 1, Draw::any)),
    case("ReduceMin", |d| reduction(d, 1, |d, dims| d.distinct(dims, 0))),
    case("ReduceSum", |d| {
        let dims = d.dims(0, 3);
        let (x, axes, keep) = (d.any(&dims), d.axes(dims.len()), d.coin());
        let example = d.node().x(x).int("keepdims", keep.into());
        if axes.is_empty() { example } else { example.ints(&axes) }
    }),
    case("ReduceSumSquare", |d| reduction(d, 0, Draw::any)),
];

/// A reduction over some axes of at least `smallest` elements, given as opset 18 and later or earlier ones have them.
fn reduction(d: &mut Draw, smallest: usize, elements: fn(&mut Draw, &[usize]) -> Array) -> Example {
    let dims: Vec<usize> = d.dims(0, 3).iter().map(|&n| n.max(smallest)).collect();
    let (x, axes, keep) = (elements(d, &dims), d.axes(dims.len()), d.coin());
    let is_input = d.opset >= 18;
    let example = d.node().x(x).int("keepdims", keep.into());
    match axes.is_empty() {
        true => example,
        false if is_input => example.ints(&axes),
        false => example.with("axes", Attr::Ints(axes)),
    }
}
