//! Turns bodies of functions into calls, where a kernel does better than the body: the inverse of `inline`.
use crate::{
    Context, Options, Pass,
    inject::{METHODS, Variant},
    rewrite::{Pattern, Reject, Replacement, rewrite},
};
use graft_ir::{Function, Graph, Node, Result, Type, Value, library};
use std::{cmp::Reverse, sync::Arc};

/// Takes no options.
pub const PASS: Pass =
    Pass { name: "fuse", about: "replaces bodies of functions by calls where there is a kernel", run: fuse };

/// Library functions whose bodies may stand in a graph: what exporters and `inline` write out.
///
/// Not here are functions that a body cannot tell from something else (`graft.Detach` is an `Identity`), and
/// gradients of which an operand does not occur in the body (`graft.LayerNormGrad`): `grad` calls them at once.
const LIBRARY: &[&str] =
    &["graft.AdamW", "graft.Gelu", "graft.GeluGrad", "graft.GeluTanh", "graft.LayerNorm", "graft.RmsNorm"];

fn fuse(graph: &Graph, options: &Options, ctx: &mut Context<'_>) -> Result<Graph> {
    options.expect_only(&[])?;
    let has_kernel = ctx.has_kernel;
    let accept = |graph: &Graph, call: &Node| -> std::result::Result<(), Reject> {
        let types: Vec<Option<Type>> = call.inputs.iter().map(|v| graph[(*v)?].ty.clone()).collect();
        if has_kernel(call, &types) { Ok(()) } else { Err("there is no kernel for these operands".into()) }
    };
    let mut graph = graph.clone();
    for function in functions(&graph)? {
        // What a call means is said by the graph's own function of that name, if it has one.
        let mut with_function = graph.clone();
        library::adopt(&mut with_function, &function)?;
        let function = Arc::clone(&with_function.functions[&function.name]);
        let pattern = Pattern::new(&function)?;
        let (fused, n) = rewrite(&pattern, Replacement::Call, &with_function, &accept, ctx.log)?;
        if n > 0 {
            (ctx.log)(&format!("fuse: {} × {n}", function.name));
            graph = fused;
        }
    }
    Ok(graph)
}

/// Whether the body tells every operand of a call.
fn can_be_found(function: &Function) -> bool {
    let read = |v: &Value| function.body.nodes.iter().any(|n| n.reads().any(|r| r == *v));
    function.body.inputs.iter().all(read)
}

/// The functions to look for, the longest first, so that no short one takes a part of a long one; those that cannot
/// be said in the graph's opset cannot stand in it.
fn functions(graph: &Graph) -> Result<Vec<Function>> {
    let mut functions: Vec<Function> =
        LIBRARY.iter().filter_map(|name| library::get(name).cloned()).collect();
    let variants = METHODS.iter().flat_map(|m| m.variants);
    functions.extend(variants.flat_map(Variant::in_graphs).filter(|f| can_be_found(f)).cloned());
    functions.retain(|f| library::adopt(&mut graph.clone(), f).is_ok());
    functions.sort_by_key(|f| Reverse(f.body.nodes.len()));
    Ok(functions)
}
