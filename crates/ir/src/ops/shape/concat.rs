//! Putting tensors together along an axis, and taking them apart.
use crate::ops::layout;
use crate::{Array, Attr, Backward, Code, Data, Dim, Error, Eval, Fact, Infer, Node, Result, Value};

/// The axis that is put together; opsets before 4 let it be left out.
fn concat_axis(node: &Node, rank: usize) -> Result<usize> {
    layout::axis(node.int("axis")?.unwrap_or(1), rank)
}

pub(super) fn infer_concat(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let n = ctx.node.inputs.len();
    let shapes = (0..n).map(|i| ctx.shape(i)).collect::<Option<Vec<_>>>();
    let (Some(dtype), Some([first, rest @ ..])) = (ctx.dtype(0), shapes.as_deref()) else {
        return Ok(vec![Fact::of_dtype(ctx.dtype(0))]);
    };
    let axis = concat_axis(ctx.node, first.len())?;
    let mut dims = first.to_vec();
    for shape in rest {
        if shape.len() != dims.len() {
            return Err(ctx.mismatch(format!("ranks differ: {} and {}", dims.len(), shape.len())));
        }
        for (i, (dim, other)) in dims.iter_mut().zip(*shape).enumerate() {
            *dim = if i == axis {
                dim.clone() + other.clone()
            } else {
                ctx.same(dim, other, &format!("sizes of axis {i}"))?
            };
        }
    }
    let known = (0..n).map(|i| ctx.known(i)).collect::<Option<Vec<_>>>().map(|parts| parts.concat());
    Ok(vec![Fact::new(dtype, dims).with_known(known)])
}

pub(super) fn eval_concat(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let first = ctx.input(0)?;
    let axis = concat_axis(ctx.node, first.dims.len())?;
    let parts: Vec<&Array> = ctx.inputs().collect();
    for part in &parts {
        let fits = part.dims.len() == first.dims.len()
            && (0..first.dims.len()).all(|i| i == axis || part.dims[i] == first.dims[i]);
        if !fits || part.dtype != first.dtype {
            let message = format!(
                "{}{:?} and {}{:?} cannot be put together along axis {axis}",
                first.dtype, first.dims, part.dtype, part.dims
            );
            return Err(Error::new(Code::TYPES, message));
        }
    }
    let mut dims = first.dims.clone();
    dims[axis] = parts.iter().map(|p| p.dims[axis]).sum();
    layout::element_count(&dims)?;
    let outer = first.dims[..axis].iter().product();
    // Row by row of the axes before `axis`, the parts follow one another.
    let row = |part: &Array| part.dims[axis..].iter().product::<usize>();
    let y = match &first.data {
        Data::Float(_) => Data::Float(interleaved(outer, &floats(&parts)?, |i| row(parts[i]))),
        Data::Int(_) => Data::Int(interleaved(outer, &ints(&parts)?, |i| row(parts[i]))),
    };
    Ok(vec![Array { dtype: first.dtype, dims, data: y }])
}

fn floats<'a>(parts: &[&'a Array]) -> Result<Vec<&'a [f64]>> {
    parts.iter().map(|p| p.floats()).collect()
}

fn ints<'a>(parts: &[&'a Array]) -> Result<Vec<&'a [i64]>> {
    parts.iter().map(|p| p.ints()).collect()
}

fn interleaved<T: Copy>(outer: usize, parts: &[&[T]], row: impl Fn(usize) -> usize) -> Vec<T> {
    let rows = (0..outer).flat_map(|o| (0..parts.len()).map(move |i| (o, i)));
    rows.flat_map(|(o, i)| parts[i][o * row(i)..(o + 1) * row(i)].iter().copied()).collect()
}

/// `dy` split at the operands' sizes.
pub(super) fn vjp_concat(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let dy = ctx.dy()?;
    let parts: Vec<Value> = (0..ctx.node.inputs.len()).map(|i| ctx.input(i)).collect::<Result<_>>()?;
    if parts.len() == 1 {
        return Ok(vec![Some(dy)]);
    }
    let axis = concat_axis(ctx.node, ctx.b.shape(parts[0])?.len())?;
    let mut node = Node::new("Split", &[dy], &[]).with("axis", Attr::Int(axis as i64));
    let mut sizes = Vec::new();
    for &part in &parts {
        sizes.push(ctx.b.shape(part)?[axis].as_const());
    }
    match sizes.into_iter().collect::<Option<Vec<i64>>>() {
        Some(sizes) if ctx.b.opset() < 13 => node = node.with("split", Attr::Ints(sizes)),
        Some(sizes) => node.inputs.push(Some(ctx.b.ints("sizes", &sizes)?)),
        None if ctx.b.opset() < 13 => {
            let message = "its gradient splits at sizes known at run time, which needs opset 13";
            return Err(Error::new(Code::OPSET, message));
        }
        None => {
            let sizes = parts.iter().map(|&p| ctx.b.size_of(p, axis)).collect::<Result<Vec<_>>>()?;
            node.inputs.push(Some(ctx.b.concat("sizes", &sizes, 0)?));
        }
    }
    let gradients = ctx.b.push_n("part", node, parts.len())?;
    Ok(gradients.into_iter().map(Some).collect())
}

