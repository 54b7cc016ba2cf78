//! A linear layer with a DoRA adapter, and its gradient, in which the norms are constant.
//!
//! `graft.Dora (x, w, a, b, m, scale) => (y, h, sum, n)`: `h = x·a`, `sum = x·w + scale·(h·b)`, `n` the norms of the
//! columns of `w + scale·a·b`, `y = sum∘(m/n)`.
//! `graft.DoraGrad (dy, x, w, a, b, m, scale, h, sum, n) => (dx, da, db, dm)`: those of LoRA for `dsum = dy∘(m/n)`, and
//! `dm = Σ dy∘sum / n`, the sum over tokens.
mod cpu;
pub(crate) mod cuda;

use crate::{
    Device, Kernel, Operands,
    extended::{bytes, flops, n_rows, supports},
};

/// Rows of the changed weight whose squares are summed at a time, so that it is never whole in memory.
const BLOCK: usize = 64;

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("graft.Dora", |_, t| supports(t, 6, &[0], &[1, 2, 3]), cpu::dora)
        .strided(Operands::Only(&[1, 2, 3]))
        .scratch(|_, operands, _| scratch(operands, 0, 2, 3) + bytes(BLOCK * width(operands[3])))
        .flops(|_, operands, _| {
            let change = 2 * (operands[2].iter().product::<usize>() * width(operands[3])) as u64;
            flops(operands, &[1, 2, 3]) + change
        })
        .device(Device::launches(cuda::forward).single(Operands::Only(&[4, 5]), Operands::Only(&[3]))),
    Kernel::new("graft.DoraGrad", |_, t| supports(t, 10, &[0, 1, 8], &[2, 3, 4]), cpu::dora_grad)
        .strided(Operands::Only(&[2, 3, 4]))
        .scratch(|_, operands, _| scratch(operands, 1, 3, 4))
        .flops(|node, operands, _| {
            let dx: &[usize] = if node.output(0).is_some() { &[2, 3] } else { &[] };
            flops(operands, dx) + flops(operands, &[3, 4, 4])
        })
        .device(
            Device::launches(cuda::gradient).single(Operands::Only(&[5, 6, 9]), Operands::Only(&[1, 2, 3])),
        ),
];

fn width(dims: &[usize]) -> usize {
    dims.last().copied().unwrap_or(0)
}

/// Bytes of a tokens × rank and a tokens × out matrix.
fn scratch(operands: &[&[usize]], x: usize, a: usize, b: usize) -> usize {
    bytes(n_rows(operands[x]) * (width(operands[a]) + width(operands[b])))
}
