//! A linear layer with a SaLoRA adapter, LoRA whose ranks have gates, and its gradient.
//!
//! `graft.Salora (x, w, a, b, gate, draw, scale) => (y, h, t, g)`: `t = σ(gate + ln draw − ln(1 − draw))`,
//! `g = clip((12·t − 1)/10, 0, 1)`, `h = x·a`, `y = x·w + scale·((h∘g)·b)`.
//! `graft.SaloraGrad (dy, x, w, a, b, gate, draw, scale, h, t, g) => (dx, da, db, dgate)`: with `dq = scale·(dy·bᵀ)`:
//! `da = xᵀ·(dq∘g)`, `db = scale·((h∘g)ᵀ·dy)`, `dx = dy·wᵀ + (dq∘g)·aᵀ`, and where 0 < g < 1
//! `dgate = 1.2·t·(1 − t)·Σ dq∘h`, the sum over tokens.
mod cpu;
pub(crate) mod cuda;

use crate::{
    Device, Kernel, Operands,
    extended::{bytes, flops, n_rows, supports},
};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("graft.Salora", |_, t| supports(t, 7, &[0], &[1, 2, 3]), cpu::salora)
        .strided(Operands::Only(&[1, 2, 3]))
        .scratch(|_, operands, _| scratch(operands, 2))
        .flops(|_, operands, _| flops(operands, &[1, 2, 3]))
        .device(Device::launches(cuda::forward).single(Operands::Only(&[4, 5, 6]), Operands::Only(&[2, 3]))),
    Kernel::new("graft.SaloraGrad", |_, t| supports(t, 11, &[0, 1], &[2, 3, 4]), cpu::salora_grad)
        .strided(Operands::Only(&[2, 3, 4]))
        .scratch(|_, operands, _| scratch(operands, 3))
        .flops(|node, operands, _| {
            let dx: &[usize] = if node.output(0).is_some() { &[2, 3] } else { &[] };
            flops(operands, dx) + flops(operands, &[3, 4, 4])
        })
        .device(
            Device::launches(cuda::gradient)
                .single(Operands::Only(&[5, 6, 7, 9, 10]), Operands::Only(&[1, 2, 3])),
        ),
];

/// Bytes of two tokens × rank matrices and two gates of each rank; operand `a` has the rank as its columns.
fn scratch(operands: &[&[usize]], a: usize) -> usize {
    let rank = operands[a].last().copied().unwrap_or(0);
    bytes((2 * n_rows(operands[0]) + 2) * rank)
}
