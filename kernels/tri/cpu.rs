//! TriAdaptLoRA: a product with the middle matrix in rank space.
use crate::{
    Call,
    extended::{Extended, check, matrix, rows},
    gemm::{Gemm, Matrix},
};
use graft_ir::Result;

/// `c = tril(l) + triu(u)`, row-major, from operands `l` and the next.
fn middle(call: &Call<'_>, l: usize, rank: usize, c: &mut [f32]) -> Result<()> {
    let (l, u) = (call.input(l)?, call.input(l + 1)?);
    check(l.dims == [rank; 2] && u.dims == [rank; 2])?;
    let both = l.elements::<f32>().iter().zip(u.elements::<f32>());
    for (index, (c, (&l, &u))) in c.iter_mut().zip(both).enumerate() {
        let (i, j) = (index / rank, index % rank);
        *c = if j <= i { l } else { 0.0 } + if j >= i { u } else { 0.0 };
    }
    Ok(())
}

/// `h = x·a; q = h·cᵀ; y = x·w + scale·(q·b)`; any result may be unwanted.
pub(super) fn tri(call: &mut Call<'_>) -> Result<()> {
    let (x, w) = (rows(&call.input(0)?), matrix(&call.input(1)?)?);
    let (a, b) = (matrix(&call.input(2)?)?, matrix(&call.input(3)?)?);
    let linear = Extended::new([x, w, a, b], call.scalar(6)?, call.threads)?;
    let (rank, n) = (a.cols(), x.rows() * a.cols());
    check(b.rows() == rank)?;
    let (spare, rest) = call.scratch::<f32>().split_at_mut(rank * rank);
    middle(call, 4, rank, spare)?;
    let (spare_h, spare_q) = rest.split_at_mut(n);
    let h = call.wanted(1).map_or(spare_h, |h| h.elements());
    let q = call.wanted(2).map_or(&mut spare_q[..n], |q| q.elements());
    linear.project(h);
    let c = Matrix::row_major(spare, rank, rank);
    Gemm::new(Matrix::row_major(h, x.rows(), rank), c.t()).run(q, call.threads);
    if let Some(y) = call.wanted(0) {
        linear.forward(q, y.elements());
    }
    Ok(())
}

/// The gradients of [`tri`]; work that only unwanted results need is skipped.
pub(super) fn tri_grad(call: &mut Call<'_>) -> Result<()> {
    let (dy, x, w) = (rows(&call.input(0)?), rows(&call.input(1)?), matrix(&call.input(2)?)?);
    let (a, b) = (matrix(&call.input(3)?)?, matrix(&call.input(4)?)?);
    let (h, q, threads) = (rows(&call.input(8)?), call.input(9)?, call.threads);
    let linear = Extended::new([x, w, a, b], call.scalar(7)?, threads)?;
    let (rank, n) = (a.cols(), x.rows() * a.cols());
    check(b.rows() == rank && dy.cols() == w.cols() && [dy.rows(), h.rows()] == [x.rows(); 2])?;
    check(h.cols() == rank && q.len() == n)?;
    let [dx, da, db, dl, du] = [0, 1, 2, 3, 4].map(|i| call.wanted(i).map(|o| o.elements::<f32>()));
    if let Some(db) = db {
        linear.db(q.elements(), dy, db);
    }
    if [&dx, &da, &dl, &du].iter().all(|d| d.is_none()) {
        return Ok(());
    }
    let (c, rest) = call.scratch::<f32>().split_at_mut(rank * rank);
    let (dq, dh) = rest.split_at_mut(n);
    linear.dq(dy, dq);
    let dq = Matrix::row_major(dq, x.rows(), rank);
    if dx.is_some() || da.is_some() {
        middle(call, 5, rank, c)?;
        Gemm::new(dq, Matrix::row_major(c, rank, rank)).run(&mut dh[..n], threads);
    }
    if let Some(da) = da {
        linear.da(&dh[..n], da);
    }
    if let Some(dx) = dx {
        linear.dx(dy, &dh[..n], dx);
    }
    if dl.is_some() || du.is_some() {
        Gemm::new(dq.t(), h).run(c, threads);
        triangle(dl, c, rank, |i, j| j <= i);
        triangle(du, c, rank, |i, j| j >= i);
    }
    Ok(())
}

/// The elements of `c` where `keeps(row, column)`, and 0 elsewhere.
fn triangle(out: Option<&mut [f32]>, c: &[f32], rank: usize, keeps: fn(usize, usize) -> bool) {
    let elements = out.into_iter().flatten().zip(c).enumerate();
    elements.for_each(|(k, (y, &c))| *y = if keeps(k / rank, k % rank) { c } else { 0.0 });
}
