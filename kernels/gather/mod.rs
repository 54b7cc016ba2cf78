//! `Gather`, its gradient, and `GatherElements`.
mod cpu;

use crate::{Kernel, dtype, indices};
use graft_ir::{Node, Type};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("Gather", supports, cpu::gather),
    Kernel::new("GatherElements", supports, cpu::gather_elements),
];

fn supports(_: &Node, types: &[Option<Type>]) -> bool {
    dtype(types, 0).is_some_and(|d| matches!(d.bits(), 8 | 16 | 32 | 64)) && indices(types, 1)
}
