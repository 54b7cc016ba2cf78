//! A linear layer with a LoRA adapter, and its gradient.
//!
//! `graft.Lora (x, w, a, b, scale) => (y, h)`: `h = x·a`, `y = x·w + scale·(h·b)`.
//! `graft.LoraGrad (dy, x, w, a, b, scale, h) => (dx, da, db)`: with `dh = scale·(dy·bᵀ)`,
//! `da = xᵀ·dh`, `db = scale·(hᵀ·dy)`, `dx = dy·wᵀ + dh·aᵀ`.
mod beside;
mod cpu;
pub mod cuda;
mod middle;

pub(crate) use middle::Middle;

use crate::{
    Device, Kernel, Operands,
    extended::{bytes, flops, n_rows, supports},
};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("graft.Lora", |_, t| supports(t, 5, &[0], &[1, 2, 3]), cpu::lora)
        .strided(Operands::Only(&[1, 2, 3]))
        .scratch(|node, operands, _| if node.output(1).is_some() { 0 } else { rank_space(operands, 2) })
        .flops(|_, operands, _| flops(operands, &[1, 2, 3]))
        .device(Device::launches(cuda::forward).single(Operands::Only(&[4]), Operands::None)),
    Kernel::new("graft.LoraGrad", |_, t| supports(t, 7, &[0, 1], &[2, 3, 4]), cpu::lora_grad)
        .strided(Operands::Only(&[2, 3, 4]))
        .scratch(|_, operands, _| rank_space(operands, 3))
        .flops(|node, operands, _| {
            let dx: &[usize] = if node.output(0).is_some() { &[2, 3] } else { &[] };
            flops(operands, dx) + flops(operands, &[3, 4, 4])
        })
        .device(Device::launches(cuda::gradient).single(Operands::Only(&[5]), Operands::Only(&[1, 2]))),
];

/// Bytes of a tokens × rank matrix; operand `a` has the rank as its columns.
fn rank_space(operands: &[&[usize]], a: usize) -> usize {
    bytes(n_rows(operands[0]) * operands[a].last().copied().unwrap_or(0))
}
