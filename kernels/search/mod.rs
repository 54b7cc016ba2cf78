//! Finding positions, and marking them: `ArgMax`, `ArgMin`, `OneHot`, `TopK`.
mod cpu;

use crate::{Kernel, dtype, floats, indices};
use graft_ir::{DType, Node, Type};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("ArgMax", |_, t| floats(t, 1), |c| cpu::arg(c, |x, best| x > best)).flops(compared),
    Kernel::new("ArgMin", |_, t| floats(t, 1), |c| cpu::arg(c, |x, best| x < best)).flops(compared),
    Kernel::new("OneHot", marks, cpu::one_hot).flops(|_, _, _| 0),
    Kernel::new("TopK", |_, t| floats(t, 1), cpu::top_k).flops(compared),
];

/// A comparison for each element.
fn compared(_: &Node, operands: &[&[usize]], _: &[&[usize]]) -> u64 {
    operands[0].iter().product::<usize>() as u64
}

/// Integer indices, and values that are moved whole; the depth is read off the result.
fn marks(_: &Node, types: &[Option<Type>]) -> bool {
    let sized = dtype(types, 2).is_some_and(|d: DType| matches!(d.bits(), 8 | 16 | 32 | 64));
    types.len() == 3 && indices(types, 0) && sized
}
