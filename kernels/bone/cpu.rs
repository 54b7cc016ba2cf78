//! Bone: sums of columns instead of a projection. A d with as many columns as y is the mini form with one tile.
use crate::{
    Call, ViewMut,
    extended::{check, fold, matrix, repeat, rows},
    gemm::{Gemm, Matrix},
};
use graft_ir::Result;

/// `y = x·w + repeat(fold(x)·d)`; either result may be unwanted.
pub(super) fn bone(call: &mut Call<'_>) -> Result<()> {
    let (given, w, d, threads) =
        (call.input(0)?, matrix(&call.input(1)?)?, matrix(&call.input(2)?)?, call.threads);
    let (x, tokens) = (rows(&given), rows(&given).rows());
    let (rank, width) = (d.rows(), d.cols());
    check(x.cols() == w.rows() && width > 0 && w.cols().is_multiple_of(width))?;
    let (spare, up) = call.scratch::<f32>().split_at_mut(tokens * rank);
    let s = call.wanted(1).map_or(spare, ViewMut::elements);
    fold(given.elements(), x.cols(), rank, s, threads);
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
        fold(given.elements(), dy.cols(), width, folded, threads);
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
