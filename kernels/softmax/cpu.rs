//! Softmax over rows, or over an axis with others inside of it.
use crate::{
    Call, axis,
    math::{self, vectorised},
    threads::rows_per_piece,
};
use graft_ir::Result;

/// How a tensor splits around the axis: `outer × len × inner`, of which the last two make a block.
struct Split {
    len: usize,
    inner: usize,
}

fn split(call: &Call<'_>, dims: &[usize], coerced: bool) -> Result<Split> {
    // Before opset 13 all axes from `axis` on are one.
    let at = call.node.int("axis")?.unwrap_or(if coerced { 1 } else { -1 });
    let at = axis(at, dims.len())?.min(dims.len());
    if dims.is_empty() {
        return Ok(Split { len: 1, inner: 1 });
    }
    let inner: usize = dims[at + 1..].iter().product();
    Ok(if coerced { Split { len: dims[at] * inner, inner: 1 } } else { Split { len: dims[at], inner } })
}

/// `e^x / Σ e^x` along the axis, or its logarithm.
pub(super) fn softmax(call: &mut Call<'_>, log: bool) -> Result<()> {
    let Split { len, inner } = split(call, call.output_dims(0), call.opset < 13)?;
    let out = call.seeded(0, 0)?;
    let block = len * inner;
    call.threads.pieces(out, rows_per_piece(block) * block, |_, piece| {
        if inner == 1 {
            vectorised(
                #[inline(always)]
                || {
                    for row in piece.chunks_mut(block) {
                        softmax_row(row, log);
                    }
                },
            );
        } else {
            let mut row = vec![0.0; len];
            for block in piece.chunks_mut(block) {
                for j in 0..inner {
                    row.iter_mut().enumerate().for_each(|(i, r)| *r = block[i * inner + j]);
                    softmax_row(&mut row, log);
                    row.iter().enumerate().for_each(|(i, r)| block[i * inner + j] = *r);
                }
            }
        }
    });
    Ok(())
}

#[inline(always)]
fn softmax_row(row: &mut [f32], log: bool) {
    let largest = math::max(row);
    if log {
        let total = math::sum_of(row, |x| f64::from(math::exp((x - f64::from(largest)) as f32)));
        let shift = f64::from(largest) + total.ln();
        return row.iter_mut().for_each(|x| *x = (f64::from(*x) - shift) as f32);
    }
    for x in row.iter_mut() {
        *x = math::exp(*x - largest);
    }
    let scale = 1.0 / math::sum(row);
    for x in row.iter_mut() {
        *x = (f64::from(*x) * scale) as f32;
    }
}

/// `dx = y · (dy − Σ dy · y)` along the axis.
pub(super) fn softmax_grad(call: &mut Call<'_>) -> Result<()> {
    let y = call.input(1)?;
    let Split { len, inner } = split(call, y.dims, false)?;
    let (y, out) = (y.elements::<f32>(), call.seeded(0, 0)?);
    let block = len * inner;
    call.threads.pieces(out, rows_per_piece(block) * block, |start, piece| {
        let ys = y[start..start + piece.len()].chunks(block.max(1));
        for (dx, y) in piece.chunks_mut(block).zip(ys) {
            if inner == 1 {
                vectorised(
                    #[inline(always)]
                    || softmax_grad_row(dx, y),
                );
            } else {
                softmax_grad_block(dx, y, len, inner);
            }
        }
    });
    Ok(())
}

#[inline(always)]
fn softmax_grad_row(dx: &mut [f32], y: &[f32]) {
    let dot = math::sum_of2(dx, y, |a, b| a * b);
    dx.iter_mut().zip(y).for_each(|(d, &y)| *d = (f64::from(y) * (f64::from(*d) - dot)) as f32);
}

fn softmax_grad_block(dx: &mut [f32], y: &[f32], len: usize, inner: usize) {
    for j in 0..inner {
        let at = |i: usize| i * inner + j;
        let dot: f64 = (0..len).map(|i| f64::from(dx[at(i)]) * f64::from(y[at(i)])).sum();
        for i in 0..len {
            dx[at(i)] = (f64::from(y[at(i)]) * (f64::from(dx[at(i)]) - dot)) as f32;
        }
    }
}
