//! `MatMul`, batched and broadcast, `Gemm`, and `Einsum`, which is made of such products.
mod contraction;
mod cpu;
pub(crate) mod cuda;
mod einsum;

use crate::{Device, Kernel, Operands, floats};
use graft_ir::{Node, Type};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("Einsum", |_, t| !t.is_empty() && floats(t, t.len()), einsum::einsum)
        .scratch(einsum::scratch)
        .flops(einsum::flops)
        .device(Device::launches(cuda::einsum)),
    Kernel::new("MatMul", |_, t| floats(t, 2), cpu::matmul)
        .strided(Operands::All)
        .flops(|_, operands, results| {
            let inner = operands[0].last().copied().unwrap_or(1);
            2 * (inner * results[0].iter().product::<usize>()) as u64
        })
        .device(Device::launches(cuda::matmul).strided(Operands::All)),
    Kernel::new("Gemm", gemm_supports, cpu::gemm)
        .strided(Operands::All)
        .flops(|node, operands, results| {
            let transposed = node.attrs.get("transA") == Some(&graft_ir::Attr::Int(1));
            let inner = operands[0].get(usize::from(!transposed)).copied().unwrap_or(1);
            2 * (inner * results[0].iter().product::<usize>()) as u64
        })
        .device(Device::launches(cuda::gemm).strided(Operands::All)),
];

fn gemm_supports(_: &Node, types: &[Option<Type>]) -> bool {
    types.len() >= 2 && floats(types, types.len())
}
