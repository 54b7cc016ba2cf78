//! The norm by rows; the mean square is accumulated in `f64`.
use crate::{
    Call,
    math::{self, vectorised},
    threads::{optional_pieces, rows_per_piece},
};
use graft_ir::Result;

/// Columns that one piece of a sum over rows covers.
const COLUMNS: usize = 128;

/// `y = x · inv_rms · scale` by rows, `inv_rms = 1 / √(mean of x² + epsilon)`.
pub(super) fn rms_norm(call: &mut Call<'_>) -> Result<()> {
    // The default is that of the function.
    let epsilon = f64::from(call.node.float("epsilon")?.unwrap_or(1e-6));
    let scale = call.input(1)?.elements::<f32>();
    let out = call.seeded(0, 0)?;
    let inv_rms = call.wanted(1).map(|o| o.elements::<f32>());
    let len = scale.len();
    if len == 0 {
        // Rows of nothing have no mean.
        inv_rms.into_iter().for_each(|o| o.fill(f32::NAN));
        return Ok(());
    }
    let rows = rows_per_piece(len);
    let pieces = out.chunks_mut(rows * len).zip(optional_pieces(inv_rms, rows));
    call.threads.each(pieces, |(piece, mut inv_rms)| {
        for (i, row) in piece.chunks_mut(len).enumerate() {
            let inverse = vectorised(
                #[inline(always)]
                || normalise(row, scale, epsilon),
            );
            inv_rms.as_mut().map(|o| o[i] = inverse as f32).unwrap_or_default();
        }
    });
    Ok(())
}

#[inline(always)]
fn normalise(row: &mut [f32], scale: &[f32], epsilon: f64) -> f64 {
    let square = math::sum_of(row, |x| x * x) / row.len() as f64;
    let inverse = 1.0 / (square + epsilon).sqrt();
    row.iter_mut().zip(scale).for_each(|(x, &s)| *x = (f64::from(*x) * inverse * f64::from(s)) as f32);
    inverse
}

/// With `g = dy · scale` and `u = x · inv_rms`: `dx = inv_rms · (g − u · mean(g · u))` by rows, and
/// `dscale = Σ dy · u` over all rows.
pub(super) fn rms_norm_grad(call: &mut Call<'_>) -> Result<()> {
    let [x, scale, inv_rms] = [call.input(1)?, call.input(2)?, call.input(3)?].map(|v| v.elements::<f32>());
    let len = scale.len();
    let given = call.get(0).map(|dy| dy.elements::<f32>());
    let dx = call.wanted(0).map(|o| o.elements::<f32>());
    let dscale = call.wanted(1).map(|o| o.elements::<f32>());
    // Where `dy` lies in the memory of `dx`, the sums must read it first.
    if let (Some(dy), Some(dscale)) = (given.or(dx.as_deref()), dscale) {
        call.threads.pieces(dscale, COLUMNS, |from, sums| {
            vectorised(
                #[inline(always)]
                || sum_columns(sums, from, (dy, x, inv_rms), len),
            );
        });
    }
    let Some(dx) = dx else { return Ok(()) };
    if let Some(dy) = given {
        dx.copy_from_slice(dy);
    }
    call.threads.pieces(dx, rows_per_piece(len) * len, |start, piece| {
        for (i, g) in piece.chunks_mut(len).enumerate() {
            let at = start + i * len;
            vectorised(
                #[inline(always)]
                || grad_row(g, &x[at..at + len], scale, f64::from(inv_rms[at / len])),
            );
        }
    });
    Ok(())
}

#[inline(always)]
fn grad_row(g: &mut [f32], x: &[f32], scale: &[f32], inverse: f64) {
    let along = math::sum_of3(g, scale, x, |d, s, x| d * s * x) * inverse / x.len() as f64;
    for ((d, &s), &x) in g.iter_mut().zip(scale).zip(x) {
        let g = f64::from(*d) * f64::from(s);
        *d = (inverse * (g - f64::from(x) * inverse * along)) as f32;
    }
}

/// `sums = Σ dy · x · inv_rms` over all rows of `len`, for the columns from `from` on.
#[inline(always)]
fn sum_columns(sums: &mut [f32], from: usize, (dy, x, inv_rms): (&[f32], &[f32], &[f32]), len: usize) {
    let mut wide = [0.0f64; COLUMNS];
    for (row, &inverse) in inv_rms.iter().enumerate() {
        let at = row * len + from;
        let (dy, x) = (&dy[at..at + sums.len()], &x[at..at + sums.len()]);
        for ((sum, &d), &x) in wide.iter_mut().zip(dy).zip(x) {
            *sum += f64::from(d) * f64::from(x) * f64::from(inverse);
        }
    }
    sums.iter_mut().zip(&wide).for_each(|(out, &sum)| *out = sum as f32);
}
