//! Functions of methods, evaluated on the weights of an adapter.
use super::{Adapter, Method};
use crate::ranks;
use graft_ir::{Array, Code, Error, Function, Graph, Node, Precision, Result, Tensor, eval::eval, library};
use std::collections::BTreeMap;

/// What `graft.MStats` makes of an adapter's weights as they are on `graph`, where as many of its ranks count as it was made
/// with; `None` where it takes more than weights.
///
/// # Errors
/// [`Code::METHOD`] for an unknown method or variant.
pub fn statistics(graph: &Graph, adapter: &Adapter) -> Result<Option<Vec<f64>>> {
    let method = Method::named(&adapter.method)?;
    let Some(function) = method.companion(&adapter.config()?, "Stats")? else { return Ok(None) };
    let mut operands: BTreeMap<String, Tensor> = ranks::weights(graph, &adapter.target)
        .into_iter()
        .filter_map(|(role, v)| Some((role, graph[v].tensor.clone()?)))
        .collect();
    let width = ranks::width(graph, &adapter.target).unwrap_or(adapter.rank);
    let counts: Vec<f32> = (0..width).map(|k| f32::from(u8::from(k < adapter.rank))).collect();
    operands.insert(ranks::MASK.into(), Tensor::f32(&[width], &counts));
    let body = &function.body;
    if body.inputs.iter().any(|&v| !operands.contains_key(body.name(v))) {
        return Ok(None);
    }
    Ok(evaluated(function, &operands)?.first().and_then(|(_, tensor)| tensor.to_f64()))
}

/// The body of a function with the attributes of `call`, and the library's functions that it calls.
pub(crate) fn bound(function: &Function, call: &Node) -> Result<Graph> {
    let mut body = function.bind(call)?;
    let calls: Vec<String> =
        body.nodes.iter().map(|n| n.op.clone()).filter(|op| op.starts_with("graft.")).collect();
    calls.iter().try_for_each(|op| library::require(&mut body, op))?;
    Ok(body)
}

/// The results of a function, by name, of operands by name.
pub(super) fn evaluated(
    function: &Function,
    operands: &BTreeMap<String, Tensor>,
) -> Result<Vec<(String, Tensor)>> {
    let body = bound(function, &Node::default())?;
    let feed = |v| {
        let lost = || Error::new(Code::ADAPTER, format!("the adapter has no weight `{}`", body.name(v)));
        Array::from_tensor(operands.get(body.name(v)).ok_or_else(lost)?).map(Some)
    };
    let feeds = body.inputs.iter().map(|&v| feed(v)).collect::<Result<Vec<_>>>()?;
    let results = eval(&body, &feeds, Precision::Native)?;
    let named = body.outputs.iter().map(|&v| body.name(v).to_string());
    named.zip(results).map(|(name, array)| Ok((name, array.to_tensor()?))).collect()
}
