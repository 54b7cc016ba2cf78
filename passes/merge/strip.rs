//! Takes adapters off a graph again.
use crate::{
    inject::{Adapter, Method, adapters},
    io, meta, ranks,
};
use graft_ir::{Attr, Code, Error, Graph, Node, Result, Value};
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The graph without the adapters on it: as it was before `inject`.
///
/// # Errors
/// [`Code::ADAPTER`] where an adapter's nodes are not as `inject` put them.
pub fn stripped(graph: &Graph) -> Result<Graph> {
    let mut groups: BTreeMap<(&str, Option<&String>), Vec<usize>> = BTreeMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        if let (Some(target), true) = (node.meta.get(meta::TARGET), node.meta.contains_key(meta::METHOD)) {
            groups.entry((target, node.meta.get(meta::USE))).or_default().push(i);
        }
    }
    let found = adapters(graph)?;
    let mut restored: BTreeMap<usize, Node> = BTreeMap::new();
    let mut removed = HashSet::new();
    for ((target, _), nodes) in groups {
        let adapter = found.iter().find(|a| a.target == target);
        let whole = adapter.and_then(|adapter| Group::new(graph, nodes.clone()).restore(adapter));
        let (base, node) = whole.ok_or_else(|| {
            Error::new(Code::ADAPTER, format!("the nodes of adapter `{target}` are not as `inject` put them"))
                .help("run the pass `inline` first if the graph is fused")
        })?;
        removed.extend(nodes.into_iter().filter(|&i| i != base));
        restored.insert(base, node);
    }
    let mut out = graph.clone();
    let kept = out.nodes.into_iter().enumerate().filter(|(i, _)| !removed.contains(i));
    out.nodes = kept.map(|(i, node)| restored.remove(&i).unwrap_or(node)).collect();
    let is_adapter = |v: &Value| graph[*v].meta.contains_key(meta::METHOD);
    out.params.retain(|v| !is_adapter(v));
    out.inputs.retain(|v| !is_adapter(v));
    for adapter in &found {
        io::drop_role(&mut out, &ranks::mask_role(&adapter.target))?;
    }
    out.sweep();
    if out.functions.is_empty() && !out.nodes.iter().any(|n| n.op.starts_with("graft.")) {
        out.opsets.remove("graft");
    }
    Ok(out)
}

/// The nodes of one adapter.
struct Group<'g> {
    graph: &'g Graph,
    /// Positions in the graph.
    nodes: Vec<usize>,
    /// Which of them defines a value.
    definitions: HashMap<Value, usize>,
}

impl<'g> Group<'g> {
    fn new(graph: &'g Graph, nodes: Vec<usize>) -> Group<'g> {
        let definitions = nodes.iter().flat_map(|&i| graph.nodes[i].defines().map(move |v| (v, i))).collect();
        Group { graph, nodes, definitions }
    }

    /// The base linear, with its operands and result back; `None` if nodes are missing.
    fn restore(&self, adapter: &Adapter) -> Option<(usize, Node)> {
        let base = self.of_role(meta::BASE)?;
        let mut node = self.graph.nodes[base].clone();
        if let Some(original) = node.meta.remove(meta::ORIGINAL) {
            node.inputs = vec![Some(self.operand(adapter, 0)?), Some(self.operand(adapter, 1)?)];
            (node.op, node.attrs) = read_original(&original)?;
        }
        let bias = self.of_role(meta::BIAS).map(|i| &self.graph.nodes[i]);
        node.inputs.extend(bias.map(|n| n.input(1)));
        node.outputs = vec![Some(self.result()?)];
        for key in [meta::METHOD, meta::TARGET, meta::USE, meta::ROLE, meta::VERSION] {
            node.meta.remove(key);
        }
        Some((base, node))
    }

    fn of_role(&self, role: &str) -> Option<usize> {
        self.nodes.iter().copied().find(|&i| self.role(i) == Some(role))
    }

    fn role(&self, i: usize) -> Option<&'g str> {
        self.graph.nodes[i].meta.get(meta::ROLE).map(String::as_str)
    }

    /// The only value that others read.
    fn result(&self) -> Option<Value> {
        let others = self.graph.nodes.iter().enumerate().filter(|(i, _)| !self.nodes.contains(i));
        let read = others.flat_map(|(_, n)| n.reads()).chain(self.graph.outputs.iter().copied());
        let results: HashSet<Value> = read.filter(|v| self.definitions.contains_key(v)).collect();
        let mut results = results.into_iter();
        results.next().filter(|_| results.next().is_none())
    }

    /// What operand `k` of the method's function was in the model: a node of its body that reads it is found by its
    /// role, and followed back through casts and views.
    fn operand(&self, adapter: &Adapter, k: usize) -> Option<Value> {
        let config = adapter.config().ok()?;
        let variant = Method::named(&adapter.method).ok()?.variant(&config).ok()?;
        let body = &variant.forward().ok()?.body;
        let reads = |n: &&Node| n.inputs.contains(&Some(body.inputs[k]));
        let reader = body.nodes.iter().find(reads)?;
        let role = body.name(reader.output(0)?);
        let at = reader.inputs.iter().position(|v| *v == Some(body.inputs[k]))?;
        let mut v = self.graph.nodes[self.of_role(role)?].input(at)?;
        while let Some(&i) = self.definitions.get(&v)
            && matches!(self.role(i), Some(meta::WIDEN | meta::VIEW))
        {
            v = self.graph.nodes[i].input(0)?;
        }
        Some(v)
    }
}

/// Op and attributes of a node that was rewritten.
fn read_original(note: &str) -> Option<(String, graft_ir::Attrs)> {
    let note: Json = serde_json::from_str(note).ok()?;
    let attr = |value: &Json| match value.as_i64() {
        Some(n) => Some(Attr::Int(n)),
        None => value.as_f64().map(|x| Attr::Float(x as f32)),
    };
    let attrs = note["attrs"].as_object()?.iter().map(|(key, value)| Some((key.clone(), attr(value)?)));
    Some((note["op"].as_str()?.into(), attrs.collect::<Option<_>>()?))
}
