//! Brings a graph into the form that the other passes and the kernels know, whatever exporter wrote it.
//!
//! Where before and after can be written down, they are a pair in `canonicalize.onnxtxt`. What a pair cannot say is
//! code: which operand is constant (`operands`), a `Gemm` with its four attributes (`gemm`), ops whose form depends on which
//! operands they have, as those of ONNX Runtime do (`expand`), and attention, which every exporter writes in its own way.
mod attention;
pub(crate) mod expand;
mod forward;
mod gemm;
mod operands;

use crate::{
    Context, Options, Pass, constant,
    rewrite::{Pattern, Reject, Replacement, rewrite},
};
use graft_ir::{Function, Graph, Node, Result, Value, library, parse_functions};

/// Takes no options.
pub const PASS: Pass = Pass {
    name: "canonicalize",
    about: "raises decomposed norms, Gelu, rotations and attention to calls, and turns every linear into MatMul (x, w) and Add",
    run: canonicalize,
};

const PAIRS: &str = include_str!("canonicalize.onnxtxt");

fn canonicalize(graph: &Graph, options: &Options, ctx: &mut Context<'_>) -> Result<Graph> {
    options.expect_only(&[])?;
    let graph = forward::forward(graph)?;
    let graph = expand::expand(&graph, ctx)?;
    let graph = operands::constants_last(&graph);
    let graph = operands::known_bounds(&graph)?;
    let mut graph = gemm::to_matmul(&graph, ctx)?;
    for pair in parse_functions(PAIRS)?.chunks_exact(2) {
        graph = replace(&graph, &pair[0], &pair[1], ctx)?;
    }
    attention::raise(&graph, ctx)
}

/// Replaces `before` by `after` wherever [`fits`] lets it.
fn replace(graph: &Graph, before: &Function, after: &Function, ctx: &mut Context<'_>) -> Result<Graph> {
    // A pair is looked for only if its ops occur: spelling it for the graph's opset could fail for no reason.
    let occurs = |op: &str| op == "Constant" || graph.nodes.iter().any(|n| n.op == op);
    if !before.body.nodes.iter().all(|n| occurs(&n.op)) {
        return Ok(graph.clone());
    }
    let (before, after) = (spelled(before, graph)?, spelled(after, graph)?);
    let mut with_library = graph.clone();
    for node in after.body.nodes.iter().filter(|n| n.op.starts_with("graft.")) {
        library::require(&mut with_library, &node.op)?;
    }
    let pattern = Pattern::new(&before)?;
    let (out, n) = rewrite(&pattern, Replacement::Body(&after), &with_library, &fits, ctx.log)?;
    if n == 0 {
        return Ok(graph.clone());
    }
    (ctx.log)(&format!("canonicalize: {} × {n}", before.name));
    Ok(out)
}

/// A rule in the words of the graph's opset.
fn spelled(function: &Function, graph: &Graph) -> Result<Function> {
    let mut scratch = Graph { opsets: graph.opsets.clone(), ..Graph::default() };
    library::adopt(&mut scratch, function)?;
    Ok(Function::clone(&scratch.functions[&function.name]))
}

/// What a pair's formula takes for granted about its operands.
fn fits(graph: &Graph, call: &Node) -> std::result::Result<(), Reject> {
    let rank = |i: usize| call.input(i).and_then(|v| graph.shape(v)).map(<[_]>::len);
    let name = |i: usize| call.input(i).map_or("", |v| graph.name(v));
    match call.domain_and_name().1 {
        // Scale and bias go with the last axis alone.
        norm if norm.starts_with("LayerNorm") || norm.starts_with("RmsNorm") => {
            match (1..call.inputs.len()).find(|&i| rank(i) != Some(1)) {
                Some(i) => Err(format!("`{}` is not known to have rank 1", name(i))),
                None => Ok(()),
            }
        }
        "Rotary" => {
            let shape = |v: Option<Value>| v.and_then(|v| graph.shape(v));
            let width = shape(call.input(0)).and_then(|x| x.last()?.as_const());
            let half = call.ints("half").ok().flatten().and_then(<[i64]>::first).copied();
            match half.is_some()
                && width == half.map(|n| 2 * n)
                && shape(call.input(0)) == shape(call.output(0))
            {
                true => Ok(()),
                false => Err(format!("`{}` is not known to be cut in halves", name(0))),
            }
        }
        "BiasLast" => {
            let constants = constant::values(graph);
            match [1, 2].into_iter().find(|&i| !call.input(i).is_some_and(|v| constants.contains(&v))) {
                Some(i) => Err(format!("`{}` is not constant", name(i))),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}
