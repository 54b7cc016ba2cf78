//! Layer normalisation and its gradient.
mod cpu;
pub(crate) mod cuda;

use crate::{Device, Kernel, Operands, axis, floats};
use graft_ir::{Node, Type};

/// Mean and inverse deviation, or their like in the gradient: the sums over rows.
const MOMENTS: Operands = Operands::Only(&[1, 2]);

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("LayerNormalization", forward, cpu::layer_norm)
        .in_place(&[(0, 0)])
        .flops(per_element)
        .device(Device::launches(cuda::layer_norm).in_place(&[(0, 0)]).single(Operands::None, MOMENTS)),
    Kernel::new("graft.LayerNorm", forward, cpu::layer_norm)
        .in_place(&[(0, 0)])
        .flops(per_element)
        .device(Device::launches(cuda::layer_norm).in_place(&[(0, 0)]).single(Operands::None, MOMENTS)),
    Kernel::new("graft.LayerNormGrad", backward, cpu::layer_norm_grad)
        .in_place(&[(0, 0)])
        .flops(per_element)
        .device(
            Device::launches(cuda::layer_norm_grad)
                .in_place(&[(0, 0)])
                .single(Operands::Only(&[4, 5]), MOMENTS),
        ),
];

fn per_element(_: &Node, operands: &[&[usize]], _: &[&[usize]]) -> u64 {
    8 * operands[0].iter().product::<usize>() as u64
}

/// The rows are normalised where the first result lies, so it must be wanted.
fn forward(node: &Node, types: &[Option<Type>]) -> bool {
    node.output(0).is_some()
        && floats(types, types.len())
        && (2..=3).contains(&types.len())
        && fits(node, types, 0, 1)
}

fn backward(node: &Node, types: &[Option<Type>]) -> bool {
    floats(types, 3) && floats(&types[4..], 2) && types.len() == 6 && fits(node, types, 1, 2)
}

/// Whether the scale covers just the normalised axes, so that it needs no broadcast.
fn fits(node: &Node, types: &[Option<Type>], x: usize, scale: usize) -> bool {
    let shape = |i: usize| types[i].as_ref().and_then(|t| t.shape.as_ref());
    let (Some(x), Some(scale)) = (shape(x), shape(scale)) else { return false };
    let at = node.int("axis").ok().flatten().unwrap_or(-1);
    axis(at, x.len()).is_ok_and(|at| x.get(at..) == Some(scale.as_slice()))
}
