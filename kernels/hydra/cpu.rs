//! HydraLoRA: projection and router in one product, and for each token the outer product of both in rank space.
use crate::{
    Call, View, ViewMut,
    extended::{Extended, by_rows, check, matrix, misfit, row, rows},
    gemm::Matrix,
    math,
};
use graft_ir::Result;

/// Sizes: heads, rank, and both together, which is the width of the projection.
#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    rank: usize,
    width: usize,
}

/// The heads one below the other, (heads·rank, out).
fn stacked<'a>(b: &View<'a>) -> Result<(Matrix<'a>, Sizes)> {
    let &[heads, rank, d_out] = b.dims else { return Err(misfit()) };
    let sizes = Sizes { heads, rank, width: rank + heads };
    Ok((Matrix::row_major(b.elements(), heads * rank, d_out), sizes))
}

/// `[a | router]`, so that x is read once.
fn joined<'s>(a: Matrix<'_>, router: Matrix<'_>, sizes: Sizes, out: &'s mut [f32]) -> Result<Matrix<'s>> {
    let Sizes { heads, rank, width } = sizes;
    check(a.rows() == router.rows() && a.cols() == rank && router.cols() == heads)?;
    for (i, row) in out.chunks_mut(width.max(1)).enumerate() {
        let elements = (0..rank).map(|j| a.at(i, j)).chain((0..heads).map(|j| router.at(i, j)));
        row.iter_mut().zip(elements).for_each(|(y, x)| *y = x);
    }
    Ok(Matrix::row_major(out, a.rows(), width))
}

/// The adapted linear; any result may be unwanted.
pub(super) fn hydra(call: &mut Call<'_>) -> Result<()> {
    let (x, w, b) = (rows(&call.input(0)?), matrix(&call.input(1)?)?, call.input(3)?);
    let (a, router) = (matrix(&call.input(2)?)?, matrix(&call.input(4)?)?);
    let ((b, sizes), threads) = (stacked(&b)?, call.threads);
    let Sizes { heads, rank, width } = sizes;
    let (projection, rest) = call.scratch::<f32>().split_at_mut(x.rows() * width);
    let (z, rest) = rest.split_at_mut(x.rows() * heads * rank);
    let a = joined(a, router, sizes, &mut rest[..x.cols() * width])?;
    let linear = Extended::new([x, w, a, b], call.scalar(5)?, threads)?;
    linear.project(projection);
    by_rows(projection, width, threads, |_, row| softmax(&mut row[rank..]));
    let projection: &[f32] = projection;
    for (result, columns) in [(1, 0..rank), (2, rank..width)] {
        let Some(out) = call.wanted(result).map(ViewMut::elements::<f32>) else { continue };
        by_rows(out, columns.len(), threads, |i, out| {
            out.copy_from_slice(&row(projection, i, width)[columns.clone()]);
        });
    }
    if let Some(y) = call.wanted(0) {
        by_rows(z, heads * rank, threads, |i, z| {
            let (h, p) = row(projection, i, width).split_at(rank);
            outer(z, h, p);
        });
        linear.forward(z, y.elements());
    }
    Ok(())
}

fn softmax(row: &mut [f32]) {
    let largest = math::max(row);
    row.iter_mut().for_each(|x| *x = math::exp(*x - largest));
    let total = math::sum(row);
    row.iter_mut().for_each(|x| *x = (f64::from(*x) / total) as f32);
}

/// `z = p ⊗ h`: h times the probability of each head.
fn outer(z: &mut [f32], h: &[f32], p: &[f32]) {
    for (z, p) in z.chunks_mut(h.len().max(1)).zip(p) {
        z.iter_mut().zip(h).for_each(|(z, h)| *z = p * h);
    }
}

/// The gradients of [`hydra`]; work that only unwanted results need is skipped.
pub(super) fn hydra_grad(call: &mut Call<'_>) -> Result<()> {
    let (dy, x, w) = (rows(&call.input(0)?), rows(&call.input(1)?), matrix(&call.input(2)?)?);
    let (a, b, router) = (matrix(&call.input(3)?)?, call.input(4)?, matrix(&call.input(5)?)?);
    let [h, p] = [call.input(7)?, call.input(8)?].map(|v| v.elements::<f32>());
    let ((b, sizes), threads) = (stacked(&b)?, call.threads);
    let Sizes { heads, rank, width } = sizes;
    check(dy.rows() == x.rows() && dy.cols() == w.cols())?;
    check(h.len() == x.rows() * rank && p.len() == x.rows() * heads)?;
    let (projection, rest) = call.scratch::<f32>().split_at_mut(x.rows() * width);
    let (z, rest) = rest.split_at_mut(x.rows() * heads * rank);
    let (joint, djoint) = rest[..2 * x.cols() * width].split_at_mut(x.cols() * width);
    let [dx, da, db, drouter] = [0, 1, 2, 3].map(|i| call.wanted(i).map(|o| o.elements::<f32>()));
    let linear = Extended::new([x, w, joined(a, router, sizes, joint)?, b], call.scalar(6)?, threads)?;
    if let Some(db) = db {
        by_rows(z, heads * rank, threads, |i, z| outer(z, row(h, i, rank), row(p, i, heads)));
        linear.db(z, dy, db);
    }
    if dx.is_none() && da.is_none() && drouter.is_none() {
        return Ok(());
    }
    linear.dq(dy, z);
    let dz: &[f32] = z;
    by_rows(projection, width, threads, |i, d| {
        inner(d, row(h, i, rank), row(p, i, heads), row(dz, i, heads * rank));
    });
    if let Some(dx) = dx {
        linear.dx(dy, projection, dx);
    }
    if da.is_some() || drouter.is_some() {
        linear.da(projection, djoint);
        let djoint: &[f32] = djoint;
        for (out, columns) in [(da, 0..rank), (drouter, rank..width)] {
            by_rows(out.unwrap_or_default(), columns.len(), threads, |i, out| {
                out.copy_from_slice(&row(djoint, i, width)[columns.clone()]);
            });
        }
    }
    Ok(())
}

/// The gradient `d = [dh | dl]` of one token's projection and logits for that of `z = p ⊗ h`.
fn inner(d: &mut [f32], h: &[f32], p: &[f32], dz: &[f32]) {
    let (dh, dl) = d.split_at_mut(h.len());
    dh.fill(0.0);
    for ((dl, p), dz) in dl.iter_mut().zip(p).zip(dz.chunks(h.len().max(1))) {
        dh.iter_mut().zip(dz).for_each(|(dh, dz)| *dh += p * dz);
        *dl = dz.iter().zip(h).map(|(dz, h)| dz * h).sum();
    }
    let mean: f32 = dl.iter().zip(p).map(|(dp, p)| dp * p).sum();
    dl.iter_mut().zip(p).for_each(|(dl, p)| *dl = p * (*dl - mean));
}
