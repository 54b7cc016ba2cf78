//! The rotation of positions, in halves, and its gradient.
mod cpu;
pub(crate) mod cuda;

use crate::{Device, Kernel, Operands, floats};
use graft_ir::{Node, Type};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("graft.Rotary", forward, cpu::rotary)
        .strided(Operands::Only(&[0]))
        .flops(per_element)
        .device(Device::launches(cuda::rotary).strided(Operands::Only(&[0]))),
    Kernel::new("graft.RotaryGrad", backward, cpu::rotary_grad)
        .strided(Operands::Only(&[0, 1]))
        .flops(per_element)
        .device(Device::launches(cuda::rotary_grad).strided(Operands::Only(&[0, 1]))),
];

fn per_element(_: &Node, operands: &[&[usize]], _: &[&[usize]]) -> u64 {
    3 * operands[0].iter().product::<usize>() as u64
}

fn forward(node: &Node, types: &[Option<Type>]) -> bool {
    types.len() == 3 && floats(types, 3) && fits(node, types, 1)
}

/// The angles' gradients, which nobody wants of a model, are left to the body.
fn backward(node: &Node, types: &[Option<Type>]) -> bool {
    let only_dx = node.output(0).is_some() && node.defines().count() == 1;
    only_dx && types.len() == 4 && floats(types, 4) && fits(node, types, 2)
}

/// Whether cosines and sines, from operand `cos` on, have one shape that is repeated to that of operand 0, whole rows
/// of two halves at a time.
fn fits(node: &Node, types: &[Option<Type>], cos: usize) -> bool {
    let sizes = |i: usize| types[i].as_ref().and_then(Type::sizes);
    let (Some(x), Some(cos), Some(sin)) = (sizes(0), sizes(cos), sizes(cos + 1)) else { return false };
    let half = node.ints("half").ok().flatten().and_then(<[i64]>::first).copied().unwrap_or(0);
    let is_cut = usize::try_from(half).is_ok_and(|half| x.last() == Some(&(2 * half)));
    let is_repeated = |(&n, &m): (&usize, &usize)| n == 1 || n == m;
    is_cut
        && cos == sin
        && cos.last() == x.last()
        && cos.len() <= x.len()
        && cos.iter().rev().zip(x.iter().rev()).all(is_repeated)
}
