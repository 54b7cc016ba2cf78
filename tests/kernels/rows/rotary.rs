//! The rotation of positions.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::Attr;

pub(super) const ROWS: &[Row] =
    &[("graft.Rotary", |d| rotary(d, false)), ("graft.RotaryGrad", |d| rotary(d, true))];

/// Rows of any rank, with angles that are repeated along some axes; a gradient has `dy` before all.
fn rotary(d: &mut Draw, is_gradient: bool) -> Case {
    let rank = 1 + d.below(4);
    let mut dims = d.sizes(rank);
    let half = dims[rank - 1];
    dims[rank - 1] = 2 * half;
    let first = d.below(rank);
    let mut angles = dims[first..].to_vec();
    let last = angles.len() - 1;
    angles[..last].iter_mut().for_each(|n| *n = if d.flip() { 1 } else { *n });
    let (cos, sin) = (d.floats(&angles, -1.0, 1.0), d.floats(&angles, -1.0, 1.0));
    let x = d.floats(&dims, -3.0, 3.0);
    let operands =
        if is_gradient { vec![d.floats(&dims, -3.0, 3.0), x, cos, sin] } else { vec![x, cos, sin] };
    Case::new(Bound::Own(1.0), operands).attr("half", Attr::Ints(vec![half as i64]))
}
