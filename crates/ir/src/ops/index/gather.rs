//! Reading elements at given positions.
use super::{gather_grad, scatter_back};
use crate::ops::layout;
use crate::{Array, Attr, Backward, Builder, Code, Error, Eval, Fact, Infer, Node, Result, Value};

pub(super) fn infer_gather(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let (Some(dtype), Some(dims), Some(indices)) = (ctx.dtype(0), ctx.shape(0), ctx.shape(1)) else {
        return Ok(vec![Fact::of_dtype(ctx.dtype(0))]);
    };
    let axis = layout::axis(ctx.node.int("axis")?.unwrap_or(0), dims.len())?;
    let known = ctx.known_ints(1).filter(|_| indices.len() <= 1);
    if let (Some(known), Some(size)) = (&known, dims[axis].as_size()) {
        known.iter().try_for_each(|&i| layout::index(i, size).map(drop))?;
    }
    let shape = [&dims[..axis], indices, &dims[axis + 1..]].concat();
    let elements = ctx.known(0).filter(|_| dims.len() == 1).zip(known).and_then(|(all, known)| {
        known.iter().map(|&i| all.get(layout::index(i, all.len()).ok()?).cloned()).collect()
    });
    Ok(vec![Fact::new(dtype, shape).with_known(elements)])
}

pub(super) fn eval_gather(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, indices) = (ctx.input(0)?, ctx.input(1)?);
    let axis = layout::axis(ctx.node.int("axis")?.unwrap_or(0), x.dims.len())?;
    let size = x.dims[axis];
    let rows = indices.ints()?.iter().map(|&i| layout::index(i, size)).collect::<Result<Vec<_>>>()?;
    let (strides, index_strides) = (layout::strides(&x.dims), layout::strides(&indices.dims));
    let behind = axis + indices.dims.len();
    let source = |p: &[usize]| {
        let row = rows[layout::offset(&p[axis..behind], &index_strides)];
        let (before, after) = (&p[..axis], &p[behind..]);
        let outer = layout::offset(before, &strides) + layout::offset(after, &strides[axis + 1..]);
        Ok(outer + row * strides[axis])
    };
    let dims = [&x.dims[..axis], &indices.dims, &x.dims[axis + 1..]].concat();
    Ok(vec![layout::select(x, dims, source)?])
}

pub(super) fn vjp_gather(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, x, indices) = (ctx.dy()?, ctx.input(0)?, ctx.input(1)?);
    let axis = layout::axis(ctx.node.int("axis")?.unwrap_or(0), ctx.b.shape(x)?.len())?;
    let shape = ctx.b.shape_of(x)?;
    Ok(vec![Some(gather_grad(ctx.b, dy, indices, shape, axis)?), None])
}

pub(super) fn infer_gather_elements(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    if let (Some(x), Some(indices)) = (ctx.rank(0), ctx.rank(1))
        && x != indices
    {
        return Err(ctx.mismatch(format!("ranks differ: {x} and {indices}")));
    }
    Ok(vec![match (ctx.dtype(0), ctx.shape(1)) {
        (Some(dtype), Some(dims)) => Fact::new(dtype, dims.to_vec()),
        (dtype, _) => Fact::of_dtype(dtype),
    }])
}

/// For each element of `indices` the offset of the element of a tensor of sizes `dims` that it names along `axis`.
pub(super) fn element_offsets(dims: &[usize], indices: &Array, axis: i64) -> Result<Vec<usize>> {
    let axis = layout::axis(axis, dims.len())?;
    let fits = indices.dims.len() == dims.len()
        && (0..dims.len()).all(|i| i == axis || indices.dims[i] <= dims[i] || indices.is_empty());
    if !fits {
        let message = format!("indices of sizes {:?} do not fit {dims:?} along axis {axis}", indices.dims);
        return Err(Error::new(Code::TYPES, message));
    }
    let strides = layout::strides(dims);
    let mut along = indices.ints()?.iter();
    let mut offsets = Vec::with_capacity(indices.len());
    layout::each_position(&indices.dims, |p| {
        let index = along.next().map_or(Ok(0), |&i| layout::index(i, dims[axis]))?;
        offsets.push(layout::offset(p, &strides) - p[axis] * strides[axis] + index * strides[axis]);
        Ok(())
    })?;
    Ok(offsets)
}

pub(super) fn eval_gather_elements(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, indices) = (ctx.input(0)?, ctx.input(1)?);
    let offsets = element_offsets(&x.dims, indices, ctx.node.int("axis")?.unwrap_or(0))?;
    let strides = layout::strides(&indices.dims);
    let source = |p: &[usize]| Ok(offsets[layout::offset(p, &strides)]);
    Ok(vec![layout::select(x, indices.dims.clone(), source)?])
}

