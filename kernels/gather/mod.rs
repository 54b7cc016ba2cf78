//! `Gather`, its gradient, `GatherElements`, `GatherND` and `ScatterND`.
mod cpu;
pub(crate) mod cuda;
mod nd;

use crate::{Device, Kernel, dtype, floats, indices};
use graft_ir::{Attr, DType, Node, Type};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("Gather", supports, cpu::gather).device(Device::launches(cuda::gather)),
    Kernel::new("GatherElements", supports, cpu::gather_elements),
    Kernel::new("GatherND", |_, t| sized(t, 0) && dtype(t, 1) == Some(DType::Int64), nd::gather_nd),
    Kernel::new("ScatterND", scatter_supports, nd::scatter_nd).in_place(&[(0, 0)]),
    Kernel::new("graft.GatherGrad", grad_supports, cpu::gather_grad)
        .flops(|_, operands, _| operands[0].iter().product::<usize>() as u64)
        .device(Device::launches(cuda::gather_grad)),
];

fn grad_supports(_: &Node, types: &[Option<Type>]) -> bool {
    types.len() == 3 && floats(types, 1) && indices(types, 1) && dtype(types, 2) == Some(DType::Int64)
}

fn supports(_: &Node, types: &[Option<Type>]) -> bool {
    sized(types, 0) && indices(types, 1)
}

/// Whether the elements of operand `i` have a whole number of bytes.
fn sized(types: &[Option<Type>], i: usize) -> bool {
    dtype(types, i).is_some_and(|d| matches!(d.bits(), 8 | 16 | 32 | 64))
}

/// Blocks that are replaced, or to which numbers are added.
fn scatter_supports(node: &Node, types: &[Option<Type>]) -> bool {
    let meets = match node.attrs.get("reduction") {
        None => true,
        Some(Attr::Str(reduction)) => reduction == "none" || (reduction == "add" && floats(types, 1)),
        Some(_) => false,
    };
    meets && sized(types, 0) && dtype(types, 1) == Some(DType::Int64) && dtype(types, 2) == dtype(types, 0)
}
