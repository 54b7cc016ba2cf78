//! Pooling.
use super::{Slide, each_element, kernel_shape, slides, window_counts};
use crate::ops::layout;
use crate::{Array, Code, DType, Data, Error, Eval, Fact, Infer, Node, Result};

fn kernel(node: &Node) -> Result<Vec<usize>> {
    kernel_shape(node)?.ok_or_else(|| Error::new(Code::ATTRIBUTE, "attribute `kernel_shape` is missing"))
}

/// The result, and for `MaxPool` the positions.
pub(super) fn infer_pool(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let (Some(dtype), Some([batch, channels, axes @ ..])) = (ctx.dtype(0), ctx.shape(0)) else {
        return Ok(vec![Fact::of_dtype(ctx.dtype(0)), Fact::of_dtype(Some(DType::Int64))]);
    };
    let kernel: Vec<Option<usize>> = kernel(ctx.node)?.into_iter().map(Some).collect();
    if axes.len() != kernel.len() {
        return Err(ctx.mismatch(format!("a window of {} axes over {} axes", kernel.len(), axes.len())));
    }
    let counts = window_counts(ctx.node, axes, &kernel, |axis| ctx.unknown(0, axis + 2))?;
    let dims = [&[batch.clone(), channels.clone()], &counts[..]].concat();
    Ok(vec![Fact::new(dtype, dims.clone()), Fact::new(DType::Int64, dims)])
}

/// Calls `window` with each window's position and the offsets of the elements that it reads; gives the result's sizes.
fn each_window(
    ctx: &Eval<'_>,
    mut window: impl FnMut(&[Slide], &[usize], &[usize]) -> Result<()>,
) -> Result<Vec<usize>> {
    let x = ctx.input(0)?;
    let [batch, channels, axes @ ..] = &x.dims[..] else {
        return Err(Error::new(
            Code::TYPES,
            format!("expected batch and channels, found sizes {:?}", x.dims),
        ));
    };
    let slides = slides(ctx.node, axes, &kernel(ctx.node)?)?;
    let strides = layout::strides(&x.dims);
    let dims: Vec<usize> = [*batch, *channels].into_iter().chain(slides.iter().map(|s| s.windows)).collect();
    let mut offsets = Vec::new();
    layout::each_position(&dims, |p| {
        offsets.clear();
        let first = layout::offset(&p[..2], &strides[..2]);
        each_element(&slides, &p[2..], |_, at| {
            offsets.push(first + layout::offset(at, &strides[2..]));
            Ok(())
        })?;
        window(&slides, &p[2..], &offsets)
    })?;
    Ok(dims)
}

pub(super) fn eval_average(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, mut y) = (ctx.input(0)?, Vec::new());
    let data = x.floats()?;
    let counts_padding = ctx.node.int("count_include_pad")?.unwrap_or(0) != 0;
    let dims = each_window(ctx, |slides, p, offsets| {
        let counted = slides.iter().zip(p).map(|(slide, &i)| slide.counted(i, counts_padding));
        let n: usize = counted.product();
        y.push(offsets.iter().map(|&i| data[i]).sum::<f64>() / n as f64);
        Ok(())
    })?;
    Ok(vec![Array::float(x.dtype, dims, y)])
}

pub(super) fn eval_lp(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, mut y) = (ctx.input(0)?, Vec::new());
    let (data, p) = (x.floats()?, ctx.node.int("p")?.unwrap_or(2) as f64);
    let dims = each_window(ctx, |_, _, offsets| {
        y.push(offsets.iter().map(|&i| data[i].abs().powf(p)).sum::<f64>().powf(1.0 / p));
        Ok(())
    })?;
    Ok(vec![Array::float(x.dtype, dims, y)])
}

pub(super) fn eval_max(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let x = ctx.input(0)?;
    let by_column = ctx.node.int("storage_order")?.unwrap_or(0) != 0;
    let mut chosen = Vec::new();
    let greater = |a: usize, b: usize| match &x.data {
        Data::Float(v) => v[a] > v[b] || v[a].is_nan(),
        Data::Int(v) => v[a] > v[b],
    };
    let dims = each_window(ctx, |_, _, offsets| {
        let empty = || Error::new(Code::VALUE, "a window lies wholly in the padding");
        let first = *offsets.first().ok_or_else(empty)?;
        chosen.push(offsets.iter().fold(first, |best, &i| if greater(i, best) { i } else { best }));
        Ok(())
    })?;
    let pick = |i: &usize| if by_column { column_major(*i, &x.dims) } else { *i };
    let indices = chosen.iter().map(|i| pick(i) as i64).collect();
    let data = match &x.data {
        Data::Float(v) => Data::Float(chosen.iter().map(|&i| v[i]).collect()),
        Data::Int(v) => Data::Int(chosen.iter().map(|&i| v[i]).collect()),
    };
    let indices = Array::int(DType::Int64, dims.clone(), indices);
    Ok(vec![Array { dtype: x.dtype, dims, data }, indices])
}

/// The row-major offset `i` in a tensor of sizes `dims`, with the axes behind the channels counted column by column.
fn column_major(i: usize, dims: &[usize]) -> usize {
    let plane: usize = dims[2..].iter().product();
    let (mut rest, mut offset, mut stride) = (i % plane, 0, plane);
    for &size in dims[2..].iter().rev() {
        stride /= size;
        offset += rest % size * stride;
        rest /= size;
    }
    i / plane * plane + offset
}
