//! `Gather`, its gradient, and `GatherElements`.
mod cpu;

use crate::{Kernel, dtype, floats, indices};
use graft_ir::{DType, Node, Type};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("Gather", supports, cpu::gather),
    Kernel::new("GatherElements", supports, cpu::gather_elements),
    Kernel::new("graft.GatherGrad", grad_supports, cpu::gather_grad)
        .flops(|_, operands, _| operands[0].iter().product::<usize>() as u64),
];

fn grad_supports(_: &Node, types: &[Option<Type>]) -> bool {
    types.len() == 3 && floats(types, 1) && indices(types, 1) && dtype(types, 2) == Some(DType::Int64)
}

fn supports(_: &Node, types: &[Option<Type>]) -> bool {
    dtype(types, 0).is_some_and(|d| matches!(d.bits(), 8 | 16 | 32 | 64)) && indices(types, 1)
}
