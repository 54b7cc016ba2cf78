//! Puts a call or a body in the place of each match.
use super::{Match, Pattern, Reject, Sites};
use crate::{inline, meta};
use graft_ir::{Builder, Dim, Function, Graph, Node, Result, Type, Value, infer};
use std::{collections::HashSet, sync::Arc};

/// What takes the place of a match.
#[derive(Clone, Copy)]
pub enum Replacement<'f> {
    /// A call of the pattern's function.
    Call,
    /// The body of a function with the same inputs and results.
    Body(&'f Function),
}

/// Replaces `pattern` wherever it is found, later nodes first, and returns the graph and the number of matches.
///
/// `accept` judges each match: it is given the graph, and the match as a call, and may refuse it with a reason.
/// A match that fits but is not applied is told to `log` with its reason. The call, and the node that defines the
/// first result of a body, take name and notes of the node that is replaced; results keep their names.
pub fn rewrite(
    pattern: &Pattern<'_>,
    replacement: Replacement<'_>,
    graph: &Graph,
    accept: &dyn Fn(&Graph, &Node) -> std::result::Result<(), Reject>,
    log: &mut dyn FnMut(&str),
) -> Result<(Graph, usize)> {
    let mut out = graph.clone();
    let function = match replacement {
        Replacement::Call => pattern.function(),
        Replacement::Body(function) => function,
    };
    // As a function of the graph, the replacement can be asked for the types of its results.
    let name = &pattern.function().name;
    let shadowed = out.functions.insert(name.clone(), Arc::new(function.clone()));
    let (mut at, mut n) = (out.nodes.len(), 0);
    while let Some((m, call)) = next_match(pattern, &out, &mut at, accept, log) {
        at = apply(&mut out, &m, call, replacement)?.min(at);
        n += 1;
    }
    if n == 0 || matches!(replacement, Replacement::Body(_)) {
        out.functions.remove(name);
        out.functions.extend(shadowed.map(|function| (name.clone(), function)));
    }
    Ok((out, n))
}

/// The last match before node `at`, which is moved there, as a call.
fn next_match(
    pattern: &Pattern<'_>,
    graph: &Graph,
    at: &mut usize,
    accept: &dyn Fn(&Graph, &Node) -> std::result::Result<(), Reject>,
    log: &mut dyn FnMut(&str),
) -> Option<(Match, Node)> {
    let sites = Sites::new(graph);
    while *at > 0 {
        *at -= 1;
        let Some(found) = pattern.find(&sites, *at) else { continue };
        let judged = found.and_then(|m| {
            let call = as_call(pattern, &sites, &m);
            check_order(graph, &m, &call)?;
            check_types(graph, &call)?;
            accept(graph, &call)?;
            Ok((m, call))
        });
        match judged {
            Ok(found) => return Some(found),
            Err(reject) => {
                let place = infer::node_label(graph, &graph.nodes[*at]);
                log(&format!("{}: not at `{place}`: {reject}", pattern.function().name));
            }
        }
    }
    None
}

/// The call that the match stands for: results that nobody reads are left out.
fn as_call(pattern: &Pattern<'_>, sites: &Sites<'_>, m: &Match) -> Node {
    let body = &pattern.function().body;
    let is_read =
        |v: Value| sites.uses.is_output(v) || sites.uses.users(v).iter().any(|&reader| !m.covers(reader));
    let bound = |p: &Value| m.values.get(p).copied();
    let mut outputs: Vec<Option<Value>> =
        body.outputs.iter().map(|p| bound(p).filter(|&v| is_read(v))).collect();
    if outputs.iter().all(Option::is_none) {
        outputs = body.outputs.iter().map(bound).collect();
    }
    outputs.truncate(outputs.iter().rposition(Option::is_some).map_or(0, |i| i + 1));
    // Named after the node that defines the first of its results that has one.
    let mut root = body.outputs.iter().find_map(|p| sites.node(bound(p)?)).cloned().unwrap_or_default();
    // The part that the last node plays is not that of the whole.
    root.meta.remove(meta::ROLE);
    let defaults = &pattern.function().defaults;
    let attrs = m.attrs.iter().filter(|(name, attr)| defaults.get(*name) != Some(attr));
    Node {
        name: root.name,
        op: pattern.function().name.clone(),
        attrs: attrs.map(|(name, attr)| (name.clone(), attr.clone())).collect(),
        inputs: body.inputs.iter().map(bound).collect(),
        outputs,
        meta: root.meta,
        ..Node::default()
    }
}

