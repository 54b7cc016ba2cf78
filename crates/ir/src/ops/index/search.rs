//! Finding positions: of extremes, of what is not zero, and marking them.
use crate::ops::layout;
use crate::{Array, Backward, Code, DType, Data, Dim, Error, Eval, Fact, Infer, Node, Result, Value};

pub(super) fn infer_arg(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let Some(dims) = ctx.shape(0) else { return Ok(vec![Fact::of_dtype(Some(DType::Int64))]) };
    Ok(vec![Fact::new(DType::Int64, reduced(ctx.node, dims, Dim::from(1i64))?)])
}

/// `dims` with the axis of an `ArgMax` of size `one`, or without it.
fn reduced<T: Clone>(node: &Node, dims: &[T], one: T) -> Result<Vec<T>> {
    let axis = layout::axis(node.int("axis")?.unwrap_or(0), dims.len())?;
    let mut dims = dims.to_vec();
    if node.int("keepdims")?.unwrap_or(1) != 0 {
        dims[axis] = one;
    } else {
        dims.remove(axis);
    }
    Ok(dims)
}

pub(super) fn eval_arg(ctx: &Eval<'_>, better: fn(f64, f64) -> bool) -> Result<Vec<Array>> {
    let x = ctx.input(0)?;
    let axis = layout::axis(ctx.node.int("axis")?.unwrap_or(0), x.dims.len())?;
    let take_last = ctx.node.int("select_last_index")?.unwrap_or(0) != 0;
    let (size, stride) = (x.dims[axis], layout::strides(&x.dims)[axis]);
    if size == 0 {
        return Err(Error::new(Code::VALUE, format!("axis {axis} of {:?} has no element", x.dims)));
    }
    let elements = numbers(x);
    let firsts = (0..x.len()).filter(|i| (i / stride).is_multiple_of(size));
    let best = |first: usize| {
        let at = |i: usize| elements[first + i * stride];
        let wins = |i: usize, best: usize| better(at(i), at(best)) || (take_last && at(i) == at(best));
        (1..size).fold(0, |best, i| if wins(i, best) { i } else { best }) as i64
    };
    Ok(vec![Array::int(DType::Int64, reduced(ctx.node, &x.dims, 1)?, firsts.map(best).collect())])
}

/// The elements as floating-point numbers, for comparisons.
fn numbers(x: &Array) -> Vec<f64> {
    match &x.data {
        Data::Float(v) => v.clone(),
        Data::Int(v) => v.iter().map(|&i| i as f64).collect(),
    }
}

pub(super) fn infer_non_zero(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let rank = ctx.rank(0).map_or_else(|| ctx.unknown(0, 0), Dim::from);
    Ok(vec![Fact::new(DType::Int64, vec![rank, ctx.unknown(0, 1)])])
}

pub(super) fn eval_non_zero(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let x = ctx.input(0)?;
    let mut elements = numbers(x).into_iter();
    let mut found: Vec<Vec<i64>> = vec![Vec::new(); x.dims.len()];
    let mut n = 0;
    layout::each_position(&x.dims, |position| {
        if elements.next() != Some(0.0) {
            found.iter_mut().zip(position).for_each(|(row, &p)| row.push(p as i64));
            n += 1;
        }
        Ok(())
    })?;
    Ok(vec![Array::int(DType::Int64, vec![x.dims.len(), n], found.concat())])
}

/// Where the new axis of a `OneHot` goes; there is one more than the indices have.
fn hot_axis(node: &Node, rank: usize) -> Result<usize> {
    layout::axis(node.int("axis")?.unwrap_or(-1), rank + 1)
}

pub(super) fn infer_one_hot(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let (Some(dtype), Some(dims)) = (ctx.dtype(2), ctx.shape(0)) else {
        return Ok(vec![Fact::of_dtype(ctx.dtype(2))]);
    };
    let axis = hot_axis(ctx.node, dims.len())?;
    let depth = ctx.known(1).and_then(|k| k.into_iter().next());
    let mut dims = dims.to_vec();
    dims.insert(axis, depth.unwrap_or_else(|| ctx.unknown(0, axis)));
    crate::ops::generate::refuse_negative(&dims)?;
    Ok(vec![Fact::new(dtype, dims)])
}

