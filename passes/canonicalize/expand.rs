//! Ops that the table writes with others, where no kernel serves them: they become those others.
use super::gemm;
use crate::Context;
use graft_ir::{Builder, Code, Graph, Node, OpDef, Result, Type, infer, ops};

/// Replaces each such op by its body, so that pairs find what it is made of, and its gradient computes nothing twice.
/// Where a rank is not known, the op stays; so do products that `gemm` knows better.
pub(super) fn expand(graph: &Graph, ctx: &mut Context<'_>) -> Result<Graph> {
    let mut out = graph.clone();
    let mut b = Builder::new(&mut out);
    let mut n = 0;
    for node in std::mem::take(&mut b.graph.nodes) {
        match body(&node, b.graph, ctx).filter(|_| node.op != gemm::FUSED) {
            Some(body) => {
                let first = b.graph.nodes.len();
                match write_out(&node, body, &mut b) {
                    Ok(()) => n += 1,
                    // A form that no body is written for is carried along.
                    Err(e) if e.code == Code::UNKNOWN_OP => {
                        let label = infer::node_label(b.graph, &node);
                        (ctx.log)(&format!(
                            "canonicalize: not written with other ops: `{label}`: {}",
                            e.message
                        ));
                        b.graph.nodes.truncate(first);
                        b.graph.nodes.push(node);
                    }
                    Err(e) => return Err(e),
                }
            }
            None => b.graph.nodes.push(node),
        }
    }
    if n > 0 {
        out.sweep();
        (ctx.log)(&format!("canonicalize: written with other ops × {n}"));
    }
    Ok(out)
}

/// The body to put in place of `node`, if there is one and it can be written here.
pub(super) fn body(node: &Node, graph: &Graph, ctx: &Context<'_>) -> Option<ops::Body> {
    let opset = graph.opset(node.domain_and_name().0).unwrap_or(1);
    let body = ops::lookup(&node.op, opset).and_then(OpDef::body)?;
    let types: Vec<Option<Type>> = node.inputs.iter().map(|v| graph[(*v)?].ty.clone()).collect();
    let has_rank = |v: &graft_ir::Value| graph.shape(*v).is_some();
    (node.inputs.iter().flatten().all(has_rank) && !(ctx.has_kernel)(node, &types)).then_some(body)
}

/// Appends what `node` is written with.
///
/// The first product is called as the node was, or else the last node; the others after it and their results.
pub(crate) fn write_out(node: &Node, body: ops::Body, b: &mut Builder<'_>) -> Result<()> {
    let place = format!("node `{}` ({})", infer::node_label(b.graph, node), node.op);
    let first = b.graph.nodes.len();
    let scope = crate::inline::scope(b.graph, node);
    let results = body(b.scope(scope.clone()), node).map_err(|e| e.at(place))?;
    let mut nodes = b.graph.nodes.split_off(first);
    let mut copies = Vec::new();
    for (v, wanted) in results.into_iter().zip(&node.outputs) {
        let Some(wanted) = *wanted else { continue };
        // The node that computes a result defines it at once, unless that is an operand or another result too.
        if !nodes.iter().any(|n| n.defines().any(|o| o == v)) {
            copies.push(Node::new("Identity", &[v], &[wanted]));
            continue;
        }
        let slots = nodes.iter_mut().flat_map(|n| n.inputs.iter_mut().chain(&mut n.outputs)).flatten();
        slots.filter(|slot| **slot == v).for_each(|slot| *slot = wanted);
    }
    // ONNX Runtime wants names of nodes to differ.
    let product = nodes.iter().position(|n| matches!(&*n.op, "Gemm" | "MatMul"));
    let named = product.unwrap_or(nodes.len().saturating_sub(1));
    for (i, mut inner) in nodes.into_iter().enumerate() {
        let part = inner.output(0).and_then(|v| b.graph.name(v).strip_prefix(&scope)).unwrap_or(&inner.op);
        inner.name = match i == named || node.name.is_empty() {
            true => node.name.clone(),
            false => format!("{}/{part}", node.name),
        };
        inner.meta.clone_from(&node.meta);
        b.append(inner)?;
    }
    copies.into_iter().try_for_each(|copy| b.append(copy))
}