/// The nodes between the first and the last one of a match, in order: those that can stand before the call,
/// and those that depend on it.
fn around<'g>(graph: &'g Graph, m: &Match, call: &Node) -> (Vec<&'g Node>, Vec<&'g Node>) {
    let (first, end) = extent(m);
    let mut dependent: HashSet<Value> = call.defines().collect();
    let between = (first..end).filter(|&i| !m.covers(i)).map(|i| &graph.nodes[i]);
    between.partition(|node| {
        let depends = node.reads().any(|v| dependent.contains(&v));
        dependent.extend(node.defines().filter(|_| depends));
        !depends
    })
}

/// The position of the match's first node, and that after its last.
fn extent(m: &Match) -> (usize, usize) {
    let positions = || m.nodes.values().copied();
    (positions().min().unwrap_or(0), positions().max().map_or(0, |last| last + 1))
}

fn check_order(graph: &Graph, m: &Match, call: &Node) -> std::result::Result<(), Reject> {
    let (_, after) = around(graph, m, call);
    let defined: HashSet<Value> = after.into_iter().flat_map(Node::defines).collect();
    match call.reads().find(|v| defined.contains(v)) {
        Some(v) => Err(format!("operand `{}` depends on a result of the match", graph.name(v))),
        None => Ok(()),
    }
}

/// The replacement's results must have the types that the graph's values have: broadcasting may differ.
fn check_types(graph: &Graph, call: &Node) -> std::result::Result<(), Reject> {
    let facts = infer::infer_node(graph, call).map_err(|e| e.to_string())?;
    for (v, fact) in call.outputs.iter().zip(facts) {
        let (Some(v), Some(new)) = (v, fact.ty) else { continue };
        if let Some(old) = graph[*v].ty.as_ref().filter(|old| differ(old, &new)) {
            return Err(format!("`{}` is {old}, the replacement would be {new}", graph.name(*v)));
        }
    }
    Ok(())
}

/// Whether two types can describe no value in common.
fn differ(a: &Type, b: &Type) -> bool {
    let sizes_differ = |(a, b): (&Dim, &Dim)| a.as_const().is_some() && b.as_const().is_some() && a != b;
    let shapes_differ = match (&a.shape, &b.shape) {
        (Some(a), Some(b)) => a.len() != b.len() || a.iter().zip(b).any(sizes_differ),
        _ => false,
    };
    a.dtype != b.dtype || shapes_differ
}

/// Replaces one match; returns the position where the replacement begins.
fn apply(graph: &mut Graph, m: &Match, call: Node, replacement: Replacement<'_>) -> Result<usize> {
    let (first, end) = extent(m);
    let (before, after) = around(graph, m, &call);
    let (before, after): (Vec<Node>, Vec<Node>) =
        (before.into_iter().cloned().collect(), after.into_iter().cloned().collect());
    let constants: Vec<Value> = m.constants.iter().flat_map(|&i| graph.nodes[i].defines()).collect();
    // The builder must see all names in use before nodes are taken out.
    let mut b = Builder::new(graph);
    let rest = b.graph.nodes.split_off(end);
    b.graph.nodes.truncate(first);
    b.graph.nodes.extend(before);
    let start = b.graph.nodes.len();
    match replacement {
        Replacement::Call => b.append(call)?,
        Replacement::Body(function) => {
            let scope = inline::scope(b.graph, &call);
            inline::expand(function, &call, b.scope(scope))?;
        }
    }
    graph.nodes.extend(after);
    graph.nodes.extend(rest);
    Ok(start - drop_unread(graph, &constants, start))
}

/// Removes the `Constant` nodes that define `constants` and that nothing reads now; returns how many of them stood
/// before node `start`.
fn drop_unread(graph: &mut Graph, constants: &[Value], start: usize) -> usize {
    let read: HashSet<Value> =
        graph.nodes.iter().flat_map(Node::reads).chain(graph.outputs.iter().copied()).collect();
    let is_dead = |node: &Node| node.defines().all(|v| constants.contains(&v) && !read.contains(&v));
    let dead: Vec<bool> = graph.nodes.iter().map(|node| node.op == "Constant" && is_dead(node)).collect();
    let mut flags = dead.iter();
    graph.nodes.retain(|_| !flags.next().is_some_and(|&dead| dead));
    dead[..start].iter().filter(|&&dead| dead).count()
}
