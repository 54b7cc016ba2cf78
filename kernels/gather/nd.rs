//! Blocks at positions: `GatherND` reads them, `ScatterND` writes them. What a position names is contiguous: all axes
//! behind it.
use super::cpu::positions;
use crate::{Call, View, row_major, threads::PIECE};
use graft_ir::{Code, DType, Error, Result};

/// Blocks of a row-major tensor of sizes `dims`.
struct Blocks {
    /// The offset of each, in elements.
    offsets: Vec<usize>,
    /// The number of elements of each.
    len: usize,
}

/// The blocks that `index` names, whose last axis holds positions, behind `batch` leading axes that both have.
fn blocks(index: &View<'_>, dims: &[usize], batch: usize) -> Result<Blocks> {
    let unfit = || Error::new(Code::TYPES, format!("positions {:?} do not fit {dims:?}", index.dims));
    let (&depth, lead) = index.dims.split_last().ok_or_else(unfit)?;
    if batch + depth > dims.len() || lead.get(..batch) != dims.get(..batch) {
        return Err(unfit());
    }
    let (strides, n) = (row_major(dims), lead.iter().product::<usize>());
    let per_batch = lead[batch..].iter().product::<usize>().max(1);
    let outer: usize = dims[batch..].iter().product();
    let mut offsets: Vec<usize> = (0..n).map(|i| i / per_batch * outer).collect();
    for k in 0..depth {
        let along = index.elements::<i64>().iter().copied().skip(k).step_by(depth);
        let at = positions(along, dims[batch + k])?;
        offsets.iter_mut().zip(at).for_each(|(offset, p)| *offset += p * strides[batch + k]);
    }
    Ok(Blocks { offsets, len: dims[batch + depth..].iter().product() })
}

/// One block of the data for each position.
pub(super) fn gather_nd(call: &mut Call<'_>) -> Result<()> {
    let (data, index, out) = (call.input(0)?, call.input(1)?, call.output(0)?);
    let batch = usize::try_from(call.node.int("batch_dims")?.unwrap_or(0)).unwrap_or(usize::MAX);
    let Blocks { offsets, len } = blocks(&index, data.dims, batch.min(data.dims.len()))?;
    // Bytes will do: blocks are copied whole.
    let width = data.dtype.bits() / 8;
    let block = len * width;
    if block == 0 {
        return Ok(());
    }
    let n = (PIECE / block).max(1);
    call.threads.pieces(out.data, n * block, |start, piece| {
        for (i, to) in piece.chunks_mut(block).enumerate() {
            let at = offsets[start / block + i] * width;
            to.copy_from_slice(&data.data[at..at + block]);
        }
    });
    Ok(())
}

/// The data with the updates written over, or added to, its blocks, in the order of the positions.
pub(super) fn scatter_nd(call: &mut Call<'_>) -> Result<()> {
    let (index, updates) = (call.input(1)?, call.input(2)?);
    let adds = call.node.str("reduction")? == Some("add");
    let (given, dtype) = (call.get(0), updates.dtype);
    let out = call.output(0)?;
    let Blocks { offsets, len } = blocks(&index, out.dims, 0)?;
    if offsets.len() * len != updates.len() {
        let message = format!("updates {:?} for {} blocks of {len}", updates.dims, offsets.len());
        return Err(Error::new(Code::TYPES, message));
    }
    if let Some(given) = given {
        out.data.copy_from_slice(&given.data[..out.data.len()]);
    }
    if len == 0 {
        return Ok(());
    }
    if adds && dtype == DType::Float {
        let out = out.elements::<f32>();
        for (&at, block) in offsets.iter().zip(updates.elements::<f32>().chunks(len)) {
            out[at..at + len].iter_mut().zip(block).for_each(|(y, u)| *y += u);
        }
        return Ok(());
    }
    let width = dtype.bits() / 8;
    for (&at, block) in offsets.iter().zip(updates.data.chunks(len * width)) {
        out.data[at * width..(at + len) * width].copy_from_slice(&block[..len * width]);
    }
    Ok(())
}
