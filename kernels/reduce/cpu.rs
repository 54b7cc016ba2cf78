//! Reductions of strided tensors, accumulated in `f64` in an order that depends on sizes alone.
use crate::{Call, View, axis, math::vectorised, strides::Walk, threads::PIECE};
use graft_ir::{Code, Error, Result};

/// What is made of the elements that fall together.
#[derive(Clone, Copy)]
pub(crate) enum Reduction {
    L2,
    Max,
    Mean,
    Min,
    Sum,
    SumSquare,
}

/// Adjacent results that are accumulated side by side.
const COLUMNS: usize = 128;

/// Reduces over the axes that an operand or attribute lists; over all where none is given.
pub(super) fn reduce(call: &mut Call<'_>, kind: Reduction) -> Result<()> {
    let x = call.input(0)?;
    let axes = call.ints_at(1, "axes")?.unwrap_or_default();
    let keep_all = axes.is_empty() && call.node.int("noop_with_empty_axes")?.unwrap_or(0) != 0;
    let mut reduced = vec![axes.is_empty() && !keep_all; x.dims.len()];
    for a in axes {
        let a = axis(a, x.dims.len())?;
        reduced.get_mut(a).map(|r| *r = true).unwrap_or_default();
    }
    run(call, &x, &reduced, kind)
}

/// Sums `x` down to the shape of the result, from which it was broadcast.
pub(super) fn reduce_to(call: &mut Call<'_>) -> Result<()> {
    let x = call.input(0)?;
    let to = call.outputs.first().and_then(|o| o.as_ref()).map_or(&[][..], |o| o.dims);
    let missing = x.dims.len().checked_sub(to.len());
    let missing = missing.ok_or_else(|| Error::new(Code::TYPES, "cannot sum to a larger rank"))?;
    let reduced: Vec<bool> = (0..x.dims.len()).map(|i| i < missing || (to[i - missing] == 1)).collect();
    run(call, &x, &reduced, Reduction::Sum)
}

fn run(call: &mut Call<'_>, x: &View<'_>, reduced: &[bool], kind: Reduction) -> Result<()> {
    match kind {
        Reduction::Sum => fold(call, x, reduced, 0.0, |a, x| a + x, |a, b| a + b, |a, _| a),
        Reduction::Mean => fold(call, x, reduced, 0.0, |a, x| a + x, |a, b| a + b, |a, n| a / n),
        Reduction::SumSquare => fold(call, x, reduced, 0.0, |a, x| a + x * x, |a, b| a + b, |a, _| a),
        Reduction::L2 => fold(call, x, reduced, 0.0, |a, x| a + x * x, |a, b| a + b, |a, _| a.sqrt()),
        Reduction::Max => fold(call, x, reduced, f64::NEG_INFINITY, larger, larger, |a, _| a),
        Reduction::Min => fold(call, x, reduced, f64::INFINITY, smaller, smaller, |a, _| a),
    }
}

/// The larger one; NaN if either is.
#[inline(always)]
fn larger(a: f64, b: f64) -> f64 {
    if a > b || a.is_nan() { a } else { b }
}

#[inline(always)]
fn smaller(a: f64, b: f64) -> f64 {
    if a < b || a.is_nan() { a } else { b }
}

/// Folds with `step(accumulator, element)`, joins partial results with `join`, and ends with `end(accumulator, count)`.
fn fold(
    call: &mut Call<'_>,
    x: &View<'_>,
    reduced: &[bool],
    init: f64,
    step: impl Fn(f64, f64) -> f64 + Copy + Sync + Send,
    join: impl Fn(f64, f64) -> f64 + Copy + Sync + Send,
    end: impl Fn(f64, f64) -> f64 + Copy + Sync + Send,
) -> Result<()> {
    let select = |of: &[usize], which: bool| -> Vec<usize> {
        of.iter().zip(reduced).filter(|&(_, &r)| r == which).map(|(&d, _)| d).collect()
    };
    let kept = Walk::new(&select(x.dims, false), [&select(x.strides, false)]);
    let over = Walk::new(&select(x.dims, true), [&select(x.strides, true)]);
    let count: usize = select(x.dims, true).iter().product();
    let (xs, out) = (x.elements::<f32>(), call.output(0)?.elements::<f32>());
    let side_by_side = kept.inner() == [1] && over.inner() != [1];
    let size = if side_by_side { COLUMNS } else { PIECE / count.max(1) };
    call.threads.pieces(out, size, |start, piece| {
        vectorised(
            #[inline(always)]
            || {
                kept.runs(start, piece.len(), |from, len, [base]| {
                    let out = &mut piece[from..from + len];
                    if side_by_side {
                        let mut sums = [init; COLUMNS];
                        columns(&mut sums[..len], xs, base, &over, count, step);
                        out.iter_mut().zip(&sums).for_each(|(y, &s)| *y = end(s, count as f64) as f32);
                    } else {
                        let [between] = kept.inner();
                        for (j, y) in out.iter_mut().enumerate() {
                            let total = row(xs, base + j * between, &over, count, init, step, join);
                            *y = end(total, count as f64) as f32;
                        }
                    }
                });
            },
        );
    });
    Ok(())
}

/// Accumulates `sums.len()` adjacent results at once.
#[inline(always)]
fn columns(
    sums: &mut [f64],
    xs: &[f32],
    base: usize,
    over: &Walk<1>,
    count: usize,
    step: impl Fn(f64, f64) -> f64,
) {
    let [between] = over.inner();
    over.runs(0, count, |_, len, [offset]| {
        for i in 0..len {
            let at = base + offset + i * between;
            let row = &xs[at..at + sums.len()];
            sums.iter_mut().zip(row).for_each(|(s, &x)| *s = step(*s, f64::from(x)));
        }
    });
}

/// Accumulates one result, in sixteen partial ones where its elements are adjacent.
#[inline(always)]
fn row(
    xs: &[f32],
    base: usize,
    over: &Walk<1>,
    count: usize,
    init: f64,
    step: impl Fn(f64, f64) -> f64,
    join: impl Fn(f64, f64) -> f64,
) -> f64 {
    let [between] = over.inner();
    let mut partial = [init; 16];
    over.runs(0, count, |_, len, [offset]| {
        let at = base + offset;
        if between == 1 {
            let chunks = xs[at..at + len].chunks_exact(16);
            let rest = chunks.remainder();
            for chunk in chunks {
                partial.iter_mut().zip(chunk).for_each(|(p, &x)| *p = step(*p, f64::from(x)));
            }
            partial.iter_mut().zip(rest).for_each(|(p, &x)| *p = step(*p, f64::from(x)));
        } else {
            (0..len).for_each(|i| partial[i % 16] = step(partial[i % 16], f64::from(xs[at + i * between])));
        }
    });
    partial.into_iter().fold(init, join)
}
