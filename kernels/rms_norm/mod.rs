//! The norm by the root of the mean square, and its gradient.
mod cpu;

use crate::{Device, Kernel, Operands, floats, layer_norm::cuda};
use graft_ir::{Node, Type};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("graft.RmsNorm", forward, cpu::rms_norm).in_place(&[(0, 0)]).flops(per_element).device(
        Device::launches(cuda::rms_norm).in_place(&[(0, 0)]).single(Operands::None, Operands::Only(&[1])),
    ),
    Kernel::new("graft.RmsNormGrad", backward, cpu::rms_norm_grad)
        .in_place(&[(0, 0)])
        .flops(per_element)
        .device(
            Device::launches(cuda::rms_norm_grad)
                .in_place(&[(0, 0)])
                .single(Operands::Only(&[3]), Operands::Only(&[1])),
        ),
];

fn per_element(_: &Node, operands: &[&[usize]], _: &[&[usize]]) -> u64 {
    6 * operands[0].iter().product::<usize>() as u64
}

/// The rows are normalised where the first result lies, so it must be wanted.
fn forward(node: &Node, types: &[Option<Type>]) -> bool {
    node.output(0).is_some() && types.len() == 2 && floats(types, 2) && fits(types, 0, 1)
}

fn backward(_: &Node, types: &[Option<Type>]) -> bool {
    types.len() == 4 && floats(types, 4) && fits(types, 1, 2)
}

/// Whether the scale has just the size of the last axis, so that it needs no broadcast.
fn fits(types: &[Option<Type>], x: usize, scale: usize) -> bool {
    let shape = |i: usize| types[i].as_ref().and_then(|t| t.shape.as_ref());
    let (Some(x), Some(scale)) = (shape(x), shape(scale)) else { return false };
    scale.len() == 1 && x.last() == scale.first()
}
