//! Differentiates the loss by every trained weight: a reverse sweep that asks each op's rule to push nodes.
//!
//! Only what depends on a trained weight and reaches the loss is visited, so frozen weights get no gradient. A call of
//! a function `graft.F (x, …) => (y, saved…)` for which there is `graft.FGrad (dy, x, …, saved…) => (dx, …)` becomes a
//! call of that; other calls are expanded first.
mod again;
mod calls;

use crate::{Context, Options, Pass, inject::trainable, io};
use graft_ir::{
    Backward, Builder, Code, Error, Graph, Node, Result, Tensor, Value, Vjp, infer::node_label, ops,
};
use std::collections::{HashMap, HashSet};

/// Adds an output `<weight>.grad` for each trained weight that the loss depends on.
pub const PASS: Pass =
    Pass { name: "grad", about: "differentiates the loss by every trained weight", run: grad };

/// A value that is constant in the gradient passes through this function.
const DETACH: &str = "graft.Detach";

fn grad(graph: &Graph, options: &Options, ctx: &mut Context<'_>) -> Result<Graph> {
    options.expect_only(&[])?;
    let no_loss = || Error::new(Code::LOSS, "the graph has no loss").help("run the pass `loss` first");
    let loss = match io::role(graph, "objective")? {
        Some(objective) => objective,
        None => io::role(graph, "loss")?.ok_or_else(no_loss)?,
    };
    let weights = trainable(graph);
    let mut out = calls::expanded(graph, &path(graph, &weights, loss))?;
    let path = path(&out, &weights, loss);
    refuse_missing(&out, &path)?;
    let reached: Vec<Value> = weights.iter().copied().filter(|w| path.values.contains(w)).collect();
    report_unreached(graph, &weights, &reached, ctx)?;
    calls::want_saved(&mut out, &path)?;

    let mut b = Builder::new(&mut out);
    let mut sweep = Sweep { path: &path, terms: HashMap::new() };
    b.scope("grad.");
    let seed = b.scalar_like("loss", 1.0, loss)?;
    sweep.terms.insert(loss, vec![seed]);
    let forward = b.graph.nodes.clone();
    for (i, node) in forward.iter().enumerate().rev() {
        if path.nodes.contains(&i) {
            sweep.visit(node, &mut b)?;
        }
    }
    outputs(&reached, sweep, forward.len(), &mut b)?;
    again::recompute(forward.len(), &mut b)?;
    if io::role(&out, "objective")?.is_some() {
        // It was there to be differentiated.
        io::drop_role(&mut out, "objective")?;
        out.outputs.retain(|&v| v != loss);
    }
    for node in &mut out.nodes {
        if node.op == DETACH {
            node.op = "Identity".into();
        }
    }
    out.sweep();
    Ok(out)
}

/// What lies between the trained weights and the loss.
pub(crate) struct Path {
    /// Values that depend on a trained weight, and on which the loss depends.
    values: HashSet<Value>,
    /// Indices of the nodes that define such values from such values.
    nodes: HashSet<usize>,
}

/// Whether nothing flows back through the node, whatever its operands.
fn is_cut(graph: &Graph, node: &Node) -> bool {
    let opset = graph.opset(node.domain_and_name().0).unwrap_or(1);
    node.op == DETACH || ops::lookup(&node.op, opset).is_some_and(|def| matches!(def.vjp, Vjp::Zero))
}

fn path(graph: &Graph, weights: &[Value], loss: Value) -> Path {
    let carries = |v: &Value| graph.dtype(*v).is_none_or(|dtype| dtype.is_float());
    let mut dependent: HashSet<Value> = weights.iter().copied().collect();
    for node in &graph.nodes {
        if !is_cut(graph, node) && node.reads().any(|v| dependent.contains(&v)) {
            dependent.extend(node.defines().filter(carries));
        }
    }
    let mut path = Path { values: HashSet::new(), nodes: HashSet::new() };
    if dependent.contains(&loss) {
        path.values.insert(loss);
    }
    for (i, node) in graph.nodes.iter().enumerate().rev() {
        if !is_cut(graph, node) && node.defines().any(|v| path.values.contains(&v)) {
            path.nodes.insert(i);
            path.values.extend(node.reads().filter(|v| dependent.contains(v)));
        }
    }
    path
}

