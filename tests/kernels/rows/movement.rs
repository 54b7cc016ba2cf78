//! Copies and generated tensors.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::{Attr, DType};

pub(super) const ROWS: &[Row] = &[
    ("Concat", concat),
    ("ConstantOfShape", constant_of_shape),
    ("Pad", pad),
    ("Range", range),
    ("Trilu", trilu),
];

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

fn trilu(d: &mut Draw) -> Case {
    let (rank, dtype, upper, k) = (2 + d.below(2), d.pick(SIZED), d.flip(), d.below(9) as i64 - 4);
    let dims = d.sizes(rank);
    let case = Case::new(Bound::Exact, [d.elements(dtype, &dims)]).int("upper", upper.into());
    if d.flip() {
        return case;
    }
    let mut diagonal = d.list(&[k]);
    diagonal.dims.clear();
    let mut case = case;
    case.operands.push(Some(diagonal));
    case
}

/// Pads that add and take away, as an attribute before opset 11; from 18 on for some axes only.
fn pad(d: &mut Draw) -> Case {
    let (dims, opset) = (d.shape(4), d.pick(&[6, 13, 18]));
    let dims: Vec<usize> = dims.into_iter().map(|n| n.min(40)).collect();
    let rank = dims.len();
    let axes: Vec<usize> = (0..rank).filter(|_| opset < 18 || d.flip()).collect();
    let draw = |d: &mut Draw, axis: usize| d.below(5) as i64 - (dims[axis].min(4) / 2) as i64;
    let pads: Vec<i64> = axes.iter().chain(&axes).map(|&axis| draw(d, axis)).collect();
    if opset < 11 {
        let case = Case::new(Bound::Exact, [d.floats(&dims, -1.0, 1.0)]).opset(opset);
        let case = case.attr("pads", Attr::Ints(pads));
        return if d.flip() { case.attr("value", Attr::Float(0.5)) } else { case };
    }
    let dtype = d.pick(SIZED);
    let mut case = Case::new(Bound::Exact, [d.elements(dtype, &dims), d.list(&pads)]).opset(opset);
    let constant = d.flip().then(|| d.elements(dtype, &[]));
    case.operands.push(constant);
    if axes.len() < rank {
        let axes: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
        case.operands.push(Some(d.list(&axes)));
    }
    case
}
