//! Raises a model's opset: attributes become the operands that they are now, ops that mean something else now are
//! written so that they mean what they did, and what cannot be raised is refused by name.
use crate::{Context, Options, Pass};
use graft_ir::{
    Attr, Builder, Code, Error, Graph, Node, Result, Value,
    infer::node_label,
    ops,
    opset::{self, NEWEST},
};
use std::sync::Arc;

/// Option `opset=N`: the version of ONNX's own domain to raise the graph, its subgraphs and its functions to.
pub const PASS: Pass = Pass { name: "upgrade", about: "raises the model's opset", run: upgrade };

/// Ops that are only carried along, whose later versions differ from that of opset 9 by more types and by attributes
/// that may be left out.
const CARRIED: &[&str] = &["GRU", "If", "LSTM", "Loop", "RNN", "Scan"];

/// Writes a node so that it means at the newer version what it meant: appends what stands for it.
type Rewrite = fn(Node, &mut Builder<'_>) -> Result<()>;

/// Ops whose meaning changed at the version `since` of the table, and how the old meaning is said from there on.
const REWRITES: &[(&str, i64, Rewrite)] =
    &[("LogSoftmax", 13, over_last_axis), ("Softmax", 13, over_last_axis), ("Split", 18, with_count)];

fn upgrade(graph: &Graph, options: &Options, _: &mut Context<'_>) -> Result<Graph> {
    options.expect_only(&["opset"])?;
    let missing = || Error::new(Code::PASS, "option `opset` is missing").help("`upgrade{opset=17}`");
    let version: i64 = options.get("opset")?.ok_or_else(missing)?;
    if version > NEWEST {
        let message = format!("opset {version} is newer than {NEWEST}, the newest that the op table knows");
        return Err(Error::new(Code::OPSET, message));
    }
    let mut out = graph.clone();
    raise(&mut out, version)?;
    for (name, function) in &mut out.functions {
        let at = |e: Error| e.at(format!("function `{name}`"));
        // A function may be written for a newer version than the graph that calls it.
        if function.body.opset("").is_some_and(|from| from < version) {
            raise(&mut Arc::make_mut(function).body, version).map_err(at)?;
        }
    }
    Ok(out)
}

fn raise(graph: &mut Graph, version: i64) -> Result<()> {
    let Some(from) = graph.opset("") else { return Ok(()) };
    if from > version {
        let message = format!("the model is of opset {from} already, {version} would lower it");
        return Err(Error::new(Code::OPSET, message));
    }
    rewrite(graph, from, version)?;
    opset::respell(graph, version)
}

/// Writes every node of `graph` and its subgraphs so that it keeps its meaning.
fn rewrite(graph: &mut Graph, from: i64, to: i64) -> Result<()> {
    let mut b = Builder::new(graph);
    for mut node in std::mem::take(&mut b.graph.nodes) {
        let place = format!("node `{}` ({})", node_label(b.graph, &node), node.op);
        for attr in node.attrs.values_mut() {
            if let Attr::Graph(inner) = attr {
                rewrite(Arc::make_mut(inner), from, to).map_err(|e| e.at(place.clone()))?;
            }
        }
        let known = REWRITES.iter().find(|(op, since, _)| *op == node.op && from < *since && *since <= to);
        match known {
            Some((_, _, write)) => write(node, &mut b),
            None => keeps_its_meaning(&node, from, to).map(|()| b.graph.nodes.push(node)),
        }
        .map_err(|e| e.at(place))?;
    }
    Ok(())
}

/// Refuses an op of ONNX's own domain that means something else at the newer version, or that the table lacks.
fn keeps_its_meaning(node: &Node, from: i64, to: i64) -> Result<()> {
    let (domain, name) = node.domain_and_name();
    if !domain.is_empty() || from == to || (CARRIED.contains(&name) && from >= 9) {
        return Ok(());
    }
    let meaning = |version: i64| ops::lookup(&node.op, version).map(|def| def.since);
    let refuse = |why: String| Err(Error::new(Code::OPSET, format!("`{name}` cannot be raised: {why}")));
    match (meaning(from), meaning(to)) {
        (Some(old), Some(new)) if old == new => Ok(()),
        (Some(_), Some(new)) => refuse(format!("it means something else from opset {new} on")),
        (None, Some(new)) => refuse(format!("its meaning before opset {new} is not known here")),
        (_, None) => refuse("it is not in the op table, so its history is not known here".into()),
    }
}

/// Before opset 13 a softmax covered `axis` and all later axes: the operand is seen as a matrix, unless that axis is
/// the last one anyway.
fn over_last_axis(mut node: Node, b: &mut Builder<'_>) -> Result<()> {
    if matches!(node.attrs.get("axis"), Some(Attr::Ref { .. })) {
        return Err(Error::new(
            Code::OPSET,
            "its attribute `axis` is the function's, and decides the meaning",
        ));
    }
    let axis = node.int("axis")?.unwrap_or(1);
    let x = node.input(0).ok_or_else(|| Error::new(Code::TYPES, "operand 0 is missing"))?;
    let last = b.graph.shape(x).is_some_and(|dims| axis == dims.len() as i64 - 1);
    if axis == -1 || last {
        node.attrs.insert("axis".into(), Attr::Int(axis));
        b.graph.nodes.push(node);
        return Ok(());
    }
    let scope = node.output(0).map_or(String::new(), |v| format!("{}_", b.graph.name(v)));
    b.scope(scope);
    let mut append = |hint: &str, node: Node| -> Value {
        let name = b.fresh(hint);
        let v = b.graph.add_value(name, None);
        b.graph.nodes.push(Node { outputs: vec![Some(v)], ..node });
        v
    };
    let flat = append("flat", Node::new("Flatten", &[x], &[]).with("axis", Attr::Int(axis)));
    let share = append("share", Node::new(&node.op, &[flat], &[]).with("axis", Attr::Int(-1)));
    let shape = append("shape", Node::new("Shape", &[x], &[]));
    let outputs = node.outputs.clone();
    b.graph.nodes.push(Node {
        name: node.name,
        meta: node.meta,
        outputs,
        ..Node::new("Reshape", &[share, shape], &[])
    });
    Ok(())
}

/// From opset 18 on a split into equal parts says how many.
fn with_count(mut node: Node, b: &mut Builder<'_>) -> Result<()> {
    let has_sizes = node.input(1).is_some() || node.attrs.contains_key("split");
    if !has_sizes && !node.attrs.contains_key("num_outputs") {
        node.attrs.insert("num_outputs".into(), Attr::Int(node.outputs.len() as i64));
    }
    b.graph.nodes.push(node);
    Ok(())
}
