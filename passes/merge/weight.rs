//! The weight of a linear as the model stores it, and its replacement.
use super::Merged;
use crate::{Linear, target};
use graft_ir::{Array, Attr, Builder, Code, Error, Graph, Node, Result, Tensor, Value};

/// Ops that only move or re-type a weight, so that a new weight can be put behind them.
const INVERTIBLE: &[&str] = &["Cast", "Identity", "Transpose"];

/// The weight of `linear`, whose node is `node`, as (in, out) with the node's `alpha` in it.
///
/// # Errors
/// Where it is not known, or is not the stored tensor in another form.
pub(super) fn of(graph: &Graph, linear: &Linear, node: &Node) -> Result<Array> {
    from_stored(linear, &stored(graph, linear)?, alpha(node)?)
}

/// The factor of a linear's product.
pub(super) fn alpha(node: &Node) -> Result<f64> {
    Ok(node.float("alpha")?.map_or(1.0, f64::from))
}

/// The stored weight of `linear`; an error where none can be put in its place.
fn stored(graph: &Graph, linear: &Linear) -> Result<Tensor> {
    if let Some(step) = linear.steps.iter().find(|s| !INVERTIBLE.contains(&s.as_str())) {
        let message = format!("weight `{}` stands behind `{step}`, which cannot be undone", linear.weight);
        return Err(
            Error::new(Code::MERGE, message).help("keep the adapter beside it: `graft inject --adapter`")
        );
    }
    if !linear.dtype.is_float() {
        let message = format!("weight `{}` is quantised ({})", linear.weight, linear.dtype);
        return Err(Error::new(Code::MERGE, message));
    }
    let elided = || Error::new(Code::VALUE, format!("the data of weight `{}` is elided", linear.weight));
    let tensor = target::weight(graph, linear).ok_or_else(elided)?;
    if !target::is_finite(tensor) {
        let message = format!("weight `{}` holds NaN or infinite values", linear.weight);
        return Err(Error::new(Code::NON_FINITE, message));
    }
    Ok(tensor.clone())
}

/// The weight as (in, out), with the node's `alpha` in it.
fn from_stored(linear: &Linear, tensor: &Tensor, alpha: f64) -> Result<Array> {
    let array = Array::from_tensor(tensor)?;
    let array = if is_flipped(linear) { transposed(&array)? } else { array };
    let scaled = array.floats()?.iter().map(|w| w * alpha).collect();
    Ok(Array::float(array.dtype, array.dims.clone(), scaled))
}

/// The inverse of [`from_stored`], rounded to the stored element type.
pub(super) fn to_stored(linear: &Linear, weight: Array, alpha: f64) -> Result<Tensor> {
    let scaled = weight.floats()?.iter().map(|w| w / alpha).collect();
    let array = Array::float(linear.dtype, weight.dims.clone(), scaled);
    if is_flipped(linear) { transposed(&array)?.to_tensor() } else { array.to_tensor() }
}

fn is_flipped(linear: &Linear) -> bool {
    linear.layout == "(out, in)"
}

fn transposed(array: &Array) -> Result<Array> {
    let &[rows, columns] = &array.dims[..] else {
        return Err(Error::new(Code::MERGE, format!("expected a matrix, found {:?}", array.dims)));
    };
    let from = array.floats()?;
    let data = (0..columns).flat_map(|c| (0..rows).map(move |r| from[r * columns + c])).collect();
    Ok(Array::float(array.dtype, vec![columns, rows], data))
}

/// Puts a merged weight in place of the one behind its linears. What else reads the old weight keeps it.
pub(super) fn replace(graph: &mut Graph, merged: Merged) -> Result<()> {
    let Merged { path, results, tensor } = merged;
    let is_use = |node: &Node| node.output(0).is_some_and(|y| results.contains(&y));
    let uses: Vec<usize> = (0..graph.nodes.len()).filter(|&i| is_use(&graph.nodes[i])).collect();
    let lost = || Error::new(Code::MERGE, format!("linear `{path}` is not found again"));
    let mut operand = uses.first().and_then(|&i| graph.nodes[i].input(1)).ok_or_else(lost)?;
    let mut way = Way { readers: uses, operand: 1, chain: Vec::new() };
    let mut is_shared = n_readers(graph, operand) > way.readers.len();
    while let Some(i) = graph.nodes.iter().position(|n| n.defines().any(|v| v == operand)) {
        if graph.nodes[i].op == "Constant" {
            break;
        }
        match is_shared {
            true => way.chain.push(i),
            false => (way.readers, way.operand) = (vec![i], 0),
        }
        operand = graph.nodes[i].input(0).ok_or_else(lost)?;
        is_shared |= n_readers(graph, operand) > 1;
    }
    if is_shared {
        return give_own(graph, &way, &path, tensor);
    }
    let constant = graph.nodes.iter_mut().find(|n| n.output(0) == Some(operand));
    match constant {
        Some(node) => *node = std::mem::take(node).with("value", Attr::Tensor(tensor)),
        None => graph[operand].tensor = Some(tensor),
    }
    Ok(())
}

/// How many times `v` is read, as an output of the graph included.
fn n_readers(graph: &Graph, v: Value) -> usize {
    graph.nodes.iter().flat_map(Node::reads).chain(graph.outputs.iter().copied()).filter(|&r| r == v).count()
}

/// The way from a weight that others read too to the linears.
struct Way {
    /// The nodes that read the first shared value, in order: linears, or what stands before them and is theirs alone.
    readers: Vec<usize>,
    /// Which operand of theirs that is.
    operand: usize,
    /// The nodes that make that value of the weight, outermost first: they stay for the others.
    chain: Vec<usize>,
}

/// Gives the readers a weight of their own, behind copies of the nodes that others need too.
fn give_own(graph: &mut Graph, way: &Way, path: &str, tensor: Tensor) -> Result<()> {
    let first = way.readers.first().copied().unwrap_or(0);
    let mut b = Builder::new(graph);
    let mut rest = b.graph.nodes.split_off(first);
    let name = b.fresh(&format!("{path}.weight"));
    let mut operand = b.graph.add_param(name, tensor);
    b.scope(format!("{path}."));
    for &i in way.chain.iter().rev() {
        let mut node = Node { outputs: Vec::new(), origin: None, ..b.graph.nodes[i].clone() };
        node.inputs[0] = Some(operand);
        operand = b.push("weight", node)?;
    }
    for i in &way.readers {
        rest[i - first].inputs[way.operand] = Some(operand);
    }
    graph.nodes.append(&mut rest);
    Ok(())
}
