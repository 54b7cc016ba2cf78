//! A linear layer with a Bat adapter, and its gradient; `d` holds a square matrix for each block of columns.
//!
//! `graft.BatCol (x, w, d) => (base)`: `y = x·w'`, `w'` made of w block by block.
//! `graft.BatRow (x, w, d) => (y)`: with `u_b = x_b·d_bᵀ`: `y = (x + u)·w + repeat(Σ u_b)`.
//! `graft.BatLeft (x, w, d) => (y, u)`: with `u_a = (x·w)_a + fold(x)`: `y_a = (x·w)_a + u_a·d_a`.
//! The gradients are those that METHODS of each layout derive: `graft.BatColGrad (dy, x, w, d) => (dx, dd)` needs the
//! gradient of the whole weight, the other two never make a matrix of the weight's size.
mod col;
mod side;

use crate::{
    Kernel, Operands,
    extended::{bytes, flops, n_rows, supports},
};
use graft_ir::Type;

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("graft.BatCol", |_, t| fits(t, 3, &[0], 1), col::forward)
        .scratch(|_, operands, _| bytes(elements(operands[1])))
        .flops(|_, operands, _| flops(operands, &[1])),
    Kernel::new("graft.BatColGrad", |_, t| fits(t, 4, &[0, 1], 2), col::gradient)
        .scratch(|_, operands, _| bytes(elements(operands[2])))
        .flops(|_, operands, _| flops(operands, &[2, 2])),
    Kernel::new("graft.BatRow", |_, t| fits(t, 3, &[0], 1), side::row_forward)
        .strided(Operands::Only(&[1]))
        .scratch(|_, operands, _| bytes(2 * elements(operands[0]) + elements(operands[2])))
        .flops(|_, operands, _| flops(operands, &[1, 2])),
    Kernel::new("graft.BatRowGrad", |_, t| fits(t, 4, &[0, 1], 2), side::row_gradient)
        .strided(Operands::Only(&[2]))
        .scratch(|_, operands, _| bytes(2 * elements(operands[1]) + elements(operands[0])))
        .flops(|_, operands, _| flops(operands, &[2, 3, 3])),
    Kernel::new("graft.BatLeft", |_, t| fits(t, 3, &[0], 1), side::left_forward)
        .strided(Operands::Only(&[1]))
        .scratch(|_, operands, _| {
            let outputs = n_rows(operands[0]) * operands[1].last().copied().unwrap_or(0);
            bytes(elements(operands[0]) + outputs)
        })
        .flops(|_, operands, _| flops(operands, &[1, 2])),
    Kernel::new("graft.BatLeftGrad", |_, t| fits(t, 5, &[0, 1], 2), side::left_gradient)
        .strided(Operands::Only(&[2]))
        .scratch(|_, operands, _| bytes(3 * elements(operands[0]) + elements(operands[3])))
        .flops(|_, operands, _| flops(operands, &[2, 3, 3])),
];

/// Operands as [`supports`] wants them, the weight a matrix and `d` after it of three axes.
fn fits(types: &[Option<Type>], n: usize, activations: &[usize], w: usize) -> bool {
    let rank = |i: usize| types[i].as_ref().and_then(|t| t.shape.as_ref()).map(Vec::len);
    supports(types, n, activations, &[w]) && rank(w + 1) == Some(3)
}

fn elements(dims: &[usize]) -> usize {
    dims.iter().product()
}
