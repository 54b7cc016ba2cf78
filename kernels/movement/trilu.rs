//! Triangles of matrices: the rest is zero.
use crate::{Call, threads::rows_per_piece};
use bytemuck::Pod;
use graft_ir::{Code, Error, Result};

/// `y = x` with 0 below (`upper` = 1) or above the `k`-th diagonal.
pub(super) fn trilu(call: &mut Call<'_>) -> Result<()> {
    match call.input(0)?.dtype.bits() {
        8 => typed::<u8>(call),
        16 => typed::<u16>(call),
        32 => typed::<u32>(call),
        _ => typed::<u64>(call),
    }
}

/// Elements are moved whole, and zero has the same bits in every type.
fn typed<T: Pod + Send + Sync>(call: &mut Call<'_>) -> Result<()> {
    let upper = call.node.int("upper")?.unwrap_or(1) != 0;
    let k = call.get(1).and_then(|k| k.elements::<i64>().first().copied()).unwrap_or(0);
    let (x, out) = (call.input(0)?, call.output(0)?);
    let &[.., rows, columns] = out.dims else {
        return Err(Error::new(Code::TYPES, format!("{:?} is no matrix", out.dims)));
    };
    if columns == 0 {
        return Ok(());
    }
    let from = x.elements::<T>();
    call.threads.pieces(out.elements::<T>(), rows_per_piece(columns) * columns, |start, piece| {
        for (i, to) in piece.chunks_mut(columns).enumerate() {
            let row = start / columns + i;
            // The first column behind the diagonal's, for a lower triangle, and the first on it for an upper one.
            let edge = ((row % rows) as i64).saturating_add(k).saturating_add(i64::from(!upper));
            let edge = edge.clamp(0, columns as i64) as usize;
            let kept = if upper { edge..columns } else { 0..edge };
            to.fill(T::zeroed());
            to[kept.clone()].copy_from_slice(&from[row * columns..][kept]);
        }
    });
    Ok(())
}
