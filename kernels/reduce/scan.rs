//! Running sums along an axis.
use crate::{Call, axis};
use bytemuck::{Pod, Zeroable};
use graft_ir::{Code, DType, Error, Result};

/// `y[i] = Σ x[j]` over j ≤ i along the axis; over j < i if `exclusive`, from the other end if `reverse`. Sums of floats are
/// held in `f64`.
pub(super) fn cumsum(call: &mut Call<'_>) -> Result<()> {
    match call.input(0)?.dtype {
        DType::Float => running(call, |sum: f64, x: f32| sum + f64::from(x), |sum| sum as f32),
        DType::Int32 => running(call, i32::wrapping_add, |sum| sum),
        _ => running(call, i64::wrapping_add, |sum| sum),
    }
}

fn running<T: Pod + Send + Sync, S: Zeroable + Copy + Send + Sync>(
    call: &mut Call<'_>,
    add: impl Fn(S, T) -> S + Sync,
    end: impl Fn(S) -> T + Sync,
) -> Result<()> {
    let (x, axes) = (call.input(0)?, call.input(1)?);
    let at = match (axes.len(), axes.dtype) {
        (1, DType::Int32) => i64::from(axes.elements::<i32>()[0]),
        (1, _) => axes.elements::<i64>()[0],
        (n, _) => return Err(Error::new(Code::TYPES, format!("expected one axis, found {n}"))),
    };
    let at = axis(at, x.dims.len())?;
    let [exclusive, reverse] = ["exclusive", "reverse"].map(|flag| call.node.int(flag));
    let (exclusive, reverse) = (exclusive?.unwrap_or(0) != 0, reverse?.unwrap_or(0) != 0);
    let (size, inner) = (x.dims[at], x.dims[at + 1..].iter().product::<usize>());
    let (xs, out) = (x.elements::<T>(), call.output(0)?.elements::<T>());
    call.threads.pieces(out, size * inner, |start, y| {
        let x = &xs[start..start + y.len()];
        // Those side by side are summed side by side, because that is how they lie.
        let mut sums = vec![S::zeroed(); inner];
        for step in 0..size {
            let row = if reverse { size - 1 - step } else { step } * inner;
            let row = y[row..row + inner].iter_mut().zip(&x[row..row + inner]);
            for ((y, &x), sum) in row.zip(&mut sums) {
                let with_own = add(*sum, x);
                *y = end(if exclusive { *sum } else { with_own });
                *sum = with_own;
            }
        }
    });
    Ok(())
}
