//! Copies and generated tensors.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::{Attr, DType};

pub(super) const ROWS: &[Row] =
    &[("Concat", concat), ("ConstantOfShape", constant_of_shape), ("Range", range)];

const SIZED: &[DType] =
    &[DType::Bool, DType::Uint8, DType::Float16, DType::Float, DType::Int32, DType::Int64, DType::Double];

fn concat(d: &mut Draw) -> Case {
    let (dtype, rank) = (d.pick(SIZED), 1 + d.below(3));
    let (mut dims, axis) = (d.sizes(rank), d.axis(rank));
    let operands: Vec<_> = (0..1 + d.below(4))
        .map(|_| {
            dims[axis.rem_euclid(rank as i64) as usize] = d.size().min(70);
            d.elements(dtype, &dims)
        })
        .collect();
    Case::new(Bound::Exact, operands).int("axis", axis)
}

fn constant_of_shape(d: &mut Draw) -> Case {
    let shape: Vec<i64> = d.shape(3).into_iter().map(|n| n as i64).collect();
    let case = Case::new(Bound::Exact, [d.list(&shape)]);
    if d.one_in(4) {
        return case;
    }
    let dtype = d.pick(SIZED);
    let value = d.elements(dtype, &[1]).to_tensor().expect("the type has a size");
    case.attr("value", Attr::Tensor(value))
}

fn range(d: &mut Draw) -> Case {
    let bound = |d: &mut Draw| d.ints(DType::Int64, &[], -300, 300);
    let [start, limit] = [bound(d), bound(d)];
    let step = d.pick(&[-7, -1, 1, 2, 50]);
    let mut delta = d.list(&[step]);
    delta.dims.clear();
    Case::new(Bound::Exact, [start, limit, delta])
}
