//! Running sums.
use crate::ops::layout;
use crate::{Array, Attr, Backward, Code, Data, Error, Eval, Fact, Infer, Node, Result, Value};

pub(super) fn infer_cumsum(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    if let (Some(axis), Some(rank)) = (ctx.known_ints(1), ctx.rank(0)) {
        axis.iter().try_for_each(|&axis| layout::axis(axis, rank).map(drop))?;
    }
    Ok(vec![Fact { ty: ctx.ty(0).cloned(), known: None }])
}

pub(super) fn eval_cumsum(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, axis) = (ctx.input(0)?, ctx.input(1)?.ints()?);
    let [axis] = axis else {
        return Err(Error::new(Code::TYPES, format!("expected one axis, found {}", axis.len())));
    };
    let axis = layout::axis(*axis, x.dims.len())?;
    let exclusive = ctx.node.int("exclusive")?.unwrap_or(0) != 0;
    let reverse = ctx.node.int("reverse")?.unwrap_or(0) != 0;
    let (size, stride) = (x.dims[axis], layout::strides(&x.dims)[axis]);
    let data = match &x.data {
        Data::Float(v) => Data::Float(running(v, size, stride, exclusive, reverse, |a, b| a + b)),
        Data::Int(v) => Data::Int(running(v, size, stride, exclusive, reverse, i64::wrapping_add)),
    };
    Ok(vec![Array { data, ..x.clone() }])
}

/// Running sums along the axis of `size` elements that lie `stride` apart.
fn running<T: Copy + Default>(
    x: &[T],
    size: usize,
    stride: usize,
    exclusive: bool,
    reverse: bool,
    add: impl Fn(T, T) -> T,
) -> Vec<T> {
    let mut y = vec![T::default(); x.len()];
    let firsts = (0..x.len()).filter(|i| (i / stride).is_multiple_of(size));
    for first in firsts {
        let mut sum = T::default();
        for step in 0..size {
            let i = first + stride * if reverse { size - 1 - step } else { step };
            let with_own = add(sum, x[i]);
            y[i] = if exclusive { sum } else { with_own };
            sum = with_own;
        }
    }
    y
}

/// The running sum of `dy` from the other end.
pub(super) fn vjp_cumsum(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, axis) = (ctx.dy()?, ctx.input(1)?);
    let reverse = ctx.node.int("reverse")?.unwrap_or(0);
    let node = Node { attrs: ctx.node.attrs.clone(), ..Node::new("CumSum", &[dy, axis], &[]) };
    let node = node.with("reverse", Attr::Int(i64::from(reverse == 0)));
    Ok(vec![Some(ctx.b.push("cumsum", node)?), None])
}
