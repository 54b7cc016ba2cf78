//! Nodes that only hand a value on: `Identity`, a `Cast` to the type that the value has, `Dropout` outside training.
use crate::rewrite::Sites;
use graft_ir::{Data, Graph, Node, Result, Value, infer};
use std::collections::{HashMap, HashSet};

/// Removes such nodes; who reads their results reads what they were given. A result of the graph keeps its name.
pub(super) fn forward(graph: &Graph) -> Result<Graph> {
    let sites = Sites::new(graph);
    // Subgraphs refer to values by name, so these stay as they are.
    let captured: HashSet<Value> = graph.nodes.iter().flat_map(|n| n.captures.iter().copied()).collect();
    let is_pinned =
        |v: Value| sites.uses.is_output(v) || captured.contains(&v) || sites.uses.def(v).is_none();
    let mut renamed: HashMap<Value, Value> = HashMap::new();
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let forwarded = handed_on(&sites, node)?.map(|(from, to)| (resolve(&renamed, from), to));
        match forwarded {
            Some((from, to)) if !sites.uses.is_output(to) && !captured.contains(&to) => {
                _ = renamed.insert(to, from)
            }
            // The node before defines the graph's result at once.
            Some((from, to)) if !is_pinned(from) && !captured.contains(&to) => _ = renamed.insert(from, to),
            _ => nodes.push(node.clone()),
        }
    }
    for v in nodes.iter_mut().flat_map(|n| n.inputs.iter_mut().chain(&mut n.outputs)).flatten() {
        *v = resolve(&renamed, *v);
    }
    Ok(Graph { nodes, ..graph.clone() })
}

fn resolve(renamed: &HashMap<Value, Value>, mut v: Value) -> Value {
    while let Some(&to) = renamed.get(&v) {
        v = to;
    }
    v
}

/// The operand and the result that are the same, if this is such a node.
fn handed_on(sites: &Sites<'_>, node: &Node) -> Result<Option<(Value, Value)>> {
    let (Some(from), Some(to)) = (node.input(0), node.output(0)) else { return Ok(None) };
    let only_result = node.outputs[1..]
        .iter()
        .flatten()
        .all(|&v| sites.uses.users(v).is_empty() && !sites.uses.is_output(v));
    let is_same = match &*node.op {
        "Identity" => true,
        "Cast" => infer::dtype_attr(node, "to")?.is_some_and(|to| sites.graph.dtype(from) == Some(to)),
        "Dropout" => only_result && !may_train(sites, node),
        _ => false,
    };
    Ok(is_same.then_some((from, to)))
}

/// Whether a `Dropout` may drop anything: its third operand says so, and is false where it is left out.
fn may_train(sites: &Sites<'_>, node: &Node) -> bool {
    let Some(flag) = node.input(2) else { return false };
    match sites.constant(flag).map(|array| array.data) {
        Some(Data::Int(elements)) => elements.iter().any(|&e| e != 0),
        _ => true,
    }
}
