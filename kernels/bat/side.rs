//! Bat by rows of blocks, which acts on x, and from the left, which acts on y: products with block-diagonal matrices
//! beside the linear.
use super::Square;
use crate::{
    Call, Threads, View,
    extended::{by_rows, check, fold, matrix, misfit, repeat, row, rows},
    gemm::{Gemm, Matrix},
    math::vectorised,
};
use graft_ir::Result;

/// The square matrices of `d` (blocks, rank, rank), for activations of `blocks · rank` columns.
#[derive(Clone, Copy)]
struct Diagonal<'a> {
    d: &'a [f32],
    rank: usize,
    width: usize,
}

impl<'a> Diagonal<'a> {
    fn new(view: &View<'a>, width: usize) -> Result<Diagonal<'a>> {
        let &[blocks, rank, columns] = view.dims else { return Err(misfit()) };
        check(rank > 0 && rank == columns && blocks * rank == width)?;
        Ok(Diagonal { d: view.elements(), rank, width })
    }
    /// The transpose of each matrix, in `memory`.
    fn turned<'m>(&self, memory: &'m mut [f32]) -> Diagonal<'m> {
        let n = self.rank;
        let memory = &mut memory[..self.d.len()];
        for (to, from) in memory.chunks_mut(n * n).zip(self.d.chunks(n * n)) {
            (0..n * n).for_each(|k| to[k % n * n + k / n] = from[k]);
        }
        Diagonal { d: memory, ..*self }
    }
    /// `out_b += v_b·d_b` for each block b of one row.
    fn add(&self, out: &mut [f32], v: &[f32]) {
        let n = self.rank;
        vectorised(
            #[inline(always)]
            || {
                for ((out, v), d) in out.chunks_mut(n).zip(v.chunks(n)).zip(self.d.chunks(n * n)) {
                    Square { m: d, n, stride: n }.accumulate(
                        out,
                        n,
                        1,
                        #[inline(always)]
                        |_, k| v[k],
                    );
                }
            },
        );
    }
    /// `dd_b = u_bᵀ·v_b`, the sum over tokens.
    fn gradient(&self, [u, v]: [Strided<'_>; 2], tokens: usize, dd: &mut [f32], threads: Threads) {
        let n = self.rank;
        if tokens == 0 {
            return dd.fill(0.0);
        }
        threads.pieces(dd, n * n, |start, dd| {
            let [u, v] = [u, v].map(|side| side.block(start / (n * n), [tokens, n]));
            Gemm::new(u.t(), v).run(dd, Threads::ONE);
        });
    }
}

/// Activations in blocks: how far apart blocks, and rows within a block, begin.
#[derive(Clone, Copy)]
struct Strided<'a> {
    data: &'a [f32],
    offset: usize,
    stride: usize,
}

impl<'a> Strided<'a> {
    fn block(&self, b: usize, sizes: [usize; 2]) -> Matrix<'a> {
        Matrix::new(&self.data[b * self.offset..], sizes, [self.stride, 1])
    }
}

/// `y = (x + u)·w + repeat(Σ u_b)` with `u_b = x_b·d_bᵀ`.
pub(super) fn row_forward(call: &mut Call<'_>) -> Result<()> {
    let (given, w, threads) = (call.input(0)?, matrix(&call.input(1)?)?, call.threads);
    let (x, elements) = (rows(&given), given.elements::<f32>());
    let d = Diagonal::new(&call.input(2)?, x.cols())?;
    check(x.cols() == w.rows() && w.cols().is_multiple_of(d.rank))?;
    let (u, rest) = call.scratch::<f32>().split_at_mut(elements.len());
    let (moved, rest) = rest.split_at_mut(elements.len());
    let turned = d.turned(rest);
    by_rows(u, d.width, threads, |i, u| {
        u.fill(0.0);
        turned.add(u, row(elements, i, d.width));
    });
    let y = call.output(0)?.elements::<f32>();
    by_rows(moved, d.width, threads, |i, moved| {
        let sums = row(elements, i, d.width).iter().zip(row(u, i, d.width));
        moved.iter_mut().zip(sums).for_each(|(y, (x, u))| *y = x + u);
    });
    Gemm::new(Matrix::row_major(moved, x.rows(), d.width), w).run(y, threads);
    let total = &mut moved[..x.rows() * d.rank];
    fold(u, d.width, d.rank, total, threads);
    repeat(total, d.rank, y, w.cols(), threads);
    Ok(())
}

