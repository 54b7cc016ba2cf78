//! DoRA: LoRA whose outputs are scaled to lengths of their own.
use super::BLOCK;
use crate::{
    Call, View, ViewMut,
    extended::{Extended, by_rows, check, matrix, row, rows},
    gemm::{Gemm, Matrix},
};
use graft_ir::Result;

/// The norms of the columns of `w + scale·a·b`; `block` holds [`BLOCK`] rows of it.
fn norms(linear: &Extended<'_>, block: &mut [f32], n: &mut [f32]) {
    let (d_in, d_out) = (linear.w.rows(), linear.w.cols());
    let mut squares = vec![0.0f64; d_out];
    for start in (0..d_in).step_by(BLOCK) {
        let range = start..(start + BLOCK).min(d_in);
        let block = &mut block[..range.len() * d_out];
        linear.w.copy_rows(range.clone(), block);
        let change = Gemm::new(linear.a.row_range(range), linear.b).scaled(linear.scale);
        change.accumulated(1.0).run(block, linear.threads);
        for row in block.chunks(d_out.max(1)) {
            squares.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v) * f64::from(v));
        }
    }
    n.iter_mut().zip(squares).for_each(|(n, sum)| *n = sum.sqrt() as f32);
}

/// `out = values∘(m/n)` for each row.
fn stretched(out: &mut [f32], values: &[f32], m: &[f32], n: &[f32]) {
    let lengths = m.iter().zip(n).map(|(m, n)| m / n);
    out.iter_mut().zip(values).zip(lengths).for_each(|((y, v), length)| *y = v * length);
}

/// The adapted linear; any result may be unwanted.
pub(super) fn dora(call: &mut Call<'_>) -> Result<()> {
    let (x, w) = (rows(&call.input(0)?), matrix(&call.input(1)?)?);
    let (a, b, m) = (matrix(&call.input(2)?)?, matrix(&call.input(3)?)?, call.input(4)?);
    let linear = Extended::new([x, w, a, b], call.scalar(5)?, call.threads)?;
    let (tokens, d_out) = (x.rows(), w.cols());
    check(a.cols() == b.rows() && m.len() == d_out)?;
    let (spare_h, rest) = call.scratch::<f32>().split_at_mut(tokens * a.cols());
    let (spare_sum, block) = rest.split_at_mut(tokens * d_out);
    let mut spare_n = vec![0.0; d_out];
    let [h, sum, n] = [(1, spare_h), (2, spare_sum), (3, &mut spare_n[..])]
        .map(|(i, spare)| call.wanted(i).map_or(spare, ViewMut::elements));
    linear.project(h);
    linear.forward(h, sum);
    norms(&linear, block, n);
    if let Some(y) = call.wanted(0) {
        let m = m.elements::<f32>();
        by_rows(y.elements(), d_out, call.threads, |i, y| stretched(y, row(sum, i, d_out), m, n));
    }
    Ok(())
}

/// The gradients of [`dora`]; work that only unwanted results need is skipped.
pub(super) fn dora_grad(call: &mut Call<'_>) -> Result<()> {
    let (dy, x, w) = (rows(&call.input(0)?), rows(&call.input(1)?), matrix(&call.input(2)?)?);
    let (a, b) = (matrix(&call.input(3)?)?, matrix(&call.input(4)?)?);
    let [dy_rows, m, h, sum, n] = [0, 5, 7, 8, 9].map(|i| call.input(i));
    let [dy_rows, m, h, sum, n] = [dy_rows?, m?, h?, sum?, n?].map(|v: View<'_>| v.elements::<f32>());
    let linear = Extended::new([x, w, a, b], call.scalar(6)?, call.threads)?;
    let (tokens, rank, d_out) = (x.rows(), a.cols(), w.cols());
    check(b.rows() == rank && [dy.rows(), dy.cols()] == [tokens, d_out] && h.len() == tokens * rank)?;
    check(sum.len() == tokens * d_out && [m.len(), n.len()] == [d_out; 2])?;
    let [dx, da, db, dm] = [0, 1, 2, 3].map(|i| call.wanted(i).map(|o| o.elements::<f32>()));
    if let Some(dm) = dm {
        // Each sum runs over the tokens in their order, whoever computes it.
        call.threads.pieces(dm, BLOCK, |start, piece| length_gradient(piece, start, [dy_rows, sum, n]));
    }
    let (dh, rest) = call.scratch::<f32>().split_at_mut(tokens * rank);
    let dsum = &mut rest[..tokens * d_out];
    by_rows(dsum, d_out, call.threads, |i, dsum| stretched(dsum, row(dy_rows, i, d_out), m, n));
    let dsum = Matrix::row_major(dsum, tokens, d_out);
    if let Some(db) = db {
        linear.db(h, dsum, db);
    }
    if dx.is_some() || da.is_some() {
        linear.dq(dsum, dh);
    }
    if let Some(da) = da {
        linear.da(dh, da);
    }
    if let Some(dx) = dx {
        linear.dx(dsum, dh, dx);
    }
    Ok(())
}

/// `dm = Σ dy∘sum / n` for the outputs from `start` on.
fn length_gradient(dm: &mut [f32], start: usize, [dy, sum, n]: [&[f32]; 3]) {
    let (range, d_out) = (start..start + dm.len(), n.len());
    let mut totals = vec![0.0f64; dm.len()];
    for (dy, sum) in dy.chunks(d_out).zip(sum.chunks(d_out)) {
        let shares = dy[range.clone()].iter().zip(&sum[range.clone()]);
        totals
            .iter_mut()
            .zip(shares)
            .for_each(|(total, (&dy, &sum))| *total += f64::from(dy) * f64::from(sum));
    }
    let quotients = totals.iter().zip(&n[range]).map(|(total, &n)| (total / f64::from(n)) as f32);
    dm.iter_mut().zip(quotients).for_each(|(dm, quotient)| *dm = quotient);
}
