//! Axes and row-major positions: what the ops that move elements share.
use crate::{Array, Code, Data, Error, Result, count};

/// `eval` makes no tensor with more elements than this, whatever sizes a model asks for.
const MAX_ELEMENTS: usize = 1 << 28;

/// The number of elements of a tensor that `eval` is about to make; an error if it is absurd.
pub(super) fn element_count(dims: &[usize]) -> Result<usize> {
    let absurd = || {
        let message =
            format!("a tensor of sizes {dims:?} is refused: it has more than {MAX_ELEMENTS} elements");
        Error::new(Code::VALUE, message)
    };
    count(dims).filter(|&n| n <= MAX_ELEMENTS).ok_or_else(absurd)
}

/// Run-time sizes; an error if one is negative.
pub(super) fn sizes(values: &[i64]) -> Result<Vec<usize>> {
    let negative = |n: i64| Error::new(Code::VALUE, format!("{n} is no size; expected 0 or more"));
    values.iter().map(|&n| usize::try_from(n).map_err(|_| negative(n))).collect()
}

/// The axis that `axis` means in a tensor of rank `rank`: negative ones count from the end.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let outside =
        || Error::new(Code::VALUE, format!("axis {axis} does not exist in a tensor of rank {rank}"));
    let shifted = if axis < 0 { axis.checked_add_unsigned(rank as u64) } else { Some(axis) };
    shifted.and_then(|a| usize::try_from(a).ok()).filter(|&a| a < rank).ok_or_else(outside)
}

/// Several axes, as [`axis`] reads them; an error if one is named twice.
pub(super) fn axes(axes: &[i64], rank: usize) -> Result<Vec<usize>> {
    let axes = axes.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<_>>>()?;
    match axes.iter().enumerate().find(|(i, a)| axes[..*i].contains(a)) {
        Some((_, a)) => Err(Error::new(Code::VALUE, format!("axis {a} is named twice"))),
        None => Ok(axes),
    }
}

/// How far apart in memory the neighbours along each axis lie.
pub(super) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i];
    }
    strides
}

/// The offset of a position.
pub(super) fn offset(position: &[usize], strides: &[usize]) -> usize {
    position.iter().zip(strides).map(|(p, s)| p * s).sum()
}

/// Calls `visit` with each position of a tensor of sizes `dims`, in row-major order.
pub(super) fn each_position(dims: &[usize], mut visit: impl FnMut(&[usize]) -> Result<()>) -> Result<()> {
    let mut position = vec![0; dims.len()];
    for _ in 0..element_count(dims)? {
        visit(&position)?;
        for (p, &size) in position.iter_mut().zip(dims).rev() {
            *p += 1;
            if *p < size {
                break;
            }
            *p = 0;
        }
    }
    Ok(())
}

/// The array of sizes `dims` whose element at each position is that of `x` at the offset `source(position)`.
pub(super) fn select(
    x: &Array,
    dims: Vec<usize>,
    source: impl Fn(&[usize]) -> Result<usize>,
) -> Result<Array> {
    let mut offsets = Vec::with_capacity(element_count(&dims)?);
    each_position(&dims, |position| {
        offsets.push(source(position)?);
        Ok(())
    })?;
    let data = match &x.data {
        Data::Float(v) => Data::Float(offsets.into_iter().map(|i| v[i]).collect()),
        Data::Int(v) => Data::Int(offsets.into_iter().map(|i| v[i]).collect()),
    };
    Ok(Array { dtype: x.dtype, dims, data })
}

/// The index that `index` means along an axis of size `size`: negative ones count from the end.
pub(super) fn index(index: i64, size: usize) -> Result<usize> {
    let outside = || Error::new(Code::VALUE, format!("index {index} is outside an axis of size {size}"));
    let shifted = if index < 0 { index.checked_add_unsigned(size as u64) } else { Some(index) };
    shifted.and_then(|i| usize::try_from(i).ok()).filter(|&i| i < size).ok_or_else(outside)
}
