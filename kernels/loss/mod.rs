//! Cross-entropy over classes, and its gradients.
mod cpu;
pub(crate) mod cuda;

use crate::{Device, Kernel, Operands, floats, indices};
use graft_ir::{Node, Type};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("SoftmaxCrossEntropyLoss", forward, cpu::cross_entropy)
        .scratch(|_, operands, _| 2 * size_of::<f64>() * operands[1].iter().product::<usize>())
        .flops(per_element)
        .device(Device::launches(cuda::cross_entropy).single(Operands::None, Operands::Only(&[0]))),
    Kernel::new("graft.CrossEntropyGrad", backward, cpu::cross_entropy_grad)
        .flops(per_logit)
        .device(Device::launches(cuda::cross_entropy_grad).single(Operands::Only(&[0]), Operands::None)),
    Kernel::new("graft.CrossEntropyRows", backward, cpu::cross_entropy_rows)
        .flops(per_logit)
        .device(Device::launches(cuda::cross_entropy_rows).single(Operands::Only(&[0]), Operands::None)),
];

fn per_element(_: &Node, operands: &[&[usize]], _: &[&[usize]]) -> u64 {
    4 * operands[0].iter().product::<usize>() as u64
}

fn per_logit(node: &Node, operands: &[&[usize]], results: &[&[usize]]) -> u64 {
    per_element(node, &operands[1..], results)
}

/// No class weights, and a reduction to one number.
fn forward(node: &Node, types: &[Option<Type>]) -> bool {
    let reduction = node.str("reduction").ok().flatten().unwrap_or("mean");
    floats(types, 1) && indices(types, 1) && types.len() == 2 && matches!(reduction, "mean" | "sum")
}

fn backward(_: &Node, types: &[Option<Type>]) -> bool {
    types.len() == 3 && floats(types, 2) && indices(types, 2)
}
