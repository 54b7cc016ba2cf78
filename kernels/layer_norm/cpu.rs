//! Layer normalisation over rows; moments are accumulated in `f64`.
use crate::{
    Call, axis,
    math::{self, vectorised},
    threads::{optional_pieces, rows_per_piece},
};
use graft_ir::{Code, Error, Result};

/// Columns that one piece of a sum over rows covers.
const COLUMNS: usize = 128;

fn row_len(call: &Call<'_>, dims: &[usize]) -> Result<usize> {
    let at = axis(call.node.int("axis")?.unwrap_or(-1), dims.len())?;
    Ok(dims[at.min(dims.len())..].iter().product())
}

fn check(len: usize, given: &[f32], what: &str) -> Result<()> {
    let message = || format!("{what} has {} elements for rows of {len}", given.len());
    if given.len() == len { Ok(()) } else { Err(Error::new(Code::TYPES, message())) }
}

/// `y = (x − mean) · inv_std · scale + bias` by rows, `inv_std = 1 / √(variance + epsilon)`.
pub(super) fn layer_norm(call: &mut Call<'_>) -> Result<()> {
    let epsilon = f64::from(call.node.float("epsilon")?.unwrap_or(1e-5));
    let scale = call.input(1)?.elements::<f32>();
    let bias = call.get(2).map(|b| b.elements::<f32>());
    let len = row_len(call, call.output_dims(0))?;
    check(len, scale, "the scale")?;
    bias.map_or(Ok(()), |b| check(len, b, "the bias"))?;
    let out = call.seeded(0, 0)?;
    let rows = rows_per_piece(len);
    let [mut mean, mut inv_std] = [1, 2].map(|i| call.wanted(i).map(|o| o.elements::<f32>()));
    if len == 0 {
        // Rows of nothing have no moments.
        [&mut mean, &mut inv_std].into_iter().flatten().for_each(|o| o.fill(f32::NAN));
        return Ok(());
    }
    let means = optional_pieces(mean, rows).zip(optional_pieces(inv_std, rows));
    call.threads.each(out.chunks_mut(rows * len).zip(means), |(piece, (mut mean, mut inv_std))| {
        for (i, row) in piece.chunks_mut(len).enumerate() {
            let (m, s) = vectorised(
                #[inline(always)]
                || normalise(row, scale, bias, epsilon),
            );
            mean.as_mut().map(|o| o[i] = m as f32).unwrap_or_default();
            inv_std.as_mut().map(|o| o[i] = s as f32).unwrap_or_default();
        }
    });
    Ok(())
}

#[inline(always)]
fn normalise(row: &mut [f32], scale: &[f32], bias: Option<&[f32]>, epsilon: f64) -> (f64, f64) {
    let n = row.len() as f64;
    let mean = math::sum(row) / n;
    let variance = math::sum_of(row, |x| (x - mean) * (x - mean)) / n;
    let inv_std = 1.0 / (variance + epsilon).sqrt();
    let unit = |x: f32| (f64::from(x) - mean) * inv_std;
    match bias {
        Some(bias) => {
            let pairs = scale.iter().zip(bias);
            row.iter_mut()
                .zip(pairs)
                .for_each(|(x, (&s, &b))| *x = (unit(*x) * f64::from(s) + f64::from(b)) as f32);
        }
        None => row.iter_mut().zip(scale).for_each(|(x, &s)| *x = (unit(*x) * f64::from(s)) as f32),
    }
    (mean, inv_std)
}

