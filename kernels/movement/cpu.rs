//! Moving elements of any type of whole bytes.
use crate::{
    Call, Threads, View, ViewMut, axis,
    strides::{Walk, broadcast},
    threads::PIECE,
};
use bytemuck::Pod;
use graft_ir::{Code, Error, Result};

/// Writes the elements of `from`, broadcast to the sizes of `to`, in row-major order.
///
/// # Errors
/// If the elements do not have 1, 2, 4, 8 or 16 bytes.
pub fn copy(from: &View<'_>, to: ViewMut<'_>, threads: Threads) -> Result<()> {
    let strides = broadcast(from, to.dims);
    let dims = to.dims;
    match from.dtype.bits() {
        8 => copy_typed(from.elements::<u8>(), dims, &strides, to.elements(), threads),
        16 => copy_typed(from.elements::<u16>(), dims, &strides, to.elements(), threads),
        32 => copy_typed(from.elements::<u32>(), dims, &strides, to.elements(), threads),
        64 => copy_typed(from.elements::<u64>(), dims, &strides, to.elements(), threads),
        _ => {
            return Err(Error::new(Code::TYPES, format!("elements of {} cannot be moved", from.dtype)));
        }
    }
    Ok(())
}

fn copy_typed<T: Pod + Send + Sync>(
    from: &[T],
    dims: &[usize],
    strides: &[usize],
    to: &mut [T],
    threads: Threads,
) {
    let walk = Walk::new(dims, [strides]);
    let [step] = walk.inner();
    threads.pieces(to, PIECE, |start, piece| {
        walk.runs(start, piece.len(), |at, len, [i]| {
            let to = &mut piece[at..at + len];
            match step {
                1 => to.copy_from_slice(&from[i..i + len]),
                0 => to.fill(from[i]),
                _ => to.iter_mut().enumerate().for_each(|(j, y)| *y = from[i + j * step]),
            }
        });
    });
}

/// The operand, unchanged.
pub(crate) fn identity(call: &mut Call<'_>) -> Result<()> {
    let (x, out) = (call.input(0)?, call.output(0)?);
    copy(&x, out, call.threads)
}

/// The operands one after the other along an axis.
pub(super) fn concat(call: &mut Call<'_>) -> Result<()> {
    let out = call.output(0)?;
    let at = axis(call.node.int("axis")?.unwrap_or(0), out.dims.len())?;
    match out.dtype.bits() {
        8 => concat_typed::<u8>(call, out, at),
        16 => concat_typed::<u16>(call, out, at),
        32 => concat_typed::<u32>(call, out, at),
        _ => concat_typed::<u64>(call, out, at),
    }
}

fn concat_typed<T: Pod + Send + Sync>(call: &Call<'_>, out: ViewMut<'_>, at: usize) -> Result<()> {
    let dims = out.dims;
    let row: usize = dims[at..].iter().product();
    let out = out.elements::<T>();
    let mut from = 0;
    for i in 0..call.inputs.len() {
        let x = call.input(i)?;
        let width: usize = x.dims[at..].iter().product();
        let (xs, walk) = (x.elements::<T>(), Walk::new(x.dims, [x.strides]));
        let [step] = walk.inner();
        if width > 0 {
            for (outer, to) in out.chunks_mut(row).enumerate() {
                let to = &mut to[from..from + width];
                walk.runs(outer * width, width, |at, len, [i]| {
                    to[at..at + len].iter_mut().enumerate().for_each(|(j, y)| *y = xs[i + j * step]);
                });
            }
        }
        from += width;
    }
    Ok(())
}

/// The attribute's one element (0.0 where it is left out) everywhere.
pub(super) fn constant_of_shape(call: &mut Call<'_>) -> Result<()> {
    let value = call.node.tensor("value")?.map_or_else(|| vec![0; 4], |t| t.data().to_vec());
    let out = call.output(0)?;
    if out.dtype.bits() != 8 * value.len() {
        return Err(Error::new(Code::ATTRIBUTE, "attribute `value` must hold one element"));
    }
    let size = value.len();
    call.threads.pieces(out.data, PIECE * size, |_, piece| {
        piece.chunks_mut(size).for_each(|element| element.copy_from_slice(&value));
    });
    Ok(())
}

/// `start, start + delta, …`, as many as the result holds.
pub(super) fn range(call: &mut Call<'_>) -> Result<()> {
    let [start, delta] = [call.input(0)?, call.input(2)?].map(|v| v.elements::<i64>()[0]);
    let out = call.output(0)?.elements::<i64>();
    for (i, y) in out.iter_mut().enumerate() {
        *y = start.wrapping_add(delta.wrapping_mul(i as i64));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row_major;
    use graft_ir::DType;

    #[test]
    fn copies_a_transposed_and_broadcast_view() {
        let data: Vec<f32> = (0..6).map(|i| i as f32).collect();
        // The (2, 3) matrix seen as (3, 2), repeated along a new first axis.
        let view =
            View { dtype: DType::Float, dims: &[3, 2], strides: &[1, 3], data: bytemuck::cast_slice(&data) };
        let mut out = vec![0.0f32; 12];
        let to = ViewMut { dtype: DType::Float, dims: &[2, 3, 2], data: bytemuck::cast_slice_mut(&mut out) };
        copy(&view, to, Threads::ONE).unwrap();
        assert_eq!(out, [0., 3., 1., 4., 2., 5., 0., 3., 1., 4., 2., 5.]);
        assert_eq!(row_major(&[2, 3, 2]), [6, 2, 1]);
    }
}
