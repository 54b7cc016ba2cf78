//! Takes adapters off a graph again.
use crate::meta;
use graft_ir::{Code, Error, Graph, Node, Result, Value};
use std::collections::{BTreeMap, HashSet};

/// The graph without the adapters on it: as it was before `inject`.
///
/// # Errors
/// [`Code::ADAPTER`] where an adapter's nodes are not as `inject` put them.
pub(super) fn stripped(graph: &Graph) -> Result<Graph> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        if let (Some(target), true) = (node.meta.get(meta::TARGET), node.meta.contains_key(meta::METHOD)) {
            groups.entry(target).or_default().push(i);
        }
    }
    let mut restored: BTreeMap<usize, Node> = BTreeMap::new();
    let mut removed = HashSet::new();
    for (target, group) in &groups {
        let (base, node) = restore(graph, group).ok_or_else(|| {
            Error::new(Code::ADAPTER, format!("the nodes of adapter `{target}` are not as `inject` put them"))
                .help("run the pass `inline` first if the graph is fused")
        })?;
        restored.insert(base, node);
        removed.extend(group.iter().copied().filter(|&i| i != base));
    }
    let mut out = graph.clone();
    let kept = out.nodes.into_iter().enumerate().filter(|(i, _)| !removed.contains(i));
    out.nodes = kept.map(|(i, node)| restored.remove(&i).unwrap_or(node)).collect();
    let is_adapter = |v: &Value| graph[*v].meta.contains_key(meta::METHOD);
    out.params.retain(|v| !is_adapter(v));
    out.inputs.retain(|v| !is_adapter(v));
    Ok(out)
}

/// The base linear of one adapter, with its bias and result back; `None` if nodes are missing.
fn restore(graph: &Graph, group: &[usize]) -> Option<(usize, Node)> {
    let role = |i: usize| graph.nodes[i].meta.get(meta::ROLE).map(String::as_str);
    let base = group.iter().copied().find(|&i| role(i) == Some(meta::BASE))?;
    let bias = group.iter().copied().find(|&i| role(i) == Some(meta::BIAS));
    let made: HashSet<Value> = group.iter().flat_map(|&i| graph.nodes[i].defines()).collect();
    let others = graph.nodes.iter().enumerate().filter(|(i, _)| !group.contains(i)).map(|(_, n)| n);
    let read = others.flat_map(Node::reads).chain(graph.outputs.iter().copied());
    let results: HashSet<Value> = read.filter(|v| made.contains(v)).collect();
    let mut node = graph.nodes[base].clone();
    node.inputs.extend(bias.map(|i| graph.nodes[i].input(1)));
    let mut results = results.into_iter();
    node.outputs = vec![Some(results.next()?)];
    if results.next().is_some() {
        return None;
    }
    for key in [meta::METHOD, meta::TARGET, meta::ROLE, meta::VERSION] {
        node.meta.remove(key);
    }
    Some((base, node))
}