/// With `p = dy·wᵀ` and `q_b = p_b + fold(dy)`: `dd_b = q_bᵀ·x_b`, `dx_b = p_b + q_b·d_b`.
pub(super) fn row_gradient(call: &mut Call<'_>) -> Result<()> {
    let (dy_view, x_view, w, threads) =
        (call.input(0)?, call.input(1)?, matrix(&call.input(2)?)?, call.threads);
    let (dy, x) = (rows(&dy_view), rows(&x_view));
    let d = Diagonal::new(&call.input(3)?, x.cols())?;
    check([x.cols(), dy.cols()] == [w.rows(), w.cols()] && w.cols().is_multiple_of(d.rank))?;
    check(dy.rows() == x.rows())?;
    let (p, rest) = call.scratch::<f32>().split_at_mut(x_view.len());
    let (q, rest) = rest.split_at_mut(x_view.len());
    let folded = &mut rest[..x.rows() * d.rank];
    Gemm::new(dy, w.t()).run(p, threads);
    fold(dy_view.elements(), w.cols(), d.rank, folded, threads);
    q.copy_from_slice(p);
    repeat(folded, d.rank, q, d.width, threads);
    let (p, q): (&[f32], &[f32]) = (p, q);
    if let Some(dd) = call.wanted(1) {
        let both = [q, x_view.elements()].map(|data| Strided { data, offset: d.rank, stride: d.width });
        d.gradient(both, x.rows(), dd.elements(), threads);
    }
    if let Some(dx) = call.wanted(0) {
        by_rows(dx.elements(), d.width, threads, |i, dx| {
            dx.copy_from_slice(row(p, i, d.width));
            d.add(dx, row(q, i, d.width));
        });
    }
    Ok(())
}

/// With `u_a = (x·w)_a + fold(x)`: `y_a = (x·w)_a + u_a·d_a`; u lies block after block.
pub(super) fn left_forward(call: &mut Call<'_>) -> Result<()> {
    let (given, w, threads) = (call.input(0)?, matrix(&call.input(1)?)?, call.threads);
    let x = rows(&given);
    let (d, tokens) = (Diagonal::new(&call.input(2)?, w.cols())?, x.rows());
    check(x.cols() == w.rows() && x.cols().is_multiple_of(d.rank))?;
    let (u, rest) = call.scratch::<f32>().split_at_mut(tokens * d.width);
    let s = &mut rest[..tokens * d.rank];
    Gemm::new(x, w).run(u, threads);
    fold(given.elements(), x.cols(), d.rank, s, threads);
    let mut y = call.wanted(0).map(|y| y.elements::<f32>());
    if let Some(y) = &mut y {
        y.copy_from_slice(u);
    }
    repeat(s, d.rank, u, d.width, threads);
    let u: &[f32] = u;
    if let Some(y) = y {
        by_rows(y, d.width, threads, |i, y| d.add(y, row(u, i, d.width)));
    }
    if let Some(out) = call.wanted(1) {
        by_rows(out.elements(), d.rank, threads, |i, out| {
            let (a, token) = (i / tokens, i % tokens);
            out.copy_from_slice(&row(u, token, d.width)[a * d.rank..][..d.rank]);
        });
    }
    Ok(())
}

/// With `e_a = dy_a·d_aᵀ`: `dd_a = u_aᵀ·dy_a`, `dx = (dy + e)·wᵀ + repeat(Σ e_a)`.
pub(super) fn left_gradient(call: &mut Call<'_>) -> Result<()> {
    let (dy_view, x) = (call.input(0)?, rows(&call.input(1)?));
    let (w, u, threads) = (matrix(&call.input(2)?)?, call.input(4)?, call.threads);
    let (dy, elements) = (rows(&dy_view), dy_view.elements::<f32>());
    let (d, tokens) = (Diagonal::new(&call.input(3)?, dy.cols())?, x.rows());
    check([x.cols(), dy.cols()] == [w.rows(), w.cols()] && x.cols().is_multiple_of(d.rank))?;
    check(dy.rows() == tokens && u.len() == elements.len())?;
    if let Some(dd) = call.wanted(1) {
        let u = Strided { data: u.elements(), offset: tokens * d.rank, stride: d.rank };
        let dy = Strided { data: elements, offset: d.rank, stride: d.width };
        d.gradient([u, dy], tokens, dd.elements(), threads);
    }
    let Some(dx) = call.wanted(0).map(|dx| dx.elements::<f32>()) else { return Ok(()) };
    let (e, rest) = call.scratch::<f32>().split_at_mut(elements.len());
    let (both, rest) = rest.split_at_mut(elements.len());
    let (total, rest) = rest.split_at_mut(tokens * d.rank);
    let turned = d.turned(rest);
    by_rows(e, d.width, threads, |i, e| {
        e.fill(0.0);
        turned.add(e, row(elements, i, d.width));
    });
    by_rows(both, d.width, threads, |i, both| {
        let sums = row(elements, i, d.width).iter().zip(row(e, i, d.width));
        both.iter_mut().zip(sums).for_each(|(y, (dy, e))| *y = dy + e);
    });
    Gemm::new(Matrix::row_major(both, tokens, d.width), w.t()).run(dx, threads);
    fold(e, d.width, d.rank, total, threads);
    repeat(total, d.rank, dx, x.cols(), threads);
    Ok(())
}
