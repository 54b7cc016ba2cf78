//! Gradients of calls: by a function `…Grad` where there is one, otherwise through the body.
use super::Path;
use crate::{inject, inline};
use graft_ir::{Builder, Code, Error, Function, Graph, Node, Result, Value, library, ops};
use std::sync::Arc;

/// Nested calls are expanded up to this depth; ONNX forbids recursion.
const MAX_DEPTH: usize = 64;

/// The function that computes the gradient of calls of `op`: the graph's, a method's, or the library's.
pub(super) fn gradient_of(graph: &Graph, op: &str) -> Result<Option<Arc<Function>>> {
    if !graph.functions.contains_key(op) {
        return Ok(None);
    }
    let name = format!("{op}Grad");
    if let Some(function) = graph.functions.get(&name) {
        return Ok(Some(Arc::clone(function)));
    }
    let function = inject::function(&name).or_else(|| library::get(&name));
    Ok(function.cloned().map(Arc::new))
}

/// The graph with every call on the path replaced by its body, where no gradient function serves it.
pub(super) fn expanded(graph: &Graph, path: &Path) -> Result<Graph> {
    let mut out = graph.clone();
    let mut b = Builder::new(&mut out);
    for (i, node) in std::mem::take(&mut b.graph.nodes).into_iter().enumerate() {
        if path.nodes.contains(&i) {
            expand(node, MAX_DEPTH, graph, &mut b)?
        } else {
            b.graph.nodes.push(node)
        }
    }
    Ok(out)
}

fn expand(node: Node, depth: usize, original: &Graph, b: &mut Builder<'_>) -> Result<()> {
    let opset = b.graph.opset(node.domain_and_name().0).unwrap_or(1);
    let function =
        b.graph.functions.get(&node.op).cloned().filter(|_| ops::lookup(&node.op, opset).is_none());
    let Some(function) = function.filter(|_| node.op != super::DETACH) else {
        b.graph.nodes.push(node);
        return Ok(());
    };
    if gradient_of(b.graph, &node.op)?.is_some() && !reads_saved(original, &node) {
        b.graph.nodes.push(node);
        return Ok(());
    }
    let recursion = || Error::new(Code::GRAPH, format!("function `{}` calls itself", node.op));
    let depth = depth.checked_sub(1).ok_or_else(recursion)?;
    let start = b.graph.nodes.len();
    let scope = inline::scope(b.graph, &node);
    inline::expand(&function, &node, b.scope(scope))?;
    for node in b.graph.nodes.split_off(start) {
        expand(node, depth, original, b)?;
    }
    Ok(())
}

/// Whether anything reads a result besides the first: a gradient function takes none for those.
fn reads_saved(graph: &Graph, call: &Node) -> bool {
    let saved: Vec<Value> = call.outputs.iter().skip(1).flatten().copied().collect();
    graph.nodes.iter().flat_map(Node::reads).chain(graph.outputs.iter().copied()).any(|v| saved.contains(&v))
}

/// Ops whose gradient reads optional results, by name.
const SAVED: &[(&str, &[&str])] = &[("LayerNormalization", &["y", "mean", "inv_std"])];

/// Makes every node on the path return the results that its gradient needs.
pub(super) fn want_saved(graph: &mut Graph, path: &Path) -> Result<()> {
    let mut b = Builder::new(graph);
    for (i, mut node) in std::mem::take(&mut b.graph.nodes).into_iter().enumerate() {
        let Some(names) = results(b.graph, &node.op).filter(|_| path.nodes.contains(&i)) else {
            b.graph.nodes.push(node);
            continue;
        };
        let scope = inline::scope(b.graph, &node);
        b.scope(scope);
        node.outputs.resize(names.len(), None);
        for (output, name) in node.outputs.iter_mut().zip(names) {
            if output.is_none() {
                let name = b.fresh(&name);
                *output = Some(b.graph.add_value(name, None));
            }
        }
        b.append(node)?;
    }
    Ok(())
}

/// The names of the results of a function, or of an op that has some saved.
fn results(graph: &Graph, op: &str) -> Option<Vec<String>> {
    if let Some((_, names)) = SAVED.iter().find(|(saved, _)| *saved == op) {
        return Some(names.iter().map(|&name| name.into()).collect());
    }
    let body = &graph.functions.get(op)?.body;
    Some(body.outputs.iter().map(|&v| body.name(v).into()).collect())
}

/// Appends the call of the gradient function: `dy`, all operands, the saved results; the result `d<name>` is the
/// gradient of the operand `name`.
pub(super) fn backward(
    node: &Node,
    dy: &[Option<Value>],
    needs: &[bool],
    b: &mut Builder<'_>,
) -> Result<Vec<Option<Value>>> {
    let none = || Error::new(Code::NO_GRADIENT, format!("`{}` has no gradient", node.op));
    let forward = b.graph.functions.get(&node.op).cloned().ok_or_else(none)?;
    let gradient = gradient_of(b.graph, &node.op)?.ok_or_else(none)?;
    let inputs = forward.body.inputs.len();
    let mut operands = vec![dy.first().copied().flatten()];
    operands.extend((0..inputs).map(|i| node.input(i)));
    operands.extend((1..forward.body.outputs.len()).map(|i| node.output(i)));
    let is_known = |key: &String| gradient.attrs.contains(key) || gradient.defaults.contains_key(key);
    let attrs = node.attrs.iter().filter(|(key, _)| is_known(key)).map(|(k, v)| (k.clone(), v.clone()));
    let mut call = Node {
        name: if node.name.is_empty() { String::new() } else { format!("{}/grad", node.name) },
        op: gradient.name.clone(),
        attrs: attrs.collect(),
        inputs: operands,
        meta: node.meta.clone(),
        ..Node::default()
    };
    let mut terms = vec![None; inputs];
    for &result in &gradient.body.outputs {
        let name = gradient.body.name(result);
        let operand = name.strip_prefix('d');
        let i = forward.body.inputs.iter().position(|&v| Some(forward.body.name(v)) == operand);
        let wanted = i.filter(|&i| needs.get(i).copied().unwrap_or(false));
        let v = wanted.map(|_| {
            let name = b.fresh(name);
            b.graph.add_value(name, None)
        });
        call.outputs.push(v);
        if let Some(i) = wanted {
            terms[i] = v;
        }
    }
    library::adopt(b.graph, &gradient)?;
    b.append(call)?;
    Ok(terms)
}
