//! A linear layer with an AdaLoRA adapter, LoRA whose ranks have singular values, and its gradient.
//!
//! `graft.AdaLora (x, w, a, b, e, scale) => (y, h)`: `h = x·a`, `y = x·w + scale·((h∘e)·b)`.
//! `graft.AdaLoraGrad (dy, x, w, a, b, e, scale, h) => (dx, da, db, de)`: with `dq = scale·(dy·bᵀ)`:
//! `da = xᵀ·(dq∘e)`, `db = scale·((h∘e)ᵀ·dy)`, `de = Σ dq∘h`, the sum over tokens, `dx = dy·wᵀ + (dq∘e)·aᵀ`.
mod cpu;
pub(crate) mod cuda;

use crate::{
    Device, Kernel, Operands,
    extended::{bytes, flops, n_rows, supports},
};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("graft.AdaLora", |_, t| supports(t, 6, &[0], &[1, 2, 3, 4]), cpu::adalora)
        .strided(Operands::Only(&[1, 2, 3]))
        .scratch(|_, operands, _| scratch(operands, 2))
        .flops(|_, operands, _| flops(operands, &[1, 2, 3]))
        .device(Device::launches(cuda::forward).single(Operands::Only(&[4, 5]), Operands::None)),
    Kernel::new("graft.AdaLoraGrad", |_, t| supports(t, 8, &[0, 1], &[2, 3, 4, 5]), cpu::adalora_grad)
        .strided(Operands::Only(&[2, 3, 4]))
        .scratch(|_, operands, _| scratch(operands, 3))
        .flops(|node, operands, _| {
            let dx: &[usize] = if node.output(0).is_some() { &[2, 3] } else { &[] };
            flops(operands, dx) + flops(operands, &[3, 4, 4])
        })
        .device(Device::launches(cuda::gradient).single(Operands::Only(&[5, 6]), Operands::Only(&[1, 2, 3]))),
];

/// Bytes of two tokens × rank matrices; operand `a` has the rank as its columns.
fn scratch(operands: &[&[usize]], a: usize) -> usize {
    bytes(2 * n_rows(operands[0]) * operands[a].last().copied().unwrap_or(0))
}
