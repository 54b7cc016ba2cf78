//! The rotation by rows: one pass over each row and its angles, in `f64` since its terms may cancel.
use crate::{Call, View, math::vectorised, threads::rows_per_piece};
use graft_ir::Result;

/// `y = [a·cos − b·sin | b·cos + a·sin]` for each row `[a | b]`, each half with its own angles.
pub(super) fn rotary(call: &mut Call<'_>) -> Result<()> {
    turn(call, [0, 1, 2], |[a, b], [cos_a, cos_b], [sin_a, sin_b]| {
        [a * cos_a - b * sin_a, b * cos_b + a * sin_b]
    })
}

/// `dx = [a·cos + b·sin | b·cos − a·sin]` for each row `[a | b]` of `dy`, each sine that which the element met.
pub(super) fn rotary_grad(call: &mut Call<'_>) -> Result<()> {
    turn(call, [0, 2, 3], |[a, b], [cos_a, cos_b], [sin_a, sin_b]| {
        [a * cos_a + b * sin_b, b * cos_b - a * sin_a]
    })
}

/// Applies `pair` to the two elements of each pair, their cosines and their sines.
fn turn(
    call: &mut Call<'_>,
    [x, cos, sin]: [usize; 3],
    pair: impl Fn([f64; 2], [f64; 2], [f64; 2]) -> [f64; 2] + Sync + Copy,
) -> Result<()> {
    let [x, cos, sin] = [call.input(x)?, call.input(cos)?, call.input(sin)?];
    let out = call.output(0)?.elements::<f32>();
    let len = x.dims.last().copied().unwrap_or(0);
    if len == 0 {
        return Ok(());
    }
    let rows = Rows::new(&x, &cos);
    let (x, cos, sin) = (x.elements::<f32>(), cos.elements::<f32>(), sin.elements::<f32>());
    call.threads.pieces(out, rows_per_piece(len) * len, |start, piece| {
        vectorised(
            #[inline(always)]
            || {
                for (i, row) in piece.chunks_mut(len).enumerate() {
                    let (from, angle) = rows.places(start / len + i);
                    let angles = [&cos[angle..angle + len], &sin[angle..angle + len]];
                    turn_row(row, &x[from..], rows.step, angles, pair);
                }
            },
        );
    });
    Ok(())
}

#[inline(always)]
fn turn_row(
    row: &mut [f32],
    x: &[f32],
    step: usize,
    [cos, sin]: [&[f32]; 2],
    pair: impl Fn([f64; 2], [f64; 2], [f64; 2]) -> [f64; 2],
) {
    let half = row.len() / 2;
    let (first, second) = row.split_at_mut(half);
    let ((cos_a, cos_b), (sin_a, sin_b)) = (cos.split_at(half), sin.split_at(half));
    for j in 0..half {
        let wide = |pair: [f32; 2]| pair.map(f64::from);
        let elements = wide([x[j * step], x[(half + j) * step]]);
        let turned = pair(elements, wide([cos_a[j], cos_b[j]]), wide([sin_a[j], sin_b[j]]));
        [first[j], second[j]] = turned.map(|y| y as f32);
    }
}

/// Where the rows of a strided tensor begin, and those of angles that are repeated along some axes.
struct Rows {
    /// Size, stride and stride of the angles for each axis but the last, innermost first.
    axes: Vec<(usize, usize, usize)>,
    /// The stride of the last axis.
    step: usize,
}

impl Rows {
    fn new(x: &View<'_>, angles: &View<'_>) -> Rows {
        let missing = x.dims.len() - angles.dims.len();
        let stride = |axis: usize| match axis.checked_sub(missing) {
            Some(own) if angles.dims[own] != 1 => angles.strides[own],
            _ => 0,
        };
        let outer = (0..x.dims.len() - 1).rev();
        let axes = outer.map(|axis| (x.dims[axis], x.strides[axis], stride(axis))).collect();
        Rows { axes, step: x.strides[x.dims.len() - 1] }
    }
    /// The first element of row `index` of the tensor, and of its angles.
    fn places(&self, mut index: usize) -> (usize, usize) {
        let (mut from, mut angle) = (0, 0);
        for &(size, stride, angles) in &self.axes {
            let at = index % size;
            index /= size;
            from += at * stride;
            angle += at * angles;
        }
        (from, angle)
    }
}
