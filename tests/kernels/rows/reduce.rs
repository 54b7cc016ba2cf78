//! Reductions and running sums.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::{Attr, DType};

pub(super) const ROWS: &[Row] = &[
    ("CumSum", cumsum),
    ("ReduceL2", |d| reduction(d, 18, SUM)),
    ("ReduceMax", |d| reduction(d, 18, Bound::Exact)),
    ("ReduceMean", |d| reduction(d, 18, SUM)),
    ("ReduceMin", |d| reduction(d, 18, Bound::Exact)),
    ("ReduceSum", |d| reduction(d, 13, SUM)),
    ("ReduceSumSquare", |d| reduction(d, 18, SUM)),
    ("graft.ReduceTo", reduce_to),
];

/// Sums are accumulated in `f64` and rounded once.
const SUM: Bound = Bound::Terms(1.1);

/// A reduction whose axes are an operand from opset `moved` on.
fn reduction(d: &mut Draw, moved: i64, bound: Bound) -> Case {
    let dims = d.shape(4);
    let chosen: Vec<usize> = (0..dims.len()).filter(|_| d.flip()).collect();
    let rank = dims.len() as i64;
    let axes: Vec<i64> =
        chosen.into_iter().map(|a| if d.flip() { a as i64 } else { a as i64 - rank }).collect();
    let opset = d.pick(&[11, 13, 18, 20]);
    let mut case = Case::new(bound, [d.floats(&dims, -2.0, 2.0)]).opset(opset);
    if d.flip() {
        case = case.int("keepdims", i64::from(d.flip()));
    }
    if opset < moved {
        return if axes.is_empty() { case } else { case.attr("axes", Attr::Ints(axes)) };
    }
    if d.flip() {
        case = case.int("noop_with_empty_axes", i64::from(d.flip()));
    }
    if !axes.is_empty() || d.flip() {
        case.operands.push(Some(d.list(&axes)));
    }
    case
}

fn reduce_to(d: &mut Draw) -> Case {
    let dims = d.shape(4);
    let to: Vec<i64> = d.broadcast_of(&dims).into_iter().map(|n| n as i64).collect();
    Case::new(SUM, [d.floats(&dims, -2.0, 2.0), d.list(&to)])
}

fn cumsum(d: &mut Draw) -> Case {
    let (rank, dtype) = (1 + d.below(3), d.pick(&[DType::Float, DType::Int32, DType::Int64]));
    let (dims, at) = (d.sizes(rank), d.axis(rank));
    let x = if dtype == DType::Float { d.floats(&dims, -2.0, 2.0) } else { d.ints(dtype, &dims, -9, 9) };
    let of_axis = d.pick(&[DType::Int32, DType::Int64]);
    let axis = d.ints(of_axis, &[], at, at);
    let bound = if dtype == DType::Float { SUM } else { Bound::Exact };
    let case = Case::new(bound, [x, axis]).int("exclusive", d.flip().into());
    if d.flip() { case.int("reverse", d.flip().into()) } else { case }
}