/// The sizes of the parts of an axis of size `whole`, where no operand gives them.
fn even_parts(node: &Node, whole: &Dim) -> Result<Option<Vec<Dim>>> {
    let outputs = node.outputs.len();
    let ragged = node.int("num_outputs")?;
    if let Some(n) = ragged.filter(|&n| usize::try_from(n) != Ok(outputs)) {
        let message = format!("attribute `num_outputs` is {n}, but the node has {outputs} outputs");
        return Err(Error::new(Code::ATTRIBUTE, message));
    }
    let n = Dim::from(outputs);
    let (Some(size), Some(count)) = (whole.as_const(), n.as_const().filter(|&n| n > 0)) else {
        return Ok(whole.div_exact(&n).map(|part| vec![part; outputs]));
    };
    let part = (size + count - 1) / count;
    let last = size - part * (count - 1);
    if last < 0 || (ragged.is_none() && last != part) {
        return Err(Error::new(
            Code::TYPES,
            format!("an axis of size {size} does not split into {count} parts"),
        ));
    }
    let mut parts = vec![Dim::from(part); outputs - 1];
    parts.push(Dim::from(last));
    Ok(Some(parts))
}

pub(super) fn infer_split(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let outputs = ctx.node.outputs.len();
    let (Some(dtype), Some(dims)) = (ctx.dtype(0), ctx.shape(0)) else {
        return Ok(vec![Fact::of_dtype(ctx.dtype(0)); outputs]);
    };
    let axis = layout::axis(ctx.node.int("axis")?.unwrap_or(0), dims.len())?;
    let attr = ctx.node.ints("split")?.map(|s| s.iter().map(|&n| Dim::from(n)).collect::<Vec<_>>());
    let sizes = match ctx.node.input(1) {
        Some(_) => ctx.known(1),
        None => attr.map_or_else(|| even_parts(ctx.node, &dims[axis]), |sizes| Ok(Some(sizes)))?,
    };
    if let Some(sizes) = &sizes {
        check_parts(ctx, sizes, &dims[axis])?;
    }
    let mut facts = Vec::new();
    let mut start = Dim::default();
    for i in 0..outputs {
        let mut part = dims.to_vec();
        part[axis] = sizes.as_ref().map_or_else(|| ctx.unknown(i, axis), |s| s[i].clone());
        let end = start + part[axis].clone();
        let known = ctx
            .known(0)
            .and_then(|k| Some(k.get(end.as_size()? - part[axis].as_size()?..end.as_size()?)?.to_vec()));
        facts.push(Fact::new(dtype, part).with_known(known));
        start = end;
    }
    Ok(facts)
}

fn check_parts(ctx: &Infer<'_>, sizes: &[Dim], whole: &Dim) -> Result<()> {
    let outputs = ctx.node.outputs.len();
    if sizes.len() != outputs {
        return Err(ctx.mismatch(format!("{} sizes for {outputs} outputs", sizes.len())));
    }
    let sum = sizes.iter().cloned().fold(Dim::default(), |sum, d| sum + d);
    if sum.never_equals(whole) || sizes.iter().any(|d| d.as_const().is_some_and(|n| n < 0)) {
        return Err(ctx.mismatch(format!("the parts' sizes sum to {sum}, the axis has {whole}")));
    }
    Ok(())
}

pub(super) fn eval_split(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let x = ctx.input(0)?;
    let axis = layout::axis(ctx.node.int("axis")?.unwrap_or(0), x.dims.len())?;
    let given = ctx.ints_at(1, "split")?.map(|sizes| layout::sizes(&sizes)).transpose()?;
    let even = || even_parts(ctx.node, &x.dims[axis].into());
    let sizes = match given {
        Some(sizes) => sizes,
        None => even()?.into_iter().flatten().filter_map(|d| d.as_size()).collect(),
    };
    let total = sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    if total != Some(x.dims[axis]) || sizes.len() != ctx.node.outputs.len() {
        let message = format!(
            "parts of sizes {sizes:?} for an axis of size {} and {} outputs",
            x.dims[axis],
            ctx.node.outputs.len()
        );
        return Err(Error::new(Code::TYPES, message));
    }
    let strides = layout::strides(&x.dims);
    let mut start = 0;
    let mut parts = Vec::new();
    for size in sizes {
        let mut dims = x.dims.clone();
        dims[axis] = size;
        let source = |position: &[usize]| Ok(layout::offset(position, &strides) + start * strides[axis]);
        parts.push(layout::select(x, dims, source)?);
        start += size;
    }
    Ok(parts)
}

/// The results' gradients put together, with zeros for results that nothing flows back into.
pub(super) fn vjp_split(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let x = ctx.input(0)?;
    let mut parts = ctx.dy.to_vec();
    if parts.iter().any(Option::is_none) {
        let zeros = ctx.b.zeros_like(x)?;
        let mut split = Node { outputs: Vec::new(), ..ctx.node.clone() };
        split.inputs[0] = Some(zeros);
        let zeros = ctx.b.push_n("zeros", split, parts.len())?;
        parts.iter_mut().zip(zeros).for_each(|(part, zero)| *part = part.or(Some(zero)));
    }
    let parts: Vec<Value> = parts.into_iter().flatten().collect();
    let axis = ctx.node.int("axis")?.unwrap_or(0);
    Ok(vec![Some(ctx.b.concat("joined", &parts, axis)?), None])
}