pub(super) fn vjp_gather_elements(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, x, indices) = (ctx.dy()?, ctx.input(0)?, ctx.input(1)?);
    let axis = ctx.node.int("axis")?.unwrap_or(0);
    Ok(vec![Some(scatter_elements_back(ctx.b, dy, x, indices, axis)?), None])
}

/// Zeros of the shape of `x` with the elements of `dy` added at `indices` along `axis`.
pub(super) fn scatter_elements_back(
    b: &mut Builder<'_>,
    dy: Value,
    x: Value,
    indices: Value,
    axis: i64,
) -> Result<Value> {
    // Only from opset 16 on can a scatter add.
    if b.opset() < 16 {
        let node = Node::new("GatherElements", &[], &[]).with("axis", Attr::Int(axis));
        return scatter_back(b, dy, x, |b, offsets| {
            b.push("offsets", Node { inputs: vec![Some(offsets), Some(indices)], ..node })
        });
    }
    let zeros = b.zeros_like(x)?;
    let node = Node::new("ScatterElements", &[zeros, indices, dy], &[])
        .with("axis", Attr::Int(axis))
        .with("reduction", Attr::Str("add".into()));
    b.push("scattered", node)
}

/// The number of leading axes that `GatherND` goes along in step.
fn batch_dims(node: &Node, rank: usize, index_rank: usize) -> Result<usize> {
    let n = node.int("batch_dims")?.unwrap_or(0);
    let fits = |&n: &usize| n < rank && n < index_rank;
    let wrong =
        || Error::new(Code::ATTRIBUTE, format!("attribute `batch_dims` = {n} does not fit the ranks"));
    usize::try_from(n).ok().filter(fits).ok_or_else(wrong)
}

pub(super) fn infer_gather_nd(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let (Some(dtype), Some(dims), Some([index_dims @ .., depth])) =
        (ctx.dtype(0), ctx.shape(0), ctx.shape(1))
    else {
        return Ok(vec![Fact::of_dtype(ctx.dtype(0))]);
    };
    let batch = batch_dims(ctx.node, dims.len(), index_dims.len() + 1)?;
    for (i, (a, b)) in dims.iter().zip(index_dims).enumerate().take(batch) {
        ctx.same(a, b, &format!("sizes of axis {i}"))?;
    }
    let Some(depth) = depth.as_size() else { return Ok(vec![Fact::of_dtype(Some(dtype))]) };
    let Some(behind) = depth.checked_add(batch).and_then(|from| dims.get(from..)) else {
        return Err(ctx.mismatch(format!("positions of {depth} indices for a tensor of rank {}", dims.len())));
    };
    Ok(vec![Fact::new(dtype, [index_dims, behind].concat())])
}

/// For each position in `indices` the offset in a tensor of sizes `dims` where what it names begins.
pub(super) fn position_offsets(dims: &[usize], indices: &Array, batch: usize) -> Result<Vec<usize>> {
    let unfit = || {
        let message = format!("positions of sizes {:?} do not fit a tensor of sizes {dims:?}", indices.dims);
        Error::new(Code::TYPES, message)
    };
    let (&depth, index_dims) = indices.dims.split_last().ok_or_else(unfit)?;
    if depth + batch > dims.len() || index_dims.get(..batch) != dims.get(..batch) {
        return Err(unfit());
    }
    let strides = layout::strides(dims);
    let elements = indices.ints()?;
    let mut offsets = Vec::new();
    let mut next = 0;
    layout::each_position(index_dims, |p| {
        let mut offset = layout::offset(&p[..batch], &strides);
        for (axis, &i) in (batch..).zip(&elements[next..next + depth]) {
            offset += layout::index(i, dims[axis])? * strides[axis];
        }
        next += depth;
        offsets.push(offset);
        Ok(())
    })?;
    Ok(offsets)
}

pub(super) fn eval_gather_nd(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, indices) = (ctx.input(0)?, ctx.input(1)?);
    let batch = batch_dims(ctx.node, x.dims.len(), indices.dims.len())?;
    let offsets = position_offsets(&x.dims, indices, batch)?;
    let (&depth, index_dims) = indices.dims.split_last().unwrap_or((&0, &[]));
    let behind = batch + depth;
    let (strides, index_strides) = (layout::strides(&x.dims), layout::strides(index_dims));
    let source = |p: &[usize]| {
        let (at, rest) = p.split_at(index_dims.len());
        Ok(offsets[layout::offset(at, &index_strides)] + layout::offset(rest, &strides[behind..]))
    };
    Ok(vec![layout::select(x, [index_dims, &x.dims[behind..]].concat(), source)?])
}

pub(super) fn vjp_gather_nd(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, x) = (ctx.dy()?, ctx.input(0)?);
    let mut node = Node { outputs: Vec::new(), ..ctx.node.clone() };
    let dx = scatter_back(ctx.b, dy, x, |b, offsets| {
        node.inputs[0] = Some(offsets);
        b.push("offsets", node)
    })?;
    Ok(vec![Some(dx), None])
}
