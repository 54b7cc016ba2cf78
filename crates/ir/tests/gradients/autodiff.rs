//! Applying a rule to a node; for functions also a plain reverse sweep over the body.
use crate::check::Rule;
use graft_ir::{Backward, Builder, Code, Error, Graph, Node, Result, Value, Vjp, ops};
use std::collections::HashMap;

/// Appends the gradients of `node`'s operands by `rule`.
pub(crate) fn apply(
    rule: Rule,
    graph: &mut Graph,
    node: &Node,
    dy: &[Option<Value>],
    needs: &[bool],
) -> Result<Vec<Option<Value>>> {
    let mut b = Builder::new(graph);
    let opset = b.opset();
    match rule {
        Rule::Op(rule) => rule(&mut Backward { b: &mut b, node, opset, dy, needs }),
        Rule::Body => call_body(&mut b, node, dy),
        Rule::Autodiff => differentiate_body(&mut b, node, dy),
    }
}

/// Calls `FGrad (dy, <inputs of F>, <saved results of F>)`; its result `d<name>` belongs to the input `<name>`.
fn call_body(b: &mut Builder<'_>, node: &Node, dy: &[Option<Value>]) -> Result<Vec<Option<Value>>> {
    let op = format!("{}Grad", node.op);
    graft_ir::library::require(b.graph, &op)?;
    let (function, gradient) = (b.graph.functions[&node.op].clone(), b.graph.functions[&op].clone());
    let mut call = Node { op, attrs: node.attrs.clone(), ..Node::default() };
    call.attrs.retain(|name, _| gradient.attrs.contains(name) || gradient.defaults.contains_key(name));
    call.inputs = vec![dy[0]];
    call.inputs.extend(node.inputs.iter().copied());
    call.inputs.extend(node.outputs.iter().copied().skip(1));
    let results = b.push_n("d", call, gradient.body.outputs.len())?;
    let name = |graph: &Graph, v: Value| graph.name(v).to_string();
    let of: HashMap<String, Value> =
        gradient.body.outputs.iter().map(|&v| name(&gradient.body, v)).zip(results).collect();
    let inputs = function.body.inputs.iter().map(|&v| format!("d{}", name(&function.body, v)));
    Ok(inputs.map(|name| of.get(&name).copied()).collect())
}

/// Copies the body of the function that `node` calls and walks back over it.
fn differentiate_body(b: &mut Builder<'_>, node: &Node, dy: &[Option<Value>]) -> Result<Vec<Option<Value>>> {
    let body = b.graph.functions[&node.op].clone().bind(node)?;
    let mut copies: HashMap<Value, Value> = HashMap::new();
    for (&inner, outer) in body.inputs.iter().zip(&node.inputs) {
        copies.extend(outer.map(|outer| (inner, outer)));
    }
    let first = b.graph.nodes.len();
    for inner in &body.nodes {
        let mut copy = inner.clone();
        copy.inputs = inner.inputs.iter().map(|v| v.and_then(|v| copies.get(&v).copied())).collect();
        copy.outputs.clear();
        let results = b.push_n("inner", copy, inner.outputs.len())?;
        copies.extend(inner.outputs.iter().zip(results).filter_map(|(v, copy)| v.map(|v| (v, copy))));
    }
    let nodes = b.graph.nodes[first..].to_vec();
    let mut gradients: HashMap<Value, Value> = HashMap::new();
    for (v, dy) in body.outputs.iter().zip(dy) {
        gradients.extend(dy.map(|dy| (copies[v], dy)));
    }
    for inner in nodes.iter().rev() {
        step_back(b, inner, &mut gradients)?;
    }
    Ok(node.inputs.iter().map(|v| v.and_then(|v| gradients.get(&v).copied())).collect())
}

/// Adds what `node` sends back to its operands.
fn step_back(b: &mut Builder<'_>, node: &Node, gradients: &mut HashMap<Value, Value>) -> Result<()> {
    let dy: Vec<Option<Value>> =
        node.outputs.iter().map(|v| v.and_then(|v| gradients.get(&v).copied())).collect();
    if dy.iter().all(Option::is_none) {
        return Ok(());
    }
    let opset = b.opset();
    let vjp = ops::lookup(&node.op, opset).map_or(Vjp::Missing, |def| def.vjp);
    if matches!(vjp, Vjp::Zero) {
        return Ok(());
    }
    let missing = || Error::new(Code::NO_GRADIENT, format!("no rule for `{}`", node.op));
    let rule = vjp.rule().ok_or_else(missing)?;
    let is_float = |v: Value| b.graph.dtype(v).is_none_or(graft_ir::DType::is_float);
    let needs: Vec<bool> = node.inputs.iter().map(|v| v.is_some_and(is_float)).collect();
    let found = rule(&mut Backward { b, node, opset, dy: &dy, needs: &needs })?;
    for (v, gradient) in node.inputs.iter().zip(found) {
        if let (Some(v), Some(gradient)) = (v, gradient) {
            let sum = match gradients.get(v) {
                Some(&before) => b.add(before, gradient)?,
                None => gradient,
            };
            gradients.insert(*v, sum);
        }
    }
    Ok(())
}
