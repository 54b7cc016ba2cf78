//! Ops that keep every element in its place and only name other sizes.
use crate::ops::{generate::refuse_negative, layout};
use crate::{Array, Backward, Code, Dim, Error, Eval, Fact, Infer, Node, Result, Value, count, product};

pub(super) fn infer_reshape(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let old = ctx.node.ints("shape")?.map(|s| s.iter().map(|&n| Dim::from(n)).collect());
    let Some(target) = old.or_else(|| ctx.known(1)) else {
        // Without the sizes, the number of sizes still gives the rank.
        let shape = if ctx.node.input(1).is_some() { ctx.shape_in(1, 0) } else { None };
        return Ok(vec![with_shape(ctx, shape)]);
    };
    let dims = resolve(ctx, &target)?;
    if let Some(from) = ctx.shape(0) {
        let (from, to) = (product(from), product(&dims));
        if from.never_equals(&to) {
            return Err(ctx.mismatch(format!("{from} elements do not fit the shape {}", listed(&dims))));
        }
    }
    Ok(vec![with_shape(ctx, Some(dims))])
}

/// The sizes that `target` asks for. A symbolic size is taken as it stands: only an empty tensor could tell it from
/// the number 0, which copies.
fn resolve(ctx: &Infer<'_>, target: &[Dim]) -> Result<Vec<Dim>> {
    let copies_zero = ctx.node.int("allowzero")?.unwrap_or(0) == 0;
    let numbers: Vec<Option<i64>> = target.iter().map(Dim::as_const).collect();
    let solved = solved_axis(&numbers)?;
    let mut dims = target.to_vec();
    for (i, n) in numbers.iter().enumerate() {
        if *n == Some(0) && copies_zero {
            dims[i] = match ctx.shape(0) {
                Some(from) => from.get(i).cloned().ok_or_else(|| nothing_to_copy(i))?,
                None => ctx.unknown(0, i),
            };
        }
    }
    if let Some(i) = solved {
        dims[i] = Dim::from(1i64);
        let rest = product(&dims);
        let total = ctx.shape(0).map(product);
        if let (Some(total), Some(rest)) = (total.as_ref().and_then(Dim::as_const), rest.as_const())
            && (rest == 0 || total % rest != 0)
        {
            return Err(ctx.mismatch(format!("{total} elements do not divide by {rest}")));
        }
        dims[i] = total.and_then(|t| t.div_exact(&rest)).unwrap_or_else(|| ctx.unknown(0, i));
    }
    Ok(dims)
}

/// The axis whose size is -1, to be solved for; an error if there are two, or other negative sizes.
fn solved_axis(target: &[Option<i64>]) -> Result<Option<usize>> {
    if let Some(n) = target.iter().flatten().find(|&&n| n < -1) {
        return Err(Error::new(Code::VALUE, format!("{n} is no size; expected -1 or more")));
    }
    let mut solved = target.iter().enumerate().filter(|(_, n)| **n == Some(-1)).map(|(i, _)| i);
    match (solved.next(), solved.next()) {
        (_, Some(_)) => {
            Err(Error::new(Code::VALUE, "two sizes are -1, of which one at most can be solved for"))
        }
        (first, None) => Ok(first),
    }
}

fn nothing_to_copy(axis: usize) -> Error {
    Error::new(Code::VALUE, format!("size 0 of axis {axis} copies a size, but the operand has no such axis"))
}

fn listed(dims: &[Dim]) -> String {
    format!("[{}]", dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(", "))
}

/// Operand 0's elements under another shape.
fn with_shape(ctx: &Infer<'_>, shape: Option<Vec<Dim>>) -> Fact {
    let rank = shape.as_ref().map(Vec::len);
    let fact = match (ctx.dtype(0), shape) {
        (Some(dtype), Some(shape)) => Fact::new(dtype, shape),
        (dtype, _) => Fact::of_dtype(dtype),
    };
    fact.with_known(ctx.known(0).filter(|_| rank.is_some_and(|r| r <= 1)))
}

pub(super) fn eval_reshape(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let x = ctx.input(0)?;
    let target = ctx.ints_at(1, "shape")?.ok_or_else(|| Error::new(Code::TYPES, "operand 1 is missing"))?;
    let copies_zero = ctx.node.int("allowzero")?.unwrap_or(0) == 0;
    let numbers: Vec<Option<i64>> = target.iter().copied().map(Some).collect();
    let solved = solved_axis(&numbers)?;
    let mut dims = Vec::new();
    for (i, &n) in target.iter().enumerate() {
        dims.push(match n {
            0 if copies_zero => *x.dims.get(i).ok_or_else(|| nothing_to_copy(i))?,
            -1 => 1,
            n => n as usize,
        });
    }
    let unfit = |dims: &[usize]| {
        let message = format!("{:?} cannot take the shape {target:?}: {dims:?} is not {}", x.dims, x.len());
        Error::new(Code::TYPES, message)
    };
    if let Some(i) = solved {
        let rest = count(&dims).filter(|&n| n > 0 && x.len() % n == 0).ok_or_else(|| unfit(&dims))?;
        dims[i] = x.len() / rest;
    }
    if count(&dims) != Some(x.len()) {
        return Err(unfit(&dims));
    }
    Ok(vec![Array { dims, ..x.clone() }])
}

/// The gradient of any op of this file: the same elements under the operand's shape.
pub(super) fn vjp_reshape(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, x) = (ctx.dy()?, ctx.input(0)?);
    Ok(vec![Some(ctx.b.reshape_like(dy, x)?)])
}

