//! Puts an adapter beside each chosen linear. `METHODS` lists the adapters.
mod adapters;
mod fit;
mod graft;
mod lora;
mod method;
mod plan;

pub(crate) use graft::initial;

pub use adapters::{Adapter, adapters, file_tensors, trainable};
pub use method::{Config, FileForm, Init, Kind, METHODS, Method, Weight, function};

use crate::{Context, Options, Pass, Selector, target};
use graft_ir::{Builder, Code, Error, Graph, Result};

/// Options: `method`, `rank`, `alpha` and the method's own; `targets`, `exclude`, `layers`, `layers-pattern` (see
/// [`Selector`]); `rank-pattern` and `alpha-pattern` (`PATTERN=VALUE`, repeatable); `inputs` makes the adapters'
/// weights overridable inputs of the graph; `finite` refuses base weights that hold NaN or infinite values, in place
/// of a warning.
///
/// With trained weights in the context, they fill the adapters, and every one of them must fit; without `targets`
/// they also say which linears are adapted.
pub const PASS: Pass =
    Pass { name: "inject", about: "puts an adapter beside each chosen linear node", run: inject };

/// The options that all methods share, those of [`Selector`] aside.
const OPTIONS: &[&str] = &["method", "rank", "alpha", "rank-pattern", "alpha-pattern", "inputs", "finite"];

fn inject(graph: &Graph, options: &Options, ctx: &mut Context<'_>) -> Result<Graph> {
    let method = Method::named(&options.get_or("method", "lora".to_string())?)?;
    options.expect_only(&[OPTIONS, Selector::OPTIONS, method.options].concat())?;
    check_opset(graph, method)?;
    let linears = target::targets(graph)?;
    let plan = plan::plan(method, &linears, options, ctx.adapter)?;
    check_finite(graph, &plan, options.get_or("finite", false)?, ctx)?;
    let given = ctx.adapter.map(|tensors| fit::fit(method, &linears, &plan, tensors)).transpose()?;
    let mut out = graph.clone();
    // Nodes may carry notes since IR version 10; 0 stands for a graph that is no whole model.
    if out.ir_version != 0 {
        out.ir_version = out.ir_version.max(10);
    }
    let mut b = Builder::new(&mut out);
    let mut grafter =
        graft::Grafter::new(method, ctx.seed, given.unwrap_or_default(), options.get_or("inputs", false)?)?;
    for (i, node) in std::mem::take(&mut b.graph.nodes).into_iter().enumerate() {
        match plan.iter().find(|planned| planned.linear.index == Some(i)) {
            Some(planned) => grafter.graft(node, planned, &mut b)?,
            None => b.graph.nodes.push(node),
        }
    }
    let parameters: usize = plan.iter().map(|planned| planned.parameters()).sum();
    let sizes =
        format!("{} of {} linear nodes, {parameters} trainable parameters", plan.len(), linears.len());
    (ctx.log)(&format!("inject: `{}` on {sizes}", method.name));
    Ok(out)
}

/// An adapter is written in ops that the model's opset must have.
fn check_opset(graph: &Graph, method: &Method) -> Result<()> {
    let Some(opset) = graph.opset("") else { return Ok(()) };
    if opset >= method.opset {
        return Ok(());
    }
    let message = format!("`{}` needs opset {}, the model has {opset}", method.name, method.opset);
    let help = format!("`graft opt -p 'upgrade{{opset={}}}'` raises it", method.opset);
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
