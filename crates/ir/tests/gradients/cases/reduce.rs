//! Reductions.
use super::{Case, case};
use crate::{draw::Draw, example::Example};
use graft_ir::{Array, Attr};

pub(crate) const CASES: &[Case] = &[
    case("ReduceSum", |d| reduction(d, 13, Draw::any)),
    case("ReduceMean", |d| reduction(d, 18, Draw::any)),
    case("ReduceMax", |d| reduction(d, 18, |d, dims| d.distinct(dims, 0))),
    case("ReduceMin", |d| reduction(d, 18, |d, dims| d.distinct(dims, 0))),
    case("ReduceSumSquare", |d| reduction(d, 18, Draw::any)),
    case("ReduceL1", |d| reduction(d, 18, Draw::nonzero)),
    case("ReduceL2", |d| reduction(d, 18, Draw::nonzero)),
    case("ReduceLogSum", |d| reduction(d, 18, |d, dims| d.floats(dims, 0.3, 2.0))),
    case("ReduceLogSumExp", |d| reduction(d, 18, Draw::any)),
];

/// Over some axes, over all, or over none; the axes are an operand from opset `since` on, now and then one that is
/// known only when it runs.
fn reduction(d: &mut Draw, since: i64, elements: fn(&mut Draw, &[usize]) -> Array) -> Example {
    let dims = d.dims(0, 3);
    let x = elements(d, &dims);
    let mut example = d.node().x(x);
    if d.coin() {
        example = example.int("keepdims", 0);
    }
    let axes = d.axes(dims.len());
    if d.opset < since {
        return if axes.is_empty() { example } else { example.with("axes", Attr::Ints(axes)) };
    }
    if d.coin() {
        example = example.int("noop_with_empty_axes", 1);
    }
    match d.below(4) {
        0 => example,
        1 if !axes.is_empty() => example.fed(Array::int(graft_ir::DType::Int64, vec![axes.len()], axes)),
        _ => example.ints(&axes),
    }
}