/// The first axis that goes to the columns; unlike an axis of other ops it may equal the rank.
fn flatten_axis(node: &Node, rank: usize) -> Result<usize> {
    match node.int("axis")?.unwrap_or(1) {
        n if n >= 0 && usize::try_from(n) == Ok(rank) => Ok(rank),
        n => layout::axis(n, rank),
    }
}

pub(super) fn infer_flatten(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let shape = match ctx.shape(0) {
        Some(dims) => {
            let (rows, columns) = dims.split_at(flatten_axis(ctx.node, dims.len())?);
            Some(vec![product(rows), product(columns)])
        }
        None => ctx.unknowns(0, 2),
    };
    Ok(vec![with_shape(ctx, shape)])
}

pub(super) fn eval_flatten(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let x = ctx.input(0)?;
    let (rows, columns) = x.dims.split_at(flatten_axis(ctx.node, x.dims.len())?);
    Ok(vec![Array { dims: vec![rows.iter().product(), columns.iter().product()], ..x.clone() }])
}

/// `dims` with 1 at each of `axes`, which are positions in the result.
fn unsqueezed<T: Clone>(dims: &[T], axes: &[i64], one: T) -> Result<Vec<T>> {
    let rank = dims.len() + axes.len();
    let axes = layout::axes(axes, rank)?;
    let mut old = dims.iter().cloned();
    let mut size = |axis| if axes.contains(&axis) { Some(one.clone()) } else { old.next() };
    Ok((0..rank).filter_map(&mut size).collect())
}

fn no_axes() -> Error {
    Error::new(Code::TYPES, "no axes are given")
}

pub(super) fn infer_unsqueeze(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let shape = match (ctx.shape(0), ctx.ints_at(1, "axes")?) {
        (Some(dims), Some(axes)) => Some(unsqueezed(dims, &axes, Dim::from(1i64))?),
        (Some(dims), None) => match ctx.shape(1) {
            Some([n]) => n.as_size().and_then(|n| ctx.unknowns(0, dims.len().checked_add(n)?)),
            _ => None,
        },
        _ => None,
    };
    Ok(vec![with_shape(ctx, shape)])
}

pub(super) fn eval_unsqueeze(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let x = ctx.input(0)?;
    let axes = ctx.ints_at(1, "axes")?.ok_or_else(no_axes)?;
    Ok(vec![Array { dims: unsqueezed(&x.dims, &axes, 1)?, ..x.clone() }])
}

pub(super) fn vjp_unsqueeze(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    match ctx.ints_at(1, "axes")? {
        Some(axes) => {
            let dy = ctx.dy()?;
            Ok(vec![Some(ctx.b.squeeze(dy, &axes)?), None])
        }
        None => vjp_reshape(ctx),
    }
}

/// The axes that a `Squeeze` removes: those given, or else every axis of size 1; `None` where that is not provable.
fn squeezed_axes(dims: &[Dim], given: Option<&[i64]>) -> Result<Option<Vec<usize>>> {
    if let Some(axes) = given {
        return layout::axes(axes, dims.len()).map(Some);
    }
    let one = Dim::from(1i64);
    let plain = dims.iter().all(|d| *d == one || d.never_equals(&one));
    Ok(plain.then(|| (0..dims.len()).filter(|&i| dims[i] == one).collect()))
}

fn without<T: Clone>(dims: &[T], axes: &[usize]) -> Vec<T> {
    dims.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| d.clone()).collect()
}

pub(super) fn infer_squeeze(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let given = ctx.ints_at(1, "axes")?;
    let Some(dims) = ctx.shape(0).filter(|_| given.is_some() || ctx.node.input(1).is_none()) else {
        return Ok(vec![Fact::of_dtype(ctx.dtype(0))]);
    };
    let axes = squeezed_axes(dims, given.as_deref())?;
    let one = Dim::from(1i64);
    if let Some(&axis) = axes.iter().flatten().find(|&&i| dims[i].never_equals(&one)) {
        return Err(ctx.mismatch(format!("axis {axis} has size {}, expected 1", dims[axis])));
    }
    Ok(vec![with_shape(ctx, axes.map(|axes| without(dims, &axes)))])
}

pub(super) fn eval_squeeze(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let x = ctx.input(0)?;
    let axes = match ctx.ints_at(1, "axes")? {
        Some(axes) => layout::axes(&axes, x.dims.len())?,
        None => (0..x.dims.len()).filter(|&i| x.dims[i] == 1).collect(),
    };
    if let Some(&axis) = axes.iter().find(|&&i| x.dims[i] != 1) {
        return Err(Error::new(Code::TYPES, format!("axis {axis} of {:?} is not of size 1", x.dims)));
    }
    Ok(vec![Array { dims: without(&x.dims, &axes), ..x.clone() }])
}

pub(super) fn vjp_squeeze(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let x = ctx.input(0)?;
    let given = ctx.ints_at(1, "axes")?;
    let all = given.is_none() && ctx.node.input(1).is_none();
    let axes = match ctx.b.graph.shape(x) {
        Some(dims) if given.is_some() || all => squeezed_axes(dims, given.as_deref())?,
        _ => None,
    };
    match axes {
        Some(axes) => {
            let (dy, axes) = (ctx.dy()?, axes.iter().map(|&a| a as i64).collect::<Vec<_>>());
            Ok(vec![Some(ctx.b.unsqueeze(dy, &axes)?), None])
        }
        None => vjp_reshape(ctx),
    }
}

/// The sizes in `dims`, refused if one is a negative number.
pub(super) fn checked(dims: Vec<Dim>) -> Result<Vec<Dim>> {
    refuse_negative(&dims)?;
    Ok(dims)
}
