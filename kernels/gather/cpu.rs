//! Reading along an axis by index. An index that is out of range is an error, as ONNX has it.
use crate::{
    Call, View, axis,
    threads::{PIECE, rows_per_piece},
};
use bytemuck::Pod;
use graft_ir::{Code, DType, Error, Result};

/// The indices of a tensor as positions along an axis of `size`.
fn positions_in(view: &View<'_>, size: usize) -> Result<Vec<usize>> {
    match view.dtype {
        DType::Int32 => positions(view.elements::<i32>().iter().map(|&i| i64::from(i)), size),
        _ => positions(view.elements::<i64>().iter().copied(), size),
    }
}

/// Indices as positions along an axis of `size`; negative ones count from the end.
pub(super) fn positions(indices: impl Iterator<Item = i64>, size: usize) -> Result<Vec<usize>> {
    let resolve = |i: i64| {
        let at = if i < 0 { i + size as i64 } else { i };
        let outside = || Error::new(Code::VALUE, format!("index {i} is outside of an axis of size {size}"));
        usize::try_from(at).ok().filter(|&at| at < size).ok_or_else(outside)
    };
    indices.map(resolve).collect()
}

/// Slices of `data` along `axis`, one for each index.
pub(super) fn gather(call: &mut Call<'_>) -> Result<()> {
    let (data, index, out) = (call.input(0)?, call.input(1)?, call.output(0)?);
    let at = axis(call.node.int("axis")?.unwrap_or(0), data.dims.len())?;
    let size = data.dims[at];
    let positions = positions_in(&index, size)?;
    let block = data.dims[at + 1..].iter().product::<usize>() * data.dtype.bits() / 8;
    if block == 0 || positions.is_empty() {
        return Ok(());
    }
    // Bytes will do: slices are copied whole.
    let (from, to) = (data.data, out.data);
    let blocks = (PIECE / block).max(1);
    call.threads.pieces(to, blocks * block, |start, piece| {
        for (i, to) in piece.chunks_mut(block).enumerate() {
            let (outer, j) = ((start / block + i) / positions.len(), (start / block + i) % positions.len());
            let at = (outer * size + positions[j]) * block;
            to.copy_from_slice(&from[at..at + block]);
        }
    });
    Ok(())
}

/// `graft.GatherGrad (dy, indices, shape) => (dx)`: each slice of `dy` is added to the slice of zeros that it was read
/// from, in the order of the indices.
pub(super) fn gather_grad(call: &mut Call<'_>) -> Result<()> {
    let (dy, index, out) = (call.input(0)?, call.input(1)?, call.output(0)?);
    let at = axis(call.node.int("axis")?.unwrap_or(0), out.dims.len())?;
    let (size, block) = (out.dims[at], out.dims[at + 1..].iter().product::<usize>());
    let positions = positions_in(&index, size)?;
    let (n, dy, out) = (positions.len(), dy.elements::<f32>(), out.elements::<f32>());
    // The readers of one slice side by side, each slice's in the order of the indices.
    let mut readers: Vec<usize> = (0..n).collect();
    readers.sort_by_key(|&j| positions[j]);
    // A piece owns whole slices, so that no sum is shared between threads.
    call.threads.pieces(out, rows_per_piece(block) * block, |start, piece| {
        for (i, slice) in piece.chunks_mut(block).enumerate() {
            let (outer, row) = ((start / block + i) / size, (start / block + i) % size);
            slice.fill(0.0);
            let first = readers.partition_point(|&j| positions[j] < row);
            for &j in readers[first..].iter().take_while(|&&j| positions[j] == row) {
                let from = (outer * n + j) * block;
                slice.iter_mut().zip(&dy[from..from + block]).for_each(|(x, d)| *x += d);
            }
        }
    });
    Ok(())
}

/// `out[i][j][k] = data[index[i][j][k]][j][k]` for axis 0, and so on.
pub(super) fn gather_elements(call: &mut Call<'_>) -> Result<()> {
    match call.input(0)?.dtype.bits() {
        8 => gather_elements_typed::<u8>(call),
        16 => gather_elements_typed::<u16>(call),
        32 => gather_elements_typed::<u32>(call),
        _ => gather_elements_typed::<u64>(call),
    }
}

fn gather_elements_typed<T: Pod + Send + Sync>(call: &mut Call<'_>) -> Result<()> {
    let (data, index, out) = (call.input(0)?, call.input(1)?, call.output(0)?);
    let at = axis(call.node.int("axis")?.unwrap_or(0), data.dims.len())?;
    let positions = positions_in(&index, data.dims[at])?;
    let (from, dims) = (data.elements::<T>(), index.dims);
    call.threads.pieces(out.elements::<T>(), PIECE, |start, piece| {
        for (i, to) in piece.iter_mut().enumerate() {
            let mut rest = start + i;
            let mut offset = positions[rest] * data.strides[at];
            for axis in (0..dims.len()).rev() {
                if axis != at {
                    offset += rest % dims[axis] * data.strides[axis];
                }
                rest /= dims[axis];
            }
            *to = from[offset];
        }
    });
    Ok(())
}
