//! Bone: sums of columns instead of a projection. A d with as many columns as y is the mini form with one tile.
use crate::{
    Call, Threads, ViewMut,
    extended::{by_rows, check, matrix, row, rows},
    gemm::{Gemm, Matrix},
    math::vectorised,
};
use graft_ir::Result;

/// `out[k] = Σ x[j]` over the columns j that agree with k modulo `n`, for each row.
fn fold(x: Matrix<'_>, elements: &[f32], n: usize, out: &mut [f32], threads: Threads) {
    by_rows(out, n, threads, |i, out| {
        vectorised(
            #[inline(always)]
            || {
                out.fill(0.0);
                for part in row(elements, i, x.cols()).chunks(n.max(1)) {
                    for (y, x) in out.iter_mut().zip(part) {
                        *y += x;
                    }
                }
            },
        );
    });
}

/// `y[j] += q[j modulo n]` for each row of `y`, of `width` elements.
fn repeat(q: &[f32], n: usize, y: &mut [f32], width: usize, threads: Threads) {
    by_rows(y, width, threads, |i, y| {
        vectorised(
            #[inline(always)]
            || {
                for part in y.chunks_mut(n.max(1)) {
                    for (y, q) in part.iter_mut().zip(row(q, i, n)) {
                        *y += q;
                    }
                }
            },
        );
    });
}

/// `y = x·w + repeat(fold(x)·d)`; either result may be unwanted.
pub(super) fn bone(call: &mut Call<'_>) -> Result<()> {
    let (given, w, d, threads) =
        (call.input(0)?, matrix(&call.input(1)?)?, matrix(&call.input(2)?)?, call.threads);
    let (x, tokens) = (rows(&given), rows(&given).rows());
    let (rank, width) = (d.rows(), d.cols());
    check(x.cols() == w.rows() && width > 0 && w.cols().is_multiple_of(width))?;
    let (spare, up) = call.scratch::<f32>().split_at_mut(tokens * rank);
    let s = call.wanted(1).map_or(spare, ViewMut::elements);
    fold(x, given.elements(), rank, s, threads);
    let Some(y) = call.wanted(0).map(ViewMut::elements::<f32>) else { return Ok(()) };
    let delta = Gemm::new(Matrix::row_major(s, tokens, rank), d);
    Gemm::new(x, w).run(y, threads);
    if width == w.cols() {
        delta.accumulated(1.0).run(y, threads);
    } else {
        let up = &mut up[..tokens * width];
        delta.run(up, threads);
        repeat(up, width, y, w.cols(), threads);
    }
    Ok(())
}

/// The gradients of [`bone`]; work that only an unwanted result needs is skipped.
pub(super) fn bone_grad(call: &mut Call<'_>) -> Result<()> {
    let (given, x) = (call.input(0)?, rows(&call.input(1)?));
    let (w, d, s) = (matrix(&call.input(2)?)?, matrix(&call.input(3)?)?, rows(&call.input(4)?));
    let (dy, threads) = (rows(&given), call.threads);
    let (tokens, rank, width) = (x.rows(), d.rows(), d.cols());
    check([x.cols(), dy.cols()] == [w.rows(), w.cols()] && width > 0 && w.cols().is_multiple_of(width))?;
    check(dy.rows() == tokens && [s.rows(), s.cols()] == [tokens, rank])?;
    let (ds, folded) = call.scratch::<f32>().split_at_mut(tokens * rank);
    let dup = if width == w.cols() {
        dy
    } else {
        let folded = &mut folded[..tokens * width];
        fold(dy, given.elements(), width, folded, threads);
        Matrix::row_major(folded, tokens, width)
    };
    let [dx, dd] = [0, 1].map(|i| call.wanted(i).map(|o| o.elements::<f32>()));
    if let Some(dd) = dd {
        Gemm::new(s.t(), dup).run(dd, threads);
    }
    if let Some(dx) = dx {
        Gemm::new(dup, d.t()).run(ds, threads);
        Gemm::new(dy, w.t()).run(dx, threads);
        repeat(ds, rank, dx, x.cols(), threads);
    }
    Ok(())
}
