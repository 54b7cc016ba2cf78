//! Optimiser steps.
mod cpu;
pub(crate) mod cuda;

use crate::{Device, Kernel, dtype, floats};
use graft_ir::{DType, Node, Type};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("graft.AdamW", adamw, cpu::adamw)
        .in_place(&[(0, 0), (2, 1), (3, 2)])
        .flops(per_element::<16>)
        .device(Device::launches(cuda::adamw).in_place(&[(0, 0), (2, 1), (3, 2)])),
    Kernel::new("graft.Sgd", |_, t| floats(t, t.len()), cpu::sgd)
        .in_place(&[(0, 0)])
        .flops(per_element::<3>)
        .device(Device::launches(cuda::sgd).in_place(&[(0, 0)])),
];

fn per_element<const N: u64>(_: &Node, operands: &[&[usize]], _: &[&[usize]]) -> u64 {
    N * operands[0].iter().product::<usize>() as u64
}

/// All is updated together, so all results must be wanted.
fn adamw(node: &Node, types: &[Option<Type>]) -> bool {
    let wanted = (0..3).all(|i| node.output(i).is_some());
    let sizes = |i: usize| types[i].as_ref().and_then(Type::sizes);
    // One step for all elements, or one for each.
    let steps = |step: Vec<usize>| step.is_empty() || Some(step) == sizes(0);
    let typed = types.len() == 6 && floats(types, 5) && dtype(types, 5) == Some(DType::Int64);
    wanted && typed && sizes(5).is_some_and(steps)
}
