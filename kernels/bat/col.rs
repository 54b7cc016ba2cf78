//! Bat by columns of blocks: the changed weight is made anew for each call, since kept it would double all weights.
use super::Square;
use crate::{
    Call, Threads,
    extended::{check, matrix, misfit, rows},
    gemm::{Gemm, Matrix},
    math::vectorised,
};
use graft_ir::Result;

/// The weight (in, out) in square blocks, those of one block of columns with one matrix of `d`.
struct Blocks<'a> {
    w: &'a [f32],
    d: &'a [f32],
    d_out: usize,
    rank: usize,
}

impl<'a> Blocks<'a> {
    fn new(call: &Call<'a>, w: usize) -> Result<Blocks<'a>> {
        let (w, d) = (call.input(w)?, call.input(w + 1)?);
        let (&[d_in, d_out], &[blocks, rank, columns]) = (w.dims, d.dims) else {
            return Err(misfit());
        };
        check(rank > 0 && columns == rank && blocks * rank == d_out && d_in.is_multiple_of(rank))?;
        Ok(Blocks { w: w.elements(), d: d.elements(), d_out, rank })
    }
    /// `w' = w + dᵀ·w + dᵀ` in each block.
    fn changed(&self, out: &mut [f32], threads: Threads) {
        let Blocks { w, d, d_out, rank } = *self;
        threads.pieces(out, rank * d_out, |start, panel| {
            let w = &w[start..][..panel.len()];
            vectorised(
                #[inline(always)]
                || {
                    for (a, d) in d.chunks(rank * rank).enumerate() {
                        let (out, w) = (&mut panel[a * rank..], &w[a * rank..]);
                        for (q, p) in (0..rank).flat_map(|q| (0..rank).map(move |p| (q, p))) {
                            out[q * d_out + p] = w[q * d_out + p] + d[p * rank + q];
                        }
                        Square { m: w, n: rank, stride: d_out }.accumulate(
                            out,
                            d_out,
                            rank,
                            #[inline(always)]
                            |q, k| d[k * rank + q],
                        );
                    }
                },
            );
        });
    }
    /// `dd[k, q] = Σ g[q, p]·w[k, p] + g[q, k]` for each block of columns, summed over the blocks below one another; `g`
    /// is the gradient of the changed weight.
    fn gradient(&self, g: &[f32], dd: &mut [f32], threads: Threads) {
        let Blocks { w, d_out, rank, .. } = *self;
        threads.pieces(dd, rank * rank, |start, dd| {
            let column = start / rank;
            let mut turned = vec![0.0; rank * rank];
            vectorised(
                #[inline(always)]
                || {
                    dd.fill(0.0);
                    for (w, g) in w.chunks(rank * d_out).zip(g.chunks(rank * d_out)) {
                        for q in 0..rank {
                            let row = &g[q * d_out + column..][..rank];
                            turned.iter_mut().skip(q).step_by(rank).zip(row).for_each(|(t, g)| *t = *g);
                        }
                        dd.iter_mut().zip(&turned).for_each(|(y, t)| *y += t);
                        Square { m: &turned, n: rank, stride: rank }.accumulate(
                            dd,
                            rank,
                            rank,
                            #[inline(always)]
                            |k, p| w[k * d_out + column + p],
                        );
                    }
                },
            );
        });
    }
}

/// `y = x·w'`.
pub(super) fn forward(call: &mut Call<'_>) -> Result<()> {
    let (x, blocks, threads) = (rows(&call.input(0)?), Blocks::new(call, 1)?, call.threads);
    check(x.cols() * blocks.d_out == blocks.w.len())?;
    let changed = &mut call.scratch::<f32>()[..blocks.w.len()];
    blocks.changed(changed, threads);
    let changed = Matrix::row_major(changed, x.cols(), blocks.d_out);
    Gemm::new(x, changed).run(call.output(0)?.elements(), threads);
    Ok(())
}

/// `dx = dy·w'ᵀ`, and the gradient of `d` by way of `xᵀ·dy`, that of the changed weight.
pub(super) fn gradient(call: &mut Call<'_>) -> Result<()> {
    let (dy, x) = (rows(&call.input(0)?), rows(&call.input(1)?));
    let (blocks, w, threads) = (Blocks::new(call, 2)?, matrix(&call.input(2)?)?, call.threads);
    check([x.cols(), dy.cols()] == [w.rows(), w.cols()] && x.rows() == dy.rows())?;
    let whole = &mut call.scratch::<f32>()[..blocks.w.len()];
    if let Some(dx) = call.wanted(0) {
        blocks.changed(whole, threads);
        Gemm::new(dy, Matrix::row_major(whole, w.rows(), w.cols()).t()).run(dx.elements(), threads);
    }
    if let Some(dd) = call.wanted(1) {
        Gemm::new(x.t(), dy).run(whole, threads);
        blocks.gradient(whole, dd.elements(), threads);
    }
    Ok(())
}
