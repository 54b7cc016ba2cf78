//! Puts an adapter beside each chosen linear. `METHODS` lists the adapters.
mod adalora;
mod adapters;
mod bat;
mod bone;
pub mod budget;
mod compact;
mod draws;
mod evaluated;
mod files;
mod fit;
mod gates;
mod graft;
mod growth;
mod hydra;
mod importance;
mod initial;
mod inputs;
mod lora;
mod method;
pub mod peft;
mod plan;
mod salora;
pub mod schedule;
mod sizes;
mod tri;

pub(crate) use evaluated::bound;
pub(crate) use initial::initial;

pub use adapters::{Adapter, Stored, adapters, draws, file_tensors, settled, stored, trainable};
pub use compact::compacted;
pub use evaluated::statistics;
pub use files::{Axis, FileForm};
pub use inputs::{Inputs, input_tensors, of_inputs};
pub use method::{
    Coefficients, Config, Init, METHODS, Method, Parts, Setting, Training, Variant, Weight, function,
};
pub use peft::Peft;
pub use schedule::Schedule;
pub use sizes::stand_in;

use crate::{Context, Options, Pass, Selector, canonicalize::expand::write_out, target};
use graft_ir::{Builder, Code, Error, Graph, OpDef, Result, ops};
use std::collections::BTreeSet;

/// Options: `method`, `rank`, `alpha` and the method's own; `targets`, `exclude`, `layers`, `layers-pattern` (see
/// [`Selector`]); `rank-pattern` and `alpha-pattern` (`PATTERN=VALUE`, repeatable); `inputs` (`none`,
/// `weights` or `scale`: these and the scale) makes the adapters' weights overridable inputs of the graph, of any rank where
/// the method allows it, and of rank 0 where none are given; `finite` refuses base weights that hold NaN or infinite values, in place
/// of a warning; `training` puts in what each step of a training draws (dropout, random gates), as functions of the new
/// inputs `seed` and `step`.
///
/// With trained weights in the context, they fill the adapters, and every one of them must fit; without `targets`
/// they also say which linears are adapted.
pub const PASS: Pass =
    Pass { name: "inject", about: "puts an adapter beside each chosen linear node", run: inject };

/// The oldest opset in which random draws can be said.
const DRAWING: i64 = 14;

/// The options that all methods share, those of [`Selector`] aside.
const OPTIONS: &[&str] =
    &["method", "rank", "alpha", "rank-pattern", "alpha-pattern", "inputs", "finite", "training"];

fn inject(graph: &Graph, options: &Options, ctx: &mut Context<'_>) -> Result<Graph> {
    let method = Method::named(&options.get_or("method", "lora".to_string())?)?;
    expect_known(method, options)?;
    let linears = target::targets(graph)?;
    let plan = plan::plan(method, &linears, options, ctx.adapter)?;
    let graph = &apart(graph, &plan.iter().filter_map(|planned| planned.linear.index).collect())?;
    let linears = target::targets(graph)?;
    let plan = plan::plan(method, &linears, options, ctx.adapter)?;
    let training = options.get_or("training", false)?;
    for planned in &plan {
        let draws = training && planned.draws()?;
        check_opset(
            graph,
            method,
            if draws { planned.variant.opset.max(DRAWING) } else { planned.variant.opset },
        )?;
    }
    check_finite(graph, &plan, options.get_or("finite", false)?, ctx)?;
    let given = ctx.adapter.map(|tensors| fit::fit(method, &linears, &plan, tensors)).transpose()?;
    let mut out = graph.clone();
    // Nodes may carry notes since IR version 10; 0 stands for a graph that is no whole model.
    if out.ir_version != 0 {
        out.ir_version = out.ir_version.max(10);
    }
    let mut b = Builder::new(&mut out);
    let inputs: Inputs = options.get_or("inputs", Inputs::None)?;
    let mut grafter = graft::Grafter::new(method, ctx.seed, given.unwrap_or_default(), inputs, training);
    for (i, node) in std::mem::take(&mut b.graph.nodes).into_iter().enumerate() {
        match plan.iter().find(|planned| planned.linear.index == Some(i)) {
            Some(planned) => grafter.graft(node, planned, &mut b)?,
            None => b.graph.nodes.push(node),
        }
    }
    let parameters = plan::parameters(&plan);
    let sizes =
        format!("{} of {} linear nodes, {parameters} trainable parameters", plan.len(), linears.len());
    (ctx.log)(&format!("inject: `{}` on {sizes}", method.name));
    Ok(out)
}

/// The graph with those of the nodes `chosen` written out that are a linear with more behind it.
fn apart(graph: &Graph, chosen: &BTreeSet<usize>) -> Result<Graph> {
    let mut out = graph.clone();
    let mut b = Builder::new(&mut out);
    for (i, node) in std::mem::take(&mut b.graph.nodes).into_iter().enumerate() {
        let is_whole = target::WITH_MORE.contains(&&*node.op) && chosen.contains(&i);
        match ops::lookup(&node.op, 1).and_then(OpDef::body).filter(|_| is_whole) {
            Some(body) => write_out(&node, body, &mut b)?,
            None => b.graph.nodes.push(node),
        }
    }
    Ok(out)
}

/// Refuses options that neither all methods nor this one have.
fn expect_known(method: &Method, options: &Options) -> Result<()> {
    let settings: Vec<&str> = method.settings.iter().map(|s| s.name).collect();
    options
        .expect_only(&[OPTIONS, Selector::OPTIONS, &settings].concat())
        .map_err(|e| Error { help: e.help.map(|help| format!("{help}; {}", method.settings_help())), ..e })?;
    let given = ["alpha", "alpha-pattern"].into_iter().find(|key| !options.all(key).is_empty());
    match given.filter(|_| method.alpha.is_none()) {
        Some(key) => {
            Err(Error::new(Code::METHOD, format!("method `{}` has no scale, so no `{key}`", method.name)))
        }
        None => Ok(()),
    }
}

/// An adapter is written in ops that the model's opset must have.
fn check_opset(graph: &Graph, method: &Method, oldest: i64) -> Result<()> {
    let Some(opset) = graph.opset("").filter(|&opset| opset < oldest) else { return Ok(()) };
    let message = format!("`{}` needs opset {oldest}, the model has {opset}", method.name);
    let help = format!("`graft opt -p 'upgrade{{opset={oldest}}}'` raises it");
    Err(Error::new(Code::OPSET, message).help(help))
}

/// Reports base weights with NaN or infinite values, or refuses them.
fn check_finite(
    graph: &Graph,
    plan: &[plan::Planned<'_>],
    refuse: bool,
    ctx: &mut Context<'_>,
) -> Result<()> {
    for planned in plan {
        let linear = planned.linear;
        if target::weight(graph, linear).is_none_or(target::is_finite) {
            continue;
        }
        let message = format!("weight `{}` of `{}` holds NaN or infinite values", linear.weight, linear.path);
        if refuse {
            return Err(Error::new(Code::NON_FINITE, message).help("leave it out with `exclude`"));
        }
        (ctx.log)(&format!("warning: {message}"));
    }
    Ok(())
}
