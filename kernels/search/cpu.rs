//! Positions along an axis. The elements along it lie a row of the axes behind it apart.
use crate::{
    Call, View, axis,
    threads::{PIECE, rows_per_piece},
};
use graft_ir::{Code, DType, Error, Node, Result};

/// The axis that an op works along, `default` where it does not say: its place, its size, and the elements of the axes
/// behind it.
fn along(node: &Node, x: &View<'_>, default: i64) -> Result<(usize, usize, usize)> {
    let at = axis(node.int("axis")?.unwrap_or(default), x.dims.len())?;
    // A scalar has one element along its only axis.
    let size = x.dims.get(at).copied().unwrap_or(1);
    Ok((at, size, x.dims.iter().skip(at + 1).product()))
}

/// The position of the best element along an axis: the first of equal ones, or the last if `select_last_index`. A NaN that
/// comes first is never beaten.
pub(super) fn arg(call: &mut Call<'_>, better: impl Fn(f32, f32) -> bool + Sync) -> Result<()> {
    let x = call.input(0)?;
    let (at, size, inner) = along(call.node, &x, 0)?;
    let takes_last = call.node.int("select_last_index")?.unwrap_or(0) != 0;
    if size == 0 {
        return Err(Error::new(Code::VALUE, format!("axis {at} of {:?} has no element", x.dims)));
    }
    let (xs, out) = (x.elements::<f32>(), call.output(0)?.elements::<i64>());
    call.threads.pieces(out, rows_per_piece(size), |start, piece| {
        for (i, y) in piece.iter_mut().enumerate() {
            let first = (start + i) / inner * size * inner + (start + i) % inner;
            let x = |j: usize| xs[first + j * inner];
            let wins = |j: usize, best: usize| better(x(j), x(best)) || (takes_last && x(j) == x(best));
            *y = (1..size).fold(0, |best, j| if wins(j, best) { j } else { best }) as i64;
        }
    });
    Ok(())
}

/// The `k` largest elements along an axis, or smallest, and their positions, of equal ones the first. Numbers are in IEEE's
/// total order, and come out in it.
pub(super) fn top_k(call: &mut Call<'_>) -> Result<()> {
    let x = call.input(0)?;
    let (at, size, inner) = along(call.node, &x, -1)?;
    let largest = call.node.int("largest")?.unwrap_or(1) != 0;
    let (mut values, mut positions) = (call.wanted(0), call.wanted(1));
    let dims = values.as_ref().or(positions.as_ref()).map_or(&[][..], |y| y.dims);
    let k = dims.get(at).copied().unwrap_or(1);
    if k > size {
        return Err(Error::new(Code::VALUE, format!("the {k} largest of an axis of size {size}")));
    }
    let values = values.take().map(|y| y.elements::<f32>());
    let positions = positions.take().map(|y| y.elements::<i64>());
    let (xs, block) = (x.elements::<f32>(), k * inner);
    let parts =
        crate::threads::optional_pieces(values, block).zip(crate::threads::optional_pieces(positions, block));
    let outer: usize = x.dims[..at.min(x.dims.len())].iter().product();
    call.threads.each(
        parts.take(if block == 0 { 0 } else { outer }).enumerate(),
        |(i, (mut values, mut positions))| {
            let mut order: Vec<usize> = Vec::with_capacity(size);
            for j in 0..inner {
                let x = |p: usize| xs[(i * size + p) * inner + j];
                best(&mut order, size, k, |a, b| {
                    let by_value = if largest { x(b).total_cmp(&x(a)) } else { x(a).total_cmp(&x(b)) };
                    by_value.then(a.cmp(&b))
                });
                for (n, &p) in order.iter().enumerate() {
                    values.as_mut().map(|y| y[n * inner + j] = x(p)).unwrap_or_default();
                    positions.as_mut().map(|y| y[n * inner + j] = p as i64).unwrap_or_default();
                }
            }
        },
    );
    Ok(())
}

/// Leaves in `order` the first `k` of `0..size` as `compare` orders them, no two of which are equal.
fn best(order: &mut Vec<usize>, size: usize, k: usize, compare: impl Fn(usize, usize) -> std::cmp::Ordering) {
    order.clear();
    order.extend(0..size);
    if k > 0 && k < size {
        order.select_nth_unstable_by(k - 1, |&a, &b| compare(a, b));
    }
    order.truncate(k);
    order.sort_unstable_by(|&a, &b| compare(a, b));
}

/// A new axis along which the element at each index is `on` and all others are `off`: everywhere `off` for an index that
/// is outside of it.
pub(super) fn one_hot(call: &mut Call<'_>) -> Result<()> {
    let (indices, values, out) = (call.input(0)?, call.input(2)?, call.output(0)?);
    let width = values.dtype.bits() / 8;
    let [off, on] = [0, 1].map(|i| values.data.get(i * width..(i + 1) * width));
    let (Some(off), Some(on), 2) = (off, on, values.len()) else {
        return Err(Error::new(Code::TYPES, "expected two values, off and on"));
    };
    let at = axis(call.node.int("axis")?.unwrap_or(-1), out.dims.len())?;
    let (size, inner) = (out.dims[at], out.dims[at + 1..].iter().product::<usize>());
    let index = |i: usize| match indices.dtype {
        DType::Int32 => i64::from(indices.elements::<i32>()[i]),
        _ => indices.elements::<i64>()[i],
    };
    call.threads.pieces(out.data, PIECE * width, |_, piece| {
        piece.chunks_mut(width).for_each(|y| y.copy_from_slice(off));
    });
    for i in 0..indices.len() {
        let wanted = if index(i) < 0 { index(i).saturating_add(size as i64) } else { index(i) };
        let Some(at) = usize::try_from(wanted).ok().filter(|&at| at < size) else { continue };
        let at = ((i / inner * size + at) * inner + i % inner) * width;
        out.data[at..at + width].copy_from_slice(on);
    }
    Ok(())
}
