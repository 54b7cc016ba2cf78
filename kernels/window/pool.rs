//! Pooling: each channel by itself, window by window side by side.
use super::{runs::Windows, window};
use crate::{Call, math::vectorised};
use graft_ir::{Code, Error, Result, ops};

/// `y` = the largest element of each window, NaN if one is.
pub(super) fn max(call: &mut Call<'_>) -> Result<()> {
    let windows = windows(call)?;
    let is_empty = |s: &ops::Slide| (0..s.windows).any(|i| s.counted(i, false) == 0);
    if windows.slides().iter().any(is_empty) {
        return Err(Error::new(Code::VALUE, "a window lies wholly in the padding"));
    }
    let larger = |y: f32, x: f32| if x > y || x.is_nan() { x } else { y };
    pool(call, &windows, f32::NEG_INFINITY, larger, |_, y| y)
}

/// `y` = the mean of each window, of its real elements or, with `count_include_pad`, of the padding's zeros too.
pub(super) fn average(call: &mut Call<'_>) -> Result<()> {
    let windows = windows(call)?;
    let padding = call.node.int("count_include_pad")?.unwrap_or(0) != 0;
    let counts: Vec<Vec<usize>> = (windows.slides().iter())
        .map(|slide| (0..slide.windows).map(|i| slide.counted(i, padding)).collect())
        .collect();
    let count = |mut i: usize| -> usize {
        let along = counts.iter().rev().map(|of| {
            let n = of[i % of.len()];
            i /= of.len();
            n
        });
        along.product()
    };
    pool(call, &windows, 0.0, |y, x| y + x, |i, y| y / count(i) as f32)
}

fn windows(call: &Call<'_>) -> Result<Windows> {
    let (kernel, axes) = (window(call, &[])?, call.input(0)?.dims.get(2..).unwrap_or_default());
    if kernel.is_empty() {
        return Err(Error::new(Code::ATTRIBUTE, "attribute `kernel_shape` is missing"));
    }
    Ok(Windows::new(ops::slides(call.node, axes, &kernel)?))
}

/// Folds the real elements of each window with `step`, and makes the result of window `i` with `end(i, folded)`.
fn pool(
    call: &mut Call<'_>,
    windows: &Windows,
    init: f32,
    step: impl Fn(f32, f32) -> f32 + Sync,
    end: impl Fn(usize, f32) -> f32 + Sync,
) -> Result<()> {
    let (x, out) = (call.input(0)?.elements::<f32>(), call.output(0)?.elements::<f32>());
    let plane: usize = windows.slides().iter().map(|s| s.size).product();
    let between = windows.step();
    call.threads.pieces(out, windows.len(), |start, y| {
        let x = &x[start / windows.len() * plane..][..plane];
        vectorised(
            #[inline(always)]
            || {
                y.fill(init);
                for k in 0..windows.elements() {
                    windows.runs(k, 0..y.len(), |at, from, len| {
                        let y = y[at..at + len].iter_mut().enumerate();
                        y.for_each(|(j, y)| *y = step(*y, x[from + j * between]));
                    });
                }
                y.iter_mut().enumerate().for_each(|(i, y)| *y = end(i, *y));
            },
        );
    });
    Ok(())
}
