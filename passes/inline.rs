//! Replaces calls by the bodies of their functions: the inverse of `fuse`.
use crate::{Context, Options, Pass};
use graft_ir::{
    Attr, Builder, Code, Error, Function, Graph, Node, Result, Value, error::nearest, ops, opset,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Option `only=NAME` (repeatable) restricts it to calls of that function.
pub const PASS: Pass =
    Pass { name: "inline", about: "replaces calls by the bodies of their functions", run: inline };

fn inline(graph: &Graph, options: &Options, _: &mut Context<'_>) -> Result<Graph> {
    options.expect_only(&["only"])?;
    let only = options.all("only");
    if let Some(unknown) = only.iter().find(|name| !graph.functions.contains_key(*name)) {
        let candidates = nearest(unknown, graph.functions.keys().map(String::as_str));
        return Err(Error::new(Code::PASS, format!("option `only`: the graph has no function `{unknown}`"))
            .help(format!("nearest: `{}`", candidates.join("`, `"))));
    }
    let mut out = graph.clone();
    let mut b = Builder::new(&mut out);
    for node in std::mem::take(&mut b.graph.nodes) {
        emit(node, only, &mut b)?;
    }
    out.sweep_functions();
    Ok(out)
}

/// How the values of a call's body are called when it is expanded: after the call's first result.
pub fn scope(graph: &Graph, call: &Node) -> String {
    call.defines().next().map_or(String::new(), |v| format!("{}_", graph.name(v)))
}

/// Appends the body of `function` in place of `call`.
///
/// The call's results are defined by the body's nodes and keep their names; inner values get fresh names in the
/// builder's scope (see [`scope`]). Of the body, only what the wanted results depend on is appended. The node that
/// defines the first result is called as the call is, the others after it, and all carry the call's notes, which
/// the body's own notes overrule.
pub fn expand(function: &Function, call: &Node, b: &mut Builder<'_>) -> Result<()> {
    check_opsets(function, b.graph)?;
    let mut body = function.bind(call)?;
    if let Some(version) = b.graph.opset("") {
        opset::respell(&mut body, version)?;
    }
    let given = body.inputs.iter().enumerate().filter_map(|(i, &v)| Some((v, call.input(i)?)));
    let mut values: HashMap<Value, Value> = given.collect();
    // A result that is an operand, or another result, is copied: a value has one definition.
    let mut copies = Vec::new();
    for (i, &v) in body.outputs.iter().enumerate() {
        match (call.output(i), values.get(&v)) {
            (Some(result), Some(&from)) => copies.push((from, result)),
            (Some(result), None) => _ = values.insert(v, result),
            (None, _) => {}
        }
    }
    for node in live_nodes(&body, call) {
        for v in node.defines() {
            values.entry(v).or_insert_with(|| {
                let name = b.fresh(body.name(v));
                b.graph.add_value(name, None)
            });
        }
        let node = rebuilt(&body, node, call, &values, b);
        b.append(node)?;
    }
    for (from, to) in copies {
        b.append(Node::new("Identity", &[from], &[to]))?;
    }
    Ok(())
}

/// Appends `node`, expanded if it is a call, and so the calls in its body: no function of a valid graph calls itself.
fn emit(node: Node, only: &[String], b: &mut Builder<'_>) -> Result<()> {
    let function = b.graph.functions.get(&node.op).filter(|_| only.is_empty() || only.contains(&node.op));
    let Some(function) = function.map(Arc::clone) else {
        b.graph.nodes.push(node);
        return Ok(());
    };
    let scope = scope(b.graph, &node);
    let start = b.graph.nodes.len();
    expand(&function, &node, b.scope(scope))?;
    let body = b.graph.nodes.split_off(start);
    body.into_iter().try_for_each(|node| emit(node, only, b))
}

/// The body's nodes that the results wanted by `call` depend on, in order.
fn live_nodes<'a>(body: &'a Graph, call: &Node) -> Vec<&'a Node> {
    let wanted = body.outputs.iter().enumerate().filter(|(i, _)| call.output(*i).is_some());
    let mut live: HashSet<Value> = wanted.map(|(_, &v)| v).collect();
    let mut nodes = Vec::new();
    for node in body.nodes.iter().rev() {
        if node.defines().any(|v| live.contains(&v)) {
            live.extend(node.reads());
            nodes.push(node);
        }
    }
    nodes.reverse();
    nodes
}

/// A node of the body with the graph's values put in.
fn rebuilt(
    body: &Graph,
    node: &Node,
    call: &Node,
    values: &HashMap<Value, Value>,
    b: &mut Builder<'_>,
) -> Node {
    let map = |vs: &[Option<Value>]| vs.iter().map(|v| values.get(&(*v)?).copied()).collect();
    let mut new = Node {
        name: node_name(body, node, call),
        op: node.op.clone(),
        attrs: node.attrs.clone(),
        inputs: map(&node.inputs),
        outputs: map(&node.outputs),
        captures: node.captures.iter().filter_map(|v| values.get(v).copied()).collect(),
        meta: call.meta.clone(),
        origin: None,
    };
    new.meta.extend(node.meta.clone());
    let captured = |v: &Value| Some((body.name(*v).to_string(), b.graph.name(*values.get(v)?).to_string()));
    let names: HashMap<String, String> = node.captures.iter().filter_map(captured).collect();
    new.attrs.values_mut().for_each(|attr| rename_subgraph(attr, &names, b));
    new
}

fn node_name(body: &Graph, node: &Node, call: &Node) -> String {
    let is_root = body.outputs.first().is_some_and(|&v| node.defines().any(|o| o == v));
    if is_root || call.name.is_empty() {
        return call.name.clone();
    }
    let part =
        if node.name.is_empty() { node.defines().next().map(|v| body.name(v)) } else { Some(&*node.name) };
    format!("{}/{}", call.name, part.unwrap_or(&node.op))
}

/// A subgraph refers to the values around it by name, so its captures follow their new names; its own values get
/// fresh ones, as ONNX forbids that they shadow any.
fn rename_subgraph(attr: &mut Attr, outer: &HashMap<String, String>, b: &mut Builder<'_>) {
    let Attr::Graph(subgraph) = attr else { return };
    let subgraph = Arc::make_mut(subgraph);
    let mut names = outer.clone();
    for v in subgraph.used_values() {
        let old = subgraph.name(v).to_string();
        let new = match outer.get(&old).filter(|_| subgraph.captures.contains(&v)) {
            Some(new) => new.clone(),
            None => b.fresh(&old),
        };
        subgraph[v].name.clone_from(&new);
        names.insert(old, new);
    }
    let attrs = subgraph.nodes.iter_mut().flat_map(|node| node.attrs.values_mut());
    attrs.for_each(|attr| rename_subgraph(attr, &names, b));
}

/// A body means the same inside the graph only if both agree on what its ops mean.
fn check_opsets(function: &Function, graph: &Graph) -> Result<()> {
    let meaning = |op: &str, version: i64| ops::lookup(op, version).map(|def| def.since);
    for node in &function.body.nodes {
        let (domain, _) = node.domain_and_name();
        let (Some(inner), Some(outer)) = (function.body.opset(domain), graph.opset(domain)) else { continue };
        let known = meaning(&node.op, inner).is_some();
        if inner != outer && (!known || meaning(&node.op, inner) != meaning(&node.op, outer)) {
            let message = format!(
                "`{}` cannot be inlined: its `{}` is of opset {inner}, the graph's of {outer}",
                function.name, node.op
            );
            return Err(Error::new(Code::OPSET, message));
        }
    }
    Ok(())
}
