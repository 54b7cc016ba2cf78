//! A linear layer with a LoRA adapter, and its gradient.
//!
//! `graft.Lora (x, w, a, b, scale) => (y, h)`: `h = x·a`, `y = x·w + scale·(h·b)`.
//! `graft.LoraGrad (dy, x, w, a, b, scale, h) => (dx, da, db)`: with `dh = scale·(dy·bᵀ)`,
//! `da = xᵀ·dh`, `db = scale·(hᵀ·dy)`, `dx = dy·wᵀ + dh·aᵀ`.
mod cpu;

use crate::{Kernel, Operands, floats};
use graft_ir::{Node, Type};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("graft.Lora", |n, t| supports(n, t, 5, &[(0, 1), (0, 2)]), cpu::lora)
        .strided(Operands::Only(&[1, 2, 3]))
        .scratch(|node, operands, _| rank_space(node.output(1).is_none(), operands, 0, 2))
        .flops(|_, operands, _| {
            rows(operands[0]) * (matrix(operands[1]) + matrix(operands[2]) + matrix(operands[3]))
        }),
    Kernel::new("graft.LoraGrad", |n, t| supports(n, t, 7, &[(1, 2), (1, 3)]), cpu::lora_grad)
        .strided(Operands::Only(&[2, 3, 4]))
        .scratch(|_, operands, _| rank_space(true, operands, 0, 3))
        .flops(|node, operands, _| {
            let dx = u64::from(node.output(0).is_some());
            let base = matrix(operands[2]) + matrix(operands[3]);
            rows(operands[0]) * (dx * base + matrix(operands[3]) + 2 * matrix(operands[4]))
        }),
];

/// Operands that are all `float`, rank-2 weights, and an activation of at least two axes.
fn supports(_: &Node, types: &[Option<Type>], n: usize, sides: &[(usize, usize)]) -> bool {
    let rank = |i: usize| types[i].as_ref().and_then(|t| t.shape.as_ref()).map(Vec::len);
    types.len() == n
        && floats(types, n)
        && sides.iter().all(|&(x, w)| rank(x).is_some_and(|r| r >= 2) && rank(w) == Some(2))
}

/// The rows of an activation (…, width).
fn rows(dims: &[usize]) -> u64 {
    dims[..dims.len().saturating_sub(1)].iter().product::<usize>() as u64
}

/// Operations of a product of one row with a matrix.
fn matrix(dims: &[usize]) -> u64 {
    2 * dims.iter().product::<usize>() as u64
}

/// Bytes of a rows × rank matrix, where it is needed.
fn rank_space(needed: bool, operands: &[&[usize]], rows_of: usize, a: usize) -> usize {
    let rank = operands[a].last().copied().unwrap_or(0);
    if needed { rows(operands[rows_of]) as usize * rank * size_of::<f32>() } else { 0 }
}
