//! Positions along an axis.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::{Array, DType};

pub(super) const ROWS: &[Row] = &[("ArgMax", arg), ("ArgMin", arg), ("OneHot", one_hot), ("TopK", top_k)];

/// Numbers of which many are equal, or some are special, and an axis of them that has elements.
fn data(d: &mut Draw) -> (Array, i64, usize) {
    let rank = 1 + d.below(3);
    let (mut dims, axis) = (d.sizes(rank), d.axis(rank));
    let at = axis.rem_euclid(rank as i64) as usize;
    dims[at] = dims[at].max(1);
    let x = if d.flip() { d.elements(DType::Float, &dims) } else { d.wild(&dims) };
    (x, axis, dims[at])
}

fn arg(d: &mut Draw) -> Case {
    let (x, axis, _) = data(d);
    let case = Case::new(Bound::Exact, [x]).int("axis", axis).int("select_last_index", d.flip().into());
    if d.flip() { case.int("keepdims", d.flip().into()) } else { case }
}

fn top_k(d: &mut Draw) -> Case {
    let (x, axis, size) = data(d);
    let k = d.below(size + 1) as i64;
    let k = d.list(&[k]);
    let case = Case::new(Bound::Exact, [x, k]).int("axis", axis).results(2);
    if d.flip() { case.int("largest", d.flip().into()) } else { case }
}

/// Indices beyond both ends of the axis.
fn one_hot(d: &mut Draw) -> Case {
    let (dims, depth, dtype) = (d.shape(2), d.size().min(20), d.pick(&[DType::Int32, DType::Int64]));
    let axis = d.axis(dims.len() + 1);
    let reach = depth as i64 + 2;
    let indices = d.ints(dtype, &dims, -reach, reach);
    let (depth, of_values) = (
        d.ints(DType::Int64, &[], depth as i64, depth as i64),
        d.pick(&[DType::Float, DType::Int64, DType::Bool]),
    );
    let values = d.elements(of_values, &[2]);
    Case::new(Bound::Exact, [indices, depth, values]).int("axis", axis)
}
