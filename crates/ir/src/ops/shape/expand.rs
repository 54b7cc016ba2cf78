//! Ops that repeat elements.
use super::reshape::checked;
use crate::ops::layout;
use crate::{Array, Backward, Code, Dim, Error, Eval, Fact, Infer, Result, Value, infer};

pub(super) fn infer_expand(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let (Some(dtype), Some(from), Some(to)) = (ctx.dtype(0), ctx.shape(0), ctx.shape_in(1, 0)) else {
        return Ok(vec![Fact::of_dtype(ctx.dtype(0))]);
    };
    let dims = ctx.broadcast(&[from, &checked(to)?])?;
    let known = ctx.known(0).and_then(|k| {
        if dims.len() == from.len() && dims == from { Some(k) } else { infer::repeat(&k, &dims) }
    });
    Ok(vec![Fact::new(dtype, dims).with_known(known)])
}

pub(super) fn eval_expand(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, to) = (ctx.input(0)?, layout::sizes(ctx.input(1)?.ints()?)?);
    let rank = to.len().max(x.dims.len());
    let padded = |dims: &[usize]| [vec![1; rank - dims.len()], dims.to_vec()].concat();
    let (from, to) = (padded(&x.dims), padded(&to));
    let mut dims = Vec::with_capacity(rank);
    for (&a, &b) in from.iter().zip(&to) {
        if a != b && a != 1 && b != 1 {
            return Err(Error::new(Code::TYPES, format!("{from:?} and {to:?} do not broadcast")));
        }
        dims.push(if a == 1 { b } else { a });
    }
    let repeat = |(&size, stride): (&usize, usize)| if size == 1 { 0 } else { stride };
    let strides: Vec<usize> = from.iter().zip(layout::strides(&from)).map(repeat).collect();
    Ok(vec![layout::select(x, dims, |position| Ok(layout::offset(position, &strides)))?])
}

pub(super) fn infer_tile(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let (Some(dtype), Some(dims)) = (ctx.dtype(0), ctx.shape(0)) else {
        return Ok(vec![Fact::of_dtype(ctx.dtype(0))]);
    };
    let Some(repeats) = ctx.known(1) else {
        let unknown = (0..dims.len()).map(|axis| ctx.unknown(0, axis)).collect();
        return Ok(vec![Fact::new(dtype, unknown)]);
    };
    if repeats.len() != dims.len() {
        return Err(ctx.mismatch(format!("{} repeats for {} axes", repeats.len(), dims.len())));
    }
    let dims = dims.iter().zip(checked(repeats)?).map(|(d, n)| d.clone() * n).collect();
    Ok(vec![Fact::new(dtype, dims)])
}

pub(super) fn eval_tile(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, repeats) = (ctx.input(0)?, layout::sizes(ctx.input(1)?.ints()?)?);
    if repeats.len() != x.dims.len() {
        let message = format!("{} repeats for the sizes {:?}", repeats.len(), x.dims);
        return Err(Error::new(Code::TYPES, message));
    }
    let absurd = |n: usize| Error::new(Code::VALUE, format!("{n} repeats are too many"));
    let scaled = |(&d, &n): (&usize, &usize)| d.checked_mul(n).ok_or_else(|| absurd(n));
    let dims = x.dims.iter().zip(&repeats).map(scaled).collect::<Result<Vec<_>>>()?;
    let strides = layout::strides(&x.dims);
    let source = |position: &[usize]| {
        let wrapped = position.iter().zip(&x.dims).map(|(p, d)| p % d);
        Ok(wrapped.zip(&strides).map(|(p, s)| p * s).sum())
    };
    Ok(vec![layout::select(x, dims, source)?])
}

/// `dy` seen as (repeat, size, repeat, size, …), summed over the repeats.
pub(super) fn vjp_tile(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, x, repeats) = (ctx.dy()?, ctx.input(0)?, ctx.input(1)?);
    let rank = ctx.b.shape(x)?.len();
    let known = infer::known(ctx.b.graph, repeats).zip(ctx.b.graph.shape(x).map(<[Dim]>::to_vec));
    let numbers = known.and_then(|(repeats, dims)| {
        repeats.iter().zip(&dims).flat_map(|(n, d)| [n.as_const(), d.as_const()]).collect::<Option<Vec<_>>>()
    });
    let split = match numbers {
        Some(numbers) => ctx.b.ints("split", &numbers)?,
        None => {
            let (sizes, one) = (ctx.b.shape_of(x)?, ctx.b.ints("flat", &[-1])?);
            let (repeats, sizes) = (ctx.b.unsqueeze(repeats, &[1])?, ctx.b.unsqueeze(sizes, &[1])?);
            let pairs = ctx.b.concat("pairs", &[repeats, sizes], 1)?;
            ctx.b.op("split", "Reshape", &[pairs, one])?
        }
    };
    let parts = ctx.b.reshape(dy, split)?;
    let axes: Vec<i64> = (0..rank as i64).map(|axis| 2 * axis).collect();
    let sum = ctx.b.reduce_sum(parts, &axes, false)?;
    Ok(vec![Some(sum), None])
}