pub(super) fn eval_one_hot(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (indices, depth, values) = (ctx.input(0)?, numbers(ctx.input(1)?), ctx.input(2)?);
    let ([depth], 2) = (&depth[..], values.len()) else {
        return Err(Error::new(Code::TYPES, "expected one depth and two values, off and on"));
    };
    let size = layout::sizes(&[*depth as i64])?[0];
    let axis = hot_axis(ctx.node, indices.dims.len())?;
    let wanted: Vec<Option<usize>> =
        numbers(indices).iter().map(|&i| layout::index(i as i64, size).ok()).collect();
    let strides = layout::strides(&indices.dims);
    let mut dims = indices.dims.clone();
    dims.insert(axis, size);
    let source = |p: &[usize]| {
        let (before, after) = (&p[..axis], &p[axis + 1..]);
        let at = layout::offset(before, &strides) + layout::offset(after, &strides[axis..]);
        Ok(usize::from(wanted[at] == Some(p[axis])))
    };
    Ok(vec![layout::select(values, dims, source)?])
}

/// How many elements a `TopK` takes, where that is known: an operand, or an attribute in opsets before 10.
fn infer_count(ctx: &Infer<'_>) -> Result<Option<Dim>> {
    match ctx.node.input(1) {
        Some(_) => Ok(ctx.known(1).and_then(|k| k.into_iter().next())),
        None => Ok(ctx.node.int("k")?.map(Dim::from)),
    }
}

pub(super) fn infer_top_k(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let (Some(dtype), Some(dims)) = (ctx.dtype(0), ctx.shape(0)) else {
        return Ok(vec![Fact::of_dtype(ctx.dtype(0)), Fact::of_dtype(Some(DType::Int64))]);
    };
    let axis = layout::axis(ctx.node.int("axis")?.unwrap_or(-1), dims.len())?;
    let mut dims = dims.to_vec();
    let count = infer_count(ctx)?;
    if let (Some(k), Some(n)) = (count.as_ref().and_then(Dim::as_const), dims[axis].as_const())
        && !(0..=n).contains(&k)
    {
        return Err(ctx.mismatch(format!("the {k} largest of an axis of size {n}")));
    }
    dims[axis] = count.unwrap_or_else(|| ctx.unknown(0, axis));
    Ok(vec![Fact::new(dtype, dims.clone()), Fact::new(DType::Int64, dims)])
}

pub(super) fn eval_top_k(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let x = ctx.input(0)?;
    let given = ctx.get(1).map(|a| a.ints().map(|v| v.first().copied())).transpose()?.flatten();
    let attr = ctx.node.int("k")?;
    let k = given.or(attr).ok_or_else(|| Error::new(Code::TYPES, "the number of elements is missing"))?;
    let axis = layout::axis(ctx.node.int("axis")?.unwrap_or(-1), x.dims.len())?;
    let (size, k) = (x.dims[axis], layout::sizes(&[k])?[0]);
    if k > size {
        return Err(Error::new(Code::VALUE, format!("the {k} largest of an axis of size {size}")));
    }
    let largest = ctx.node.int("largest")?.unwrap_or(1) != 0;
    let (elements, strides) = (numbers(x), layout::strides(&x.dims));
    // Equal elements stay in the order of their indices, because the sort is stable.
    let order = |first: usize| {
        let mut order: Vec<usize> = (0..size).collect();
        let at = |i: usize| elements[first + i * strides[axis]];
        order.sort_by(|&a, &b| if largest { at(b).total_cmp(&at(a)) } else { at(a).total_cmp(&at(b)) });
        order
    };
    let mut dims = x.dims.clone();
    dims[axis] = k;
    let mut indices = Vec::with_capacity(layout::element_count(&dims)?);
    layout::each_position(&dims, |p| {
        let first = layout::offset(p, &strides) - p[axis] * strides[axis];
        indices.push(order(first)[p[axis]]);
        Ok(())
    })?;
    let result_strides = layout::strides(&dims);
    let source = |p: &[usize]| {
        let index = indices[layout::offset(p, &result_strides)];
        Ok(layout::offset(p, &strides) - p[axis] * strides[axis] + index * strides[axis])
    };
    let values = layout::select(x, dims.clone(), source)?;
    let indices = indices.into_iter().map(|i| i as i64).collect();
    Ok(vec![values, Array::int(DType::Int64, dims, indices)])
}

/// Each gradient goes to the element that its value came from.
pub(super) fn vjp_top_k(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, x) = (ctx.dy()?, ctx.input(0)?);
    let axis = layout::axis(ctx.node.int("axis")?.unwrap_or(-1), ctx.b.shape(x)?.len())?;
    let indices = match ctx.node.output(1) {
        Some(indices) => indices,
        None => ctx.b.push_n("top", Node { outputs: Vec::new(), ..ctx.node.clone() }, 2)?[1],
    };
    let dx = super::gather::scatter_elements_back(ctx.b, dy, x, indices, axis as i64)?;
    Ok(vec![Some(dx), None])
}
