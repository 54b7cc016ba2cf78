//! Ops on axes as a whole: their order, and the triangles of the last two.
use crate::ops::layout;
use crate::{Array, Attr, Backward, Code, Data, Error, Eval, Fact, Infer, Node, Result, Value};

/// For each axis of the result the axis of the operand.
fn permutation(node: &Node, rank: usize) -> Result<Vec<usize>> {
    let Some(perm) = node.ints("perm")? else { return Ok((0..rank).rev().collect()) };
    let wrong = |e: Error| Error::new(Code::ATTRIBUTE, format!("attribute `perm` = {perm:?}: {}", e.message));
    let axes = layout::axes(perm, rank).map_err(wrong)?;
    if axes.len() == rank {
        Ok(axes)
    } else {
        Err(wrong(Error::new(Code::ATTRIBUTE, format!("expected {rank} axes"))))
    }
}

pub(super) fn infer_transpose(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let Some(dims) = ctx.shape(0) else { return Ok(vec![Fact::of_dtype(ctx.dtype(0))]) };
    let perm = permutation(ctx.node, dims.len()).map_err(|e| ctx.mismatch(e.message))?;
    let dims = perm.iter().map(|&axis| dims[axis].clone()).collect();
    // A permutation of fewer than two axes changes nothing.
    let known = ctx.known(0);
    Ok(ctx.dtype(0).map(|dtype| Fact::new(dtype, dims).with_known(known)).into_iter().collect())
}

pub(super) fn eval_transpose(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let x = ctx.input(0)?;
    let perm = permutation(ctx.node, x.dims.len())?;
    let strides = layout::strides(&x.dims);
    let strides: Vec<usize> = perm.iter().map(|&axis| strides[axis]).collect();
    let dims = perm.iter().map(|&axis| x.dims[axis]).collect();
    Ok(vec![layout::select(x, dims, |position| Ok(layout::offset(position, &strides)))?])
}

pub(super) fn vjp_transpose(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let dy = ctx.dy()?;
    let Some(perm) = ctx.node.ints("perm")? else {
        return Ok(vec![Some(ctx.b.op("transpose", "Transpose", &[dy])?)]);
    };
    let perm = layout::axes(perm, perm.len())?;
    let mut inverse = vec![0; perm.len()];
    for (i, &axis) in perm.iter().enumerate() {
        inverse[axis] = i;
    }
    Ok(vec![Some(ctx.b.transpose(dy, &inverse)?)])
}

pub(super) fn infer_trilu(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    match ctx.rank(0) {
        Some(rank) if rank < 2 => Err(ctx.mismatch(format!("expected matrices, found rank {rank}"))),
        _ => Ok(vec![Fact { ty: ctx.ty(0).cloned(), known: None }]),
    }
}

pub(super) fn eval_trilu(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let x = ctx.input(0)?;
    let &[.., rows, columns] = &x.dims[..] else {
        return Err(Error::new(Code::TYPES, format!("expected matrices, found sizes {:?}", x.dims)));
    };
    let k = match ctx.get(1) {
        Some(k) => k.ints()?.first().copied().unwrap_or(0),
        None => 0,
    };
    let upper = ctx.node.int("upper")?.unwrap_or(1) != 0;
    let kept = |i: usize| {
        let (row, column) = ((i / columns % rows) as i128, (i % columns) as i128);
        let diagonal = column - row - i128::from(k);
        if upper { diagonal >= 0 } else { diagonal <= 0 }
    };
    let mut y = x.clone();
    match &mut y.data {
        Data::Float(v) => v.iter_mut().enumerate().filter(|(i, _)| !kept(*i)).for_each(|(_, v)| *v = 0.0),
        Data::Int(v) => v.iter_mut().enumerate().filter(|(i, _)| !kept(*i)).for_each(|(_, v)| *v = 0),
    }
    Ok(vec![y])
}

pub(super) fn vjp_trilu(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let inputs = [&[Some(ctx.dy()?)], ctx.node.inputs.get(1..).unwrap_or_default()].concat();
    let upper = Attr::Int(ctx.node.int("upper")?.unwrap_or(1));
    let node = Node { inputs, ..Node::new("Trilu", &[], &[]) }.with("upper", upper);
    Ok(vec![Some(ctx.b.push("masked", node)?)])
}
