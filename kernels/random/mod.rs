//! Random numbers of the counter-based generator (`graft_ir::random`): draws, and dropout.
mod cpu;
pub(crate) mod cuda;

use crate::{Device, Kernel, dtype};
use graft_ir::{DType, Node, Type};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("graft.Dropout", dropout, cpu::dropout)
        .in_place(&[(0, 0)])
        .flops(per_element)
        .device(Device::launches(cuda::dropout).in_place(&[(0, 0)])),
    Kernel::new("graft.Uniform", |_, t| t.len() == 4 && counted(t, 0..4), cpu::uniform)
        .flops(per_element)
        .device(Device::launches(cuda::uniform)),
];

/// The multiplications and additions of one draw.
fn per_element(_: &Node, _: &[&[usize]], results: &[&[usize]]) -> u64 {
    12 * results.first().map_or(0, |dims| dims.iter().product::<usize>() as u64)
}

/// `float` elements, and numbers that say which draws are theirs.
fn dropout(node: &Node, types: &[Option<Type>]) -> bool {
    let is_float = matches!(node.int("to"), Ok(None | Some(1)));
    is_float && types.len() == 4 && dtype(types, 0) == Some(DType::Float) && counted(types, 1..4)
}

/// Whether these operands are all `int64`.
fn counted(types: &[Option<Type>], mut these: std::ops::Range<usize>) -> bool {
    these.all(|i| dtype(types, i) == Some(DType::Int64))
}