/// With `g = dy · scale` and `u = (x − mean) · inv_std`: `dx = inv_std · (g − mean(g) − u · mean(g · u))` by rows,
/// `dscale = Σ dy · u` and `dbias = Σ dy` over all rows.
pub(super) fn layer_norm_grad(call: &mut Call<'_>) -> Result<()> {
    let (x, scale) = (call.input(1)?, call.input(2)?.elements::<f32>());
    let [mean, inv_std] = [call.input(4)?, call.input(5)?].map(|v| v.elements::<f32>());
    let len = row_len(call, x.dims)?;
    check(len, scale, "the scale")?;
    let x = x.elements::<f32>();
    let given = call.get(0).map(|dy| dy.elements::<f32>());
    let dx = call.wanted(0).map(|o| o.elements::<f32>());
    let [dscale, dbias] = [1, 2].map(|i| call.wanted(i).map(|o| o.elements::<f32>()));
    // Where `dy` lies in the memory of `dx`, the sums must read it first.
    if let Some(dy) = given.or(dx.as_deref()) {
        let rows = Rows { dy, x, mean, inv_std, len };
        rows.sum_columns(dscale, dbias, call);
    }
    let Some(dx) = dx else { return Ok(()) };
    if let Some(dy) = given {
        dx.copy_from_slice(dy);
    }
    let rows = rows_per_piece(len);
    call.threads.pieces(dx, rows * len, |start, piece| {
        for (i, g) in piece.chunks_mut(len).enumerate() {
            let at = start + i * len;
            let row = at / len;
            vectorised(
                #[inline(always)]
                || grad_row(g, &x[at..at + len], scale, mean[row], inv_std[row]),
            );
        }
    });
    Ok(())
}

#[inline(always)]
fn grad_row(g: &mut [f32], x: &[f32], scale: &[f32], mean: f32, inv_std: f32) {
    let (mean, inv_std, n) = (f64::from(mean), f64::from(inv_std), x.len() as f64);
    let unit = |x: f64| (x - mean) * inv_std;
    let mean_g = math::sum_of2(g, scale, |d, s| d * s) / n;
    let mean_gu = math::sum_of3(g, scale, x, |d, s, x| d * s * unit(x)) / n;
    for ((d, &s), &x) in g.iter_mut().zip(scale).zip(x) {
        let g = f64::from(*d) * f64::from(s);
        *d = (inv_std * (g - mean_g - unit(f64::from(x)) * mean_gu)) as f32;
    }
}

struct Rows<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    mean: &'a [f32],
    inv_std: &'a [f32],
    len: usize,
}

impl Rows<'_> {
    /// `dscale` and `dbias`: each piece owns some columns, so that no partial sums need to be joined.
    fn sum_columns(&self, dscale: Option<&mut [f32]>, dbias: Option<&mut [f32]>, call: &Call<'_>) {
        let pieces = self.len.div_ceil(COLUMNS);
        let both = optional_pieces(dscale, COLUMNS).zip(optional_pieces(dbias, COLUMNS));
        call.threads.each(both.take(pieces).enumerate(), |(i, (dscale, dbias))| {
            let from = i * COLUMNS;
            let sums = vectorised(
                #[inline(always)]
                || self.columns(from, COLUMNS.min(self.len - from)),
            );
            for (out, sum) in [dscale, dbias].into_iter().zip(&sums) {
                if let Some(out) = out {
                    out.iter_mut().zip(sum).for_each(|(o, &s)| *o = s as f32);
                }
            }
        });
    }
    #[inline(always)]
    fn columns(&self, from: usize, n: usize) -> [[f64; COLUMNS]; 2] {
        let mut sums = [[0.0f64; COLUMNS]; 2];
        let [scale_sum, bias_sum] = &mut sums;
        for (row, (&mean, &inv_std)) in self.mean.iter().zip(self.inv_std).enumerate() {
            let at = row * self.len + from;
            let (dy, x) = (&self.dy[at..at + n], &self.x[at..at + n]);
            let (mean, inv_std) = (f64::from(mean), f64::from(inv_std));
            for ((ds, db), (&d, &x)) in scale_sum.iter_mut().zip(bias_sum.iter_mut()).zip(dy.iter().zip(x)) {
                let d = f64::from(d);
                *ds += d * (f64::from(x) - mean) * inv_std;
                *db += d;
            }
        }
        sums
    }
}
