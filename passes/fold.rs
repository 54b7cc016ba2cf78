//! Computes what does not depend on any input, once: constant folding.
use crate::{Context, Options, Pass, constant};
use graft_ir::{Array, Attr, DType, Graph, Node, Precision, Result, Tensor, Type, Value, eval::eval_node};
use std::collections::{HashMap, HashSet};

/// Option `limit=BYTES`: results that are larger stay computed (default 1 MiB).
pub const PASS: Pass =
    Pass { name: "fold", about: "computes what depends on constants only, up to a size limit", run: fold };

/// Results of up to this many bytes become `Constant` nodes, larger ones weights.
const MAX_CONSTANT: usize = 1024;

fn fold(graph: &Graph, options: &Options, ctx: &mut Context<'_>) -> Result<Graph> {
    options.expect_only(&["limit"])?;
    let limit = options.get_or("limit", 1 << 20)?;
    let constants = constant::values(graph);
    let mut known = weights(graph, &constants, limit);
    let mut out = Graph { nodes: Vec::new(), ..graph.clone() };
    let mut n = 0;
    for node in &graph.nodes {
        let results = folded(graph, node, &constants, &known, limit);
        let Some(results) = results.filter(|_| node.op != "Constant") else {
            known.extend(node.output(0).zip(constant::of_node(node)));
            out.nodes.push(node.clone());
            continue;
        };
        for (v, tensor) in results {
            known.insert(v, Array::from_tensor(&tensor)?);
            define(&mut out, node, v, tensor);
        }
        n += 1;
    }
    (ctx.log)(&format!("fold: {n} nodes computed"));
    Ok(out)
}

/// The data of constant weights that are small enough to compute with.
fn weights(graph: &Graph, constants: &HashSet<Value>, limit: usize) -> HashMap<Value, Array> {
    let small = |v: &&Value| constants.contains(v);
    let array = |&v: &Value| {
        let tensor = graph[v].tensor.as_ref().filter(|t| t.data().len() <= limit)?;
        Some((v, Array::from_tensor(tensor).ok()?))
    };
    graph.params.iter().filter(small).filter_map(array).collect()
}

/// The results of `node` as tensors; `None` if they are not constant, too large, or cannot be computed here.
fn folded(
    graph: &Graph,
    node: &Node,
    constants: &HashSet<Value>,
    known: &HashMap<Value, Array>,
    limit: usize,
) -> Option<Vec<(Value, Tensor)>> {
    // Sizes may be known although what they are the sizes of is not.
    if let [Some(v)] = node.outputs[..]
        && let Some(tensor) = from_shapes(graph, v)
    {
        return Some(vec![(v, tensor)]);
    }
    let fits = |v: Value| graph[v].ty.as_ref().and_then(n_bytes).is_some_and(|n| n <= limit);
    if !node.defines().all(|v| constants.contains(&v) && fits(v)) {
        return None;
    }
    let operands = node.inputs.iter().map(|v| v.map(|v| known.get(&v)).map_or(Some(None), |a| a.map(Some)));
    let operands = operands.collect::<Option<Vec<_>>>()?;
    let results = eval_node(graph, node, &operands, Precision::Native).ok()?;
    let pairs = node.outputs.iter().zip(results).filter_map(|(v, array)| Some(((*v)?, array)));
    pairs.map(|(v, array)| Some((v, array.to_tensor().ok()?))).collect()
}

/// The elements of `v`, where inference knows them all.
fn from_shapes(graph: &Graph, v: Value) -> Option<Tensor> {
    let elements: Vec<i64> = graph[v].known.as_ref()?.iter().map(|d| d.as_const()).collect::<Option<_>>()?;
    let ty = graph[v].ty.as_ref().filter(|ty| matches!(ty.dtype, DType::Int64 | DType::Int32))?;
    Array::int(ty.dtype, ty.sizes()?, elements).to_tensor().ok()
}

fn n_bytes(ty: &Type) -> Option<usize> {
    ty.dtype.byte_len(graft_ir::count(&ty.sizes()?)?)
}

/// Defines `v`, a result of `node`, by its data.
fn define(out: &mut Graph, node: &Node, v: Value, tensor: Tensor) {
    if tensor.data().len() <= MAX_CONSTANT || out.outputs.contains(&v) {
        let constant = Node::new("Constant", &[], &[v]).with("value", Attr::Tensor(tensor));
        out.nodes.push(Node { name: node.name.clone(), meta: node.meta.clone(), ..constant });
        return;
    }
    out[v].tensor = Some(tensor);
    out.params.push(v);
}
