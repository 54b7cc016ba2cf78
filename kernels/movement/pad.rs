//! Constants around a tensor, or elements taken away at its ends.
use crate::{Call, axis, threads::rows_per_piece};
use bytemuck::Pod;
use graft_ir::{Code, Error, Result};

/// `y = x` with as many constants before and behind each axis as `pads` says; negative numbers take elements away.
pub(super) fn pad(call: &mut Call<'_>) -> Result<()> {
    match call.input(0)?.dtype.bits() {
        8 => typed::<u8>(call),
        16 => typed::<u16>(call),
        32 => typed::<u32>(call),
        _ => typed::<u64>(call),
    }
}

/// How many elements come before each axis.
fn befores(call: &Call<'_>, rank: usize) -> Result<Vec<i64>> {
    let pads = call.ints_at(1, "pads")?.unwrap_or_default();
    let axes = match call.ints_at(3, "axes")? {
        Some(axes) => axes.into_iter().map(|a| axis(a, rank)).collect::<Result<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        let message = format!("{} pads for {} axes, expected twice as many", pads.len(), axes.len());
        return Err(Error::new(Code::TYPES, message));
    }
    let mut before = vec![0; rank];
    axes.into_iter().zip(pads).for_each(|(axis, pad)| before[axis] = pad);
    Ok(before)
}

/// Elements are moved whole, and zero, the constant that goes without saying, has the same bits in every type.
fn typed<T: Pod + Send + Sync>(call: &mut Call<'_>) -> Result<()> {
    let before = befores(call, call.input(0)?.dims.len())?;
    let given = call.get(2).and_then(|c| c.elements::<T>().first().copied());
    let attr = call.node.float("value")?.map(|v| bytemuck::cast_slice::<f32, T>(&[v])[0]);
    let constant = given.or(attr).unwrap_or_else(T::zeroed);
    let (x, out) = (call.input(0)?, call.output(0)?);
    let (from, dims) = (x.elements::<T>(), out.dims);
    let (Some((&columns, lead)), Some(&width)) = (dims.split_last(), x.dims.last()) else {
        out.elements::<T>().copy_from_slice(from);
        return Ok(());
    };
    if columns == 0 {
        return Ok(());
    }
    let first = before[lead.len()];
    // The columns of a row of the result that come from a row of the operand.
    let kept =
        first.clamp(0, columns as i64) as usize..(first + width as i64).clamp(0, columns as i64) as usize;
    let skipped = (-first).max(0) as usize;
    call.threads.pieces(out.elements::<T>(), rows_per_piece(columns) * columns, |start, piece| {
        for (i, to) in piece.chunks_mut(columns).enumerate() {
            to.fill(constant);
            if let Some(row) = source(start / columns + i, lead, x.dims, &before).filter(|_| !kept.is_empty())
            {
                to[kept.clone()].copy_from_slice(&from[row * width + skipped..][..kept.len()]);
            }
        }
    });
    Ok(())
}

/// The operand's row that row `row` of a result with the leading sizes `lead` shows; `None` if that is all constant.
fn source(mut row: usize, lead: &[usize], dims: &[usize], before: &[i64]) -> Option<usize> {
    let (mut found, mut stride) = (0, 1);
    for axis in (0..lead.len()).rev() {
        let at = (row % lead[axis]) as i64 - before[axis];
        row /= lead[axis];
        found += usize::try_from(at).ok().filter(|&at| at < dims[axis])? * stride;
        stride *= dims[axis];
    }
    Some(found)
}
