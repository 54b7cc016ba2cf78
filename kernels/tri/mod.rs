//! A linear layer with a TriAdaptLoRA adapter, and its gradient; `c = tril(l) + triu(u)`.
//!
//! `graft.Tri (x, w, a, b, l, u, scale) => (y, h, q)`: `h = x·a`, `q = h·cᵀ`, `y = x·w + scale·(q·b)`.
//! `graft.TriGrad (dy, x, w, a, b, l, u, scale, h, q) => (dx, da, db, dl, du)`: with `dq = scale·(dy·bᵀ)`, `dh = dq·c`,
//! `dc = dqᵀ·h`: `da = xᵀ·dh`, `db = scale·(qᵀ·dy)`, `dl = tril(dc)`, `du = triu(dc)`, `dx = dy·wᵀ + dh·aᵀ`.
mod cpu;
pub(crate) mod cuda;

use crate::{
    Device, Kernel, Operands,
    extended::{bytes, flops, n_rows, supports},
};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("graft.Tri", |_, t| supports(t, 7, &[0], &[1, 2, 3, 4, 5]), cpu::tri)
        .strided(Operands::Only(&[1, 2, 3]))
        .scratch(|_, operands, _| scratch(operands, 2))
        .flops(|_, operands, _| flops(operands, &[1, 2, 3, 4]))
        .device(Device::launches(cuda::forward).single(Operands::Only(&[6]), Operands::None)),
    Kernel::new("graft.TriGrad", |_, t| supports(t, 10, &[0, 1], &[2, 3, 4, 5, 6]), cpu::tri_grad)
        .strided(Operands::Only(&[2, 3, 4]))
        .scratch(|_, operands, _| scratch(operands, 3))
        .flops(|node, operands, _| {
            let dx: &[usize] = if node.output(0).is_some() { &[2, 3] } else { &[] };
            flops(operands, dx) + flops(operands, &[3, 4, 4, 5, 5])
        })
        .device(Device::launches(cuda::gradient).single(Operands::Only(&[7]), Operands::Only(&[1, 2, 3, 4]))),
];

/// Bytes of two tokens × rank matrices and one of rank × rank; operand `a` has the rank as its columns.
fn scratch(operands: &[&[usize]], a: usize) -> usize {
    let rank = operands[a].last().copied().unwrap_or(0);
    bytes((2 * n_rows(operands[0]) + rank) * rank)
}
