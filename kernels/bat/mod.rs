//! A linear layer with a Bat adapter, and its gradient; `d` holds a square matrix for each block of columns.
//!
//! `graft.BatCol (x, w, d) => (base)`: `y = x·w'`, `w'` made of w block by block.
//! `graft.BatRow (x, w, d) => (y)`: with `u_b = x_b·d_bᵀ`: `y = (x + u)·w + repeat(Σ u_b)`.
//! `graft.BatLeft (x, w, d) => (y, u)`: with `u_a = (x·w)_a + fold(x)`: `y_a = (x·w)_a + u_a·d_a`.
//! `graft.BatColGrad (dy, x, w, d) => (dx, dd)` needs the gradient of the whole weight; the gradients of the other two
//! never make a matrix of the weight's size.
mod col;
pub(crate) mod cuda;
mod side;

use crate::{
    Device, Kernel, Operands,
    extended::{bytes, flops, n_rows, supports},
};
use graft_ir::Type;

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("graft.BatCol", |_, t| fits(t, 3, &[0], 1), col::forward)
        .scratch(|_, operands, _| bytes(elements(operands[1])))
        .flops(|_, operands, _| flops(operands, &[1]))
        .device(Device::launches(cuda::col_forward)),
    Kernel::new("graft.BatColGrad", |_, t| fits(t, 4, &[0, 1], 2), col::gradient)
        .scratch(|_, operands, _| bytes(elements(operands[2])))
        .flops(|_, operands, _| flops(operands, &[2, 2]))
        .device(Device::launches(cuda::col_gradient).single(Operands::None, Operands::Only(&[1]))),
    Kernel::new("graft.BatRow", |_, t| fits(t, 3, &[0], 1), side::row_forward)
        .strided(Operands::Only(&[1]))
        .scratch(|_, operands, _| bytes(2 * elements(operands[0]) + elements(operands[2])))
        .flops(|_, operands, _| flops(operands, &[1, 2]))
        .device(Device::launches(cuda::row_forward)),
    Kernel::new("graft.BatRowGrad", |_, t| fits(t, 4, &[0, 1], 2), side::row_gradient)
        .strided(Operands::Only(&[2]))
        .scratch(|_, operands, _| bytes(2 * elements(operands[1]) + elements(operands[0])))
        .flops(|_, operands, _| flops(operands, &[2, 3, 3]))
        .device(Device::launches(cuda::row_gradient).single(Operands::None, Operands::Only(&[1]))),
    Kernel::new("graft.BatLeft", |_, t| fits(t, 3, &[0], 1), side::left_forward)
        .strided(Operands::Only(&[1]))
        .scratch(|_, operands, _| {
            let outputs = n_rows(operands[0]) * operands[1].last().copied().unwrap_or(0);
            bytes(elements(operands[0]) + outputs)
        })
        .flops(|_, operands, _| flops(operands, &[1, 2]))
        .device(Device::launches(cuda::left_forward)),
    Kernel::new("graft.BatLeftGrad", |_, t| fits(t, 5, &[0, 1], 2), side::left_gradient)
        .strided(Operands::Only(&[2]))
        .scratch(|_, operands, _| bytes(3 * elements(operands[0]) + elements(operands[3])))
        .flops(|_, operands, _| flops(operands, &[2, 3, 3]))
        .device(Device::launches(cuda::left_gradient).single(Operands::None, Operands::Only(&[1]))),
];

/// Operands as [`supports`] wants them, the weight a matrix and `d` after it of three axes.
fn fits(types: &[Option<Type>], n: usize, activations: &[usize], w: usize) -> bool {
    let rank = |i: usize| types[i].as_ref().and_then(|t| t.shape.as_ref()).map(Vec::len);
    supports(types, n, activations, &[w]) && rank(w + 1) == Some(3)
}

/// A product with a square matrix of `n` rows, which lie `stride` apart: row i of the result, which begin `out_stride`
/// apart, gets `out[i, p] += Σ factor(i, k)·m[k, p]`.
#[derive(Clone, Copy)]
struct Square<'a> {
    m: &'a [f32],
    n: usize,
    stride: usize,
}

impl Square<'_> {
    /// The usual ranks keep their sums in registers, four rows at a time.
    #[inline(always)]
    fn accumulate(
        &self,
        out: &mut [f32],
        out_stride: usize,
        n_rows: usize,
        factor: impl Fn(usize, usize) -> f32,
    ) {
        match self.n {
            4 => self.by_size::<4>(out, out_stride, n_rows, factor),
            8 => self.by_size::<8>(out, out_stride, n_rows, factor),
            16 => self.by_size::<16>(out, out_stride, n_rows, factor),
            32 => self.by_size::<32>(out, out_stride, n_rows, factor),
            n => {
                for (i, k) in (0..n_rows).flat_map(|i| (0..n).map(move |k| (i, k))) {
                    let factor = factor(i, k);
                    let row = &mut out[i * out_stride..][..n];
                    for (y, m) in row.iter_mut().zip(&self.m[k * self.stride..][..n]) {
                        *y += factor * m;
                    }
                }
            }
        }
    }
    #[inline(always)]
    fn by_size<const N: usize>(
        &self,
        out: &mut [f32],
        out_stride: usize,
        n_rows: usize,
        factor: impl Fn(usize, usize) -> f32,
    ) {
        let mut i = 0;
        while i + 4 <= n_rows {
            self.block::<N, 4>(
                &mut out[i * out_stride..],
                out_stride,
                #[inline(always)]
                |j, k| factor(i + j, k),
            );
            i += 4;
        }
        while i < n_rows {
            self.block::<N, 1>(
                &mut out[i * out_stride..],
                out_stride,
                #[inline(always)]
                |j, k| factor(i + j, k),
            );
            i += 1;
        }
    }
    #[inline(always)]
    fn block<const N: usize, const R: usize>(
        &self,
        out: &mut [f32],
        out_stride: usize,
        factor: impl Fn(usize, usize) -> f32,
    ) {
        let mut sums = [[0.0; N]; R];
        for (j, sums) in sums.iter_mut().enumerate() {
            sums.copy_from_slice(&out[j * out_stride..][..N]);
        }
        for k in 0..N {
            let row = &self.m[k * self.stride..][..N];
            for (j, sums) in sums.iter_mut().enumerate() {
                let factor = factor(j, k);
                for (sum, m) in sums.iter_mut().zip(row) {
                    *sum += factor * m;
                }
            }
        }
        for (j, sums) in sums.iter().enumerate() {
            out[j * out_stride..][..N].copy_from_slice(sums);
        }
    }
}

fn elements(dims: &[usize]) -> usize {
    dims.iter().product()
}
