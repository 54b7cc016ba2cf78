//! Ops that are written with other ops: inferred, run and differentiated through those.
//!
//! The body is a function of the node, since what it holds depends on attributes, on ranks and on which operands are
//! given. It is made of ops with rules of their own, at the graph's opset, and calls no function.
use super::lookup;
use crate::{
    Array, Backward, Builder, Code, Data, Error, Eval, Fact, Graph, Infer, Node, OpDef, Result, Type, Value,
    Vjp, eval,
};
use std::collections::{HashMap, HashSet};

/// Pushes the nodes that compute an op, and returns its results, the last ones left out where nobody can want them; one
/// that an operand itself is may be that operand.
pub type Body = fn(&mut Builder<'_>, &Node) -> Result<Vec<Value>>;

/// The entry of an op that is written with others.
pub(super) const fn composed(name: &'static str, since: i64, body: Body, doc: &'static str) -> OpDef {
    OpDef { name, since, infer: infer_body, eval: Some(eval_body), vjp: Vjp::Body(body), doc }
}

/// The body of the op that `node` applies.
fn body(node: &Node, opset: i64) -> Result<Body> {
    let none = || Error::new(Code::UNKNOWN_OP, format!("`{}` has no body at opset {opset}", node.op));
    lookup(&node.op, opset).and_then(OpDef::body).ok_or_else(none)
}

/// An empty graph at `opset` of ONNX's own domain with the operands of `node`, and the node on these.
fn alone(node: &Node, opset: i64, operand: impl Fn(&mut Graph, usize) -> Value) -> (Graph, Node) {
    let mut graph = Graph::default();
    graph.opsets.insert(String::new(), opset);
    let inputs = node.inputs.iter().enumerate().map(|(i, v)| v.map(|_| operand(&mut graph, i))).collect();
    (graph, Node { inputs, origin: None, ..node.clone() })
}

fn infer_body(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let untyped = |i: usize| ctx.node.input(i).is_some() && ctx.shape(i).is_none();
    if (0..ctx.node.inputs.len()).any(untyped) {
        return Ok(vec![Fact::default(); ctx.node.outputs.len()]);
    }
    let (mut graph, node) = alone(ctx.node, ctx.standard(), |graph, i| {
        let v = graph.add_value(format!("operand {i}"), ctx.ty(i).cloned());
        graph[v].known = ctx.known(i);
        v
    });
    let mut b = Builder::new(&mut graph);
    // Sizes that only a run can tell are named after values, which must differ from node to node.
    b.scope(format!("{}/", ctx.label()));
    let results = match body(&node, ctx.opset)?(&mut b, &node) {
        // A form that no body is written for is carried along; whoever runs or differentiates it is refused.
        Err(e) if e.code == Code::UNKNOWN_OP => return Ok(vec![Fact::default(); ctx.node.outputs.len()]),
        results => results?,
    };
    let fact = |v: Value| Fact { ty: graph[v].ty.clone(), known: graph[v].known.clone() };
    Ok(results.into_iter().map(fact).collect())
}

fn eval_body(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let array = |i: usize| ctx.get(i).cloned();
    let (mut graph, node) = alone(ctx.node, ctx.standard, |graph, i| {
        let ty = array(i).map(|a| Type::new(a.dtype, a.dims.iter().copied()));
        let v = graph.add_value(format!("operand {i}"), ty);
        graph[v].known = array(i).and_then(|a| known(&a));
        graph.inputs.push(v);
        v
    });
    graph.outputs = body(&node, ctx.opset)?(&mut Builder::new(&mut graph), &node)?;
    let fed: Vec<Option<Array>> =
        (0..node.inputs.len()).filter(|&i| node.input(i).is_some()).map(array).collect();
    eval::eval(&graph, &fed, ctx.precision)
}

/// The elements of a small integer operand, for bodies that depend on them.
fn known(a: &Array) -> Option<Vec<crate::Dim>> {
    match &a.data {
        Data::Int(v) if a.dims.len() <= 1 && v.len() <= crate::infer::MAX_KNOWN => {
            Some(v.iter().map(|&n| n.into()).collect())
        }
        _ => None,
    }
}

/// Computes the op once more, in nodes whose rules then send `dy` back.
pub(crate) fn vjp_body(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let first = ctx.b.graph.nodes.len();
    let results = body(ctx.node, ctx.opset)?(ctx.b, ctx.node)?;
    let nodes = ctx.b.graph.nodes[first..].to_vec();
    let mut moving: HashSet<Value> =
        (0..ctx.node.inputs.len()).filter(|&i| ctx.needs(i)).filter_map(|i| ctx.node.input(i)).collect();
    for node in nodes.iter().filter(|n| !is_constant(n, ctx.b.opset())) {
        if node.reads().any(|v| moving.contains(&v)) {
            moving.extend(node.defines());
        }
    }
    let mut gradients: HashMap<Value, Value> = HashMap::new();
    for (v, dy) in results.into_iter().zip(ctx.dy).filter_map(|(v, dy)| Some((v, (*dy)?))) {
        add(ctx.b, &mut gradients, v, dy)?;
    }
    for node in nodes.iter().rev().filter(|n| n.defines().any(|v| moving.contains(&v))) {
        step_back(ctx.b, node, &moving, &mut gradients)?;
    }
    Ok(ctx.node.inputs.iter().map(|v| v.and_then(|v| gradients.get(&v).copied())).collect())
}

/// Whether nothing flows back through `node`.
fn is_constant(node: &Node, opset: i64) -> bool {
    lookup(&node.op, opset).is_some_and(|def| matches!(def.vjp, Vjp::Zero))
}

fn add(b: &mut Builder<'_>, gradients: &mut HashMap<Value, Value>, v: Value, gradient: Value) -> Result<()> {
    let sum = match gradients.get(&v) {
        Some(&before) => b.add(before, gradient)?,
        None => gradient,
    };
    gradients.insert(v, sum);
    Ok(())
}

/// Adds what `node` sends back to those of its operands that move.
fn step_back(
    b: &mut Builder<'_>,
    node: &Node,
    moving: &HashSet<Value>,
    gradients: &mut HashMap<Value, Value>,
) -> Result<()> {
    let dy: Vec<Option<Value>> =
        node.outputs.iter().map(|v| v.and_then(|v| gradients.get(&v).copied())).collect();
    if dy.iter().all(Option::is_none) {
        return Ok(());
    }
    let opset = b.opset();
    let missing = || Error::new(Code::NO_GRADIENT, format!("`{}` in its body has no gradient", node.op));
    let rule = lookup(&node.op, opset).and_then(|def| def.vjp.rule()).ok_or_else(missing)?;
    let needs: Vec<bool> = node.inputs.iter().map(|v| v.is_some_and(|v| moving.contains(&v))).collect();
    let found = rule(&mut Backward { b, node, opset, dy: &dy, needs: &needs })?;
    for (v, gradient) in node.inputs.iter().zip(found) {
        if let (Some(v), Some(gradient)) = (v, gradient)
            && moving.contains(v)
        {
            add(b, gradients, *v, gradient)?;
        }
    }
    Ok(())
}
