//! Numbers that a graph multiplies by: constants, and what exporters compute of the size of a head.
use crate::rewrite::Sites;
use graft_ir::{Data, Value, infer};

/// The only element of a constant.
pub(super) fn constant(sites: &Sites<'_>, v: Value) -> Option<f64> {
    match sites.constant(v)?.data {
        Data::Float(x) if x.len() == 1 => Some(x[0]),
        Data::Int(x) if x.len() == 1 => Some(x[0] as f64),
        _ => None,
    }
}

/// The number that `v` is in every run, where it has one element: a constant, a known size, or roots, quotients, products and
/// powers of such.
pub(super) fn factor(sites: &Sites<'_>, v: Value) -> Option<f64> {
    number(sites, v, 8).filter(|x| x.is_finite() && *x != 0.0)
}

fn number(sites: &Sites<'_>, v: Value, depth: usize) -> Option<f64> {
    let single = sites.graph.shape(v)?.iter().all(|d| d.as_const() == Some(1));
    let depth = depth.checked_sub(1).filter(|_| single)?;
    if let Some(x) = constant(sites, v) {
        return Some(x);
    }
    if let Some([size]) = infer::known(sites.graph, v).as_deref() {
        return size.as_const().map(|n| n as f64);
    }
    let node = sites.node(v)?;
    let operand = |i: usize| node.input(i).and_then(|v| number(sites, v, depth));
    match &*node.op {
        "Cast" | "CastLike" | "Reshape" | "Squeeze" | "Unsqueeze" => operand(0),
        "Sqrt" => operand(0).map(f64::sqrt),
        "Reciprocal" => operand(0).map(f64::recip),
        "Div" => Some(operand(0)? / operand(1)?),
        "Mul" => Some(operand(0)? * operand(1)?),
        "Pow" => Some(operand(0)?.powf(operand(1)?)),
        _ => None,
    }
}