/// One refusal for all nodes on the path that have no gradient.
fn refuse_missing(graph: &Graph, path: &Path) -> Result<()> {
    let has_gradient = |node: &Node| -> Result<bool> {
        let opset = graph.opset(node.domain_and_name().0).unwrap_or(1);
        match ops::lookup(&node.op, opset) {
            Some(def) => Ok(!matches!(def.vjp, Vjp::Missing)),
            None => Ok(calls::gradient_of(graph, &node.op)?.is_some()),
        }
    };
    let mut missing = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        if path.nodes.contains(&i) && !has_gradient(node)? {
            missing.push(format!("`{}` at node `{}`", node.op, node_label(graph, node)));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("no gradient for {}, between a trained weight and the loss", missing.join(", "));
    Err(Error::new(Code::NO_GRADIENT, message)
        .help("choose targets behind these nodes, with `targets` or `exclude`"))
}

/// Says which trained weights the loss does not depend on; an error if that is all.
fn report_unreached(
    graph: &Graph,
    weights: &[Value],
    reached: &[Value],
    ctx: &mut Context<'_>,
) -> Result<()> {
    if reached.is_empty() {
        let message = if weights.is_empty() {
            "the graph has no trained weight".to_string()
        } else {
            format!("none of the {} trained weights reaches the loss", weights.len())
        };
        return Err(
            Error::new(Code::FROZEN, message).help("run `inject` or `head` first, or choose other targets")
        );
    }
    for &weight in weights.iter().filter(|w| !reached.contains(w)) {
        (ctx.log)(&format!("grad: `{}` does not reach the loss and stays as it is", graph.name(weight)));
    }
    Ok(())
}

/// The state of the reverse sweep.
struct Sweep<'p> {
    path: &'p Path,
    /// For each value, the terms of its gradient so far, in the order of the sweep.
    terms: HashMap<Value, Vec<Value>>,
}

impl Sweep<'_> {
    /// The gradient of `v`: the sum of its terms, in the order in which they came.
    fn take(&mut self, v: Value, b: &mut Builder<'_>) -> Result<Option<Value>> {
        let Some(terms) = self.terms.remove(&v) else { return Ok(None) };
        let mut terms = terms.into_iter();
        let Some(first) = terms.next() else { return Ok(None) };
        terms.try_fold(first, |sum, term| b.add(sum, term)).map(Some)
    }

    /// Pushes the gradient of one node and adds a term to each operand on the path.
    fn visit(&mut self, node: &Node, b: &mut Builder<'_>) -> Result<()> {
        let mut dy = Vec::with_capacity(node.outputs.len());
        for output in &node.outputs {
            b.scope(output.map_or("grad.".into(), |v| format!("grad.{}.", b.graph.name(v))));
            dy.push(output.map_or(Ok(None), |v| self.take(v, b))?);
        }
        if dy.iter().all(Option::is_none) {
            return Ok(());
        }
        let needs: Vec<bool> =
            node.inputs.iter().map(|v| v.is_some_and(|v| self.path.values.contains(&v))).collect();
        let place = |e: Error| e.at(format!("gradient of node `{}` ({})", node.name, node.op));
        let terms = backward(node, &dy, &needs, b).map_err(place)?;
        for ((operand, term), need) in node.inputs.iter().zip(terms).zip(needs) {
            if let (Some(v), Some(term), true) = (operand, term, need) {
                self.terms.entry(*v).or_default().push(term);
            }
        }
        Ok(())
    }
}

/// The terms that a node adds to its operands' gradients.
fn backward(
    node: &Node,
    dy: &[Option<Value>],
    needs: &[bool],
    b: &mut Builder<'_>,
) -> Result<Vec<Option<Value>>> {
    let opset = b.graph.opset(node.domain_and_name().0).unwrap_or(1);
    let Some(def) = ops::lookup(&node.op, opset) else { return calls::backward(node, dy, needs, b) };
    let Some(rule) = def.vjp.rule() else { return Ok(Vec::new()) };
    rule(&mut Backward { b, node, opset, dy, needs })
}

/// Makes the gradients outputs, called `<weight>.grad`; the sweep's own values, those before `n_forward` nodes aside,
/// are renamed to that.
fn outputs(weights: &[Value], mut sweep: Sweep<'_>, n_forward: usize, b: &mut Builder<'_>) -> Result<()> {
    let mut renamable: HashSet<Value> = b.graph.nodes[n_forward..].iter().flat_map(Node::defines).collect();
    for &weight in weights {
        let role = format!("{}.grad", b.graph.name(weight));
        let name = io::free_name(b.graph, &role);
        b.scope(format!("{name}."));
        let mut gradient = match sweep.take(weight, b)? {
            Some(gradient) => gradient,
            // Every rule on the path left it out: the loss is constant in it.
            None => zeros(weight, b)?,
        };
        let is_sum = b.graph.nodes.last().is_some_and(|n| n.output(0) == Some(gradient));
        if renamable.remove(&gradient) || is_sum {
            b.graph[gradient].name = name;
        } else {
            let v = b.graph.add_value(name, None);
            b.append(Node::new("Identity", &[gradient], &[v]))?;
            gradient = v;
        }
        b.graph.outputs.push(gradient);
        io::set_role(b.graph, &role, gradient)?;
    }
    Ok(())
}

fn zeros(weight: Value, b: &mut Builder<'_>) -> Result<Value> {
    let ty = b.graph[weight].ty.clone();
    let tensor = ty.and_then(|ty| Some((ty.dtype, ty.sizes()?))).and_then(|(dtype, dims)| {
        let n = dims.iter().product();
        Tensor::from_f64(dtype, &dims, std::iter::repeat_n(0.0, n))
    });
    let unknown = || Error::new(Code::TYPES, format!("the size of `{}` is not known", b.graph.name(weight)));
    let tensor = tensor.ok_or_else(unknown)?;
    b.constant("zeros", tensor)
}
