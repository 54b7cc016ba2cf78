//! Ops that read or write elements at positions held by other tensors, and ops that find positions.
use crate::{Attr, Builder, Code, Error, Node, OpDef, Result, Value, Vjp, product};

mod gather;
mod scan;
mod scatter;
mod search;

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    OpDef {
        name: "ArgMax",
        since: 1,
        infer: search::infer_arg,
        eval: Some(|ctx| search::eval_arg(ctx, |candidate, best| candidate > best)),
        vjp: Vjp::Zero,
        doc: "y = the index of the largest element along axis",
    },
    OpDef {
        name: "ArgMin",
        since: 1,
        infer: search::infer_arg,
        eval: Some(|ctx| search::eval_arg(ctx, |candidate, best| candidate < best)),
        vjp: Vjp::Zero,
        doc: "y = the index of the smallest element along axis",
    },
    OpDef {
        name: "CumSum",
        since: 11,
        infer: scan::infer_cumsum,
        eval: Some(scan::eval_cumsum),
        vjp: Vjp::Rule(scan::vjp_cumsum),
        doc: "y[i] = Σ x[j] over j ≤ i along axis (j < i if exclusive, j ≥ i if reverse)",
    },
    OpDef {
        name: "Gather",
        since: 1,
        infer: gather::infer_gather,
        eval: Some(gather::eval_gather),
        vjp: Vjp::Rule(gather::vjp_gather),
        doc: "y = x at the indices along axis",
    },
    OpDef {
        name: "GatherElements",
        since: 11,
        infer: gather::infer_gather_elements,
        eval: Some(gather::eval_gather_elements),
        vjp: Vjp::Rule(gather::vjp_gather_elements),
        doc: "y[…,j,…] = x[…,indices[…,j,…],…]",
    },
    OpDef {
        name: "GatherND",
        since: 11,
        infer: gather::infer_gather_nd,
        eval: Some(gather::eval_gather_nd),
        vjp: Vjp::Rule(gather::vjp_gather_nd),
        doc: "y[p] = x[indices[p]], the last axis of indices being a position",
    },
    OpDef {
        name: "NonZero",
        since: 9,
        infer: search::infer_non_zero,
        eval: Some(search::eval_non_zero),
        vjp: Vjp::Zero,
        doc: "y = the positions of the elements that are not 0, one column each",
    },
    OpDef {
        name: "OneHot",
        since: 9,
        infer: search::infer_one_hot,
        eval: Some(search::eval_one_hot),
        vjp: Vjp::Missing,
        doc: "y[…,j,…] = on if indices[…] = j else off",
    },
    OpDef {
        name: "ScatterElements",
        since: 11,
        infer: scatter::infer_scatter,
        eval: Some(scatter::eval_scatter_elements),
        vjp: Vjp::Rule(|ctx| scatter::vjp_scatter(ctx, "GatherElements")),
        doc: "y = x with y[…,indices[…,j,…],…] set to, or combined with, updates[…,j,…]",
    },
    OpDef {
        name: "ScatterND",
        since: 11,
        infer: scatter::infer_scatter,
        eval: Some(scatter::eval_scatter_nd),
        vjp: Vjp::Rule(|ctx| scatter::vjp_scatter(ctx, "GatherND")),
        doc: "y = x with y[indices[p]] set to, or combined with, updates[p]",
    },
    OpDef {
        name: "TopK",
        since: 1,
        infer: search::infer_top_k,
        eval: Some(search::eval_top_k),
        vjp: Vjp::Rule(search::vjp_top_k),
        doc: "y, indices = the k largest (or smallest) elements along axis, in order",
    },
];

/// Adds the rows of `dy` to zeros of the shape in `shape`, at `indices` along `axis`: the gradient of `Gather`.
pub(super) fn gather_grad(
    b: &mut Builder<'_>,
    dy: Value,
    indices: Value,
    shape: Value,
    axis: usize,
) -> Result<Value> {
    let untyped =
        || Error::new(Code::TYPES, format!("the element type of `{}` is not known", b.graph.name(dy)));
    let dtype = b.graph.dtype(dy).ok_or_else(untyped)?;
    let call = Node::new("graft.GatherGrad", &[dy, indices, shape], &[])
        .with("axis", Attr::Int(axis as i64))
        .with("to", Attr::Int(dtype as i64));
    Ok(b.call("gathered", call, 1)?[0])
}

/// The gradient of an op that only chooses elements of `x`: `choose` applies it to a tensor of the shape of `x` that
/// holds each element's own offset, which tells where each element of `dy` belongs.
pub(super) fn scatter_back(
    b: &mut Builder<'_>,
    dy: Value,
    x: Value,
    choose: impl FnOnce(&mut Builder<'_>, Value) -> Result<Value>,
) -> Result<Value> {
    let size = match b.graph.shape(x).and_then(|dims| product(dims).as_const()) {
        Some(n) => b.ints("size", &[n])?,
        None => {
            let size = b.op("size", "Size", &[x])?;
            b.unsqueeze(size, &[0])?
        }
    };
    let limit = b.squeeze(size, &[0])?;
    let (zero, one) = (b.scalar_like("zero", 0.0, limit)?, b.scalar_like("one", 1.0, limit)?);
    let offsets = b.op("offsets", "Range", &[zero, limit, one])?;
    let offsets = b.reshape_like(offsets, x)?;
    let chosen = choose(b, offsets)?;
    let flat = b.ints("flat", &[-1])?;
    let (chosen, dy) = (b.op("chosen", "Reshape", &[chosen, flat])?, b.op("dy", "Reshape", &[dy, flat])?);
    let dx = gather_grad(b, dy, chosen, size, 0)?;
    b.reshape_like(dx, x)
}
