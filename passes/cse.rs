//! Computes once what is computed several times: common subexpression elimination.
use crate::{Context, Options, Pass};
use graft_ir::{Attr, Graph, Node, Result, Value};
use std::collections::{HashMap, HashSet};

/// Takes no options.
pub const PASS: Pass = Pass { name: "cse", about: "computes once what is computed several times", run: cse };

/// Ops that give something else each time.
const DRAWS: &[&str] = &[
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

fn cse(graph: &Graph, options: &Options, ctx: &mut Context<'_>) -> Result<Graph> {
    options.expect_only(&[])?;
    let mut out = Graph { nodes: Vec::with_capacity(graph.nodes.len()), ..graph.clone() };
    let kept: HashSet<Value> = graph.outputs.iter().copied().chain(captured(graph)).collect();
    let mut seen: HashMap<String, Vec<usize>> = HashMap::new();
    let mut same: HashMap<Value, Value> = HashMap::new();
    for node in &graph.nodes {
        let mut node = node.clone();
        node.inputs.iter_mut().flatten().for_each(|v| *v = same.get(v).copied().unwrap_or(*v));
        if !is_shared(&node) || node.defines().any(|v| kept.contains(&v)) {
            out.nodes.push(node);
            continue;
        }
        let alike = seen.entry(key(&node)).or_default();
        match alike.iter().map(|&i| &out.nodes[i]).find(|first| is_same(first, &node)) {
            Some(first) => same.extend(node.defines().zip(first.defines())),
            None => {
                alike.push(out.nodes.len());
                out.nodes.push(node);
            }
        }
    }
    (ctx.log)(&format!("cse: {} nodes removed", graph.nodes.len() - out.nodes.len()));
    Ok(out)
}

/// What subgraphs read by name.
fn captured(graph: &Graph) -> impl Iterator<Item = Value> + '_ {
    graph.nodes.iter().flat_map(|node| node.captures.iter().copied())
}

/// Whether another node may stand for this one.
fn is_shared(node: &Node) -> bool {
    let has_subgraph = node.attrs.values().any(|attr| matches!(attr, Attr::Graph(_)));
    !has_subgraph && !DRAWS.contains(&node.op.as_str())
}

/// What alike nodes have in common, as far as it can be looked up.
fn key(node: &Node) -> String {
    let size = |attr: &Attr| if let Attr::Tensor(t) = attr { t.data().to_vec() } else { Vec::new() };
    let data: Vec<Vec<u8>> = node.attrs.values().map(size).collect();
    format!("{} {:?} {data:?}", node.op, node.inputs)
}

fn is_same(first: &Node, node: &Node) -> bool {
    let results = |node: &Node| node.outputs.iter().map(Option::is_some).collect::<Vec<_>>();
    first.attrs == node.attrs && results(first) == results(node)
}
