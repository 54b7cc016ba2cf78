//! Adds the penalties of adapter methods to the loss that is differentiated.
//!
//! A method's `graft.MPenalty (…) => (penalty[, count])` takes its operands by name: `x`, what the adapter reads;
//! weights of the adapter; `rank_mask`, which of its ranks count; coefficients. The counts of all adapters together go
//! into `graft.MBudget (count, …) => (penalty)`. A coefficient that no setting gives is an input of the graph, which the
//! method's schedule feeds.
use crate::{
    Context, Options, Pass,
    inject::{Adapter, Coefficients, Method, Variant, adapters, function},
    io, meta, ranks,
};
use graft_ir::{Builder, Code, DType, Error, Function, Graph, Node, Result, Tensor, Value, library};

/// Takes no options. The loss stays an output; further ones are `penalty`, the sum of all penalties, and `objective`,
/// the sum of both, which `grad` differentiates. Where no method asks for a penalty, nothing changes.
pub const PASS: Pass =
    Pass { name: "penalty", about: "adds the penalties of adapter methods to the loss", run: penalty };

fn penalty(graph: &Graph, options: &Options, ctx: &mut Context<'_>) -> Result<Graph> {
    options.expect_only(&[])?;
    let no_loss = || Error::new(Code::LOSS, "the graph has no loss").help("run the pass `loss` first");
    let loss = io::role(graph, "loss")?.ok_or_else(no_loss)?;
    let all = adapters(graph)?;
    let mut out = graph.clone();
    let mut b = Builder::new(&mut out);
    let (mut terms, mut counts) = (Vec::new(), Vec::new());
    let mut budget = None;
    for adapter in &all {
        let Some(called) = Called::new(adapter, all.len())? else { continue };
        let results = called.append(&mut b)?;
        terms.push(results[0]);
        counts.extend(results.get(1));
        budget = function(&format!("{}Budget", called.variant.function));
    }
    if terms.is_empty() {
        return Ok(out);
    }
    if let Some(budget) = budget {
        b.scope("penalty.");
        let count = b.op("count", "Sum", &counts)?;
        let operands = coefficients(budget, &mut |name, _| Ok((name == "count").then_some(count)), &mut b)?;
        terms.push(call(budget, &operands, &mut b)?[0]);
    }
    (ctx.log)(&format!("penalty: {} terms", terms.len()));
    finish(loss, &terms, &mut b)?;
    Ok(out)
}

/// Adds the outputs.
fn finish(loss: Value, terms: &[Value], b: &mut Builder<'_>) -> Result<()> {
    b.scope("penalty.");
    let penalty = b.op("sum", "Sum", terms)?;
    let like = b.cast_like(penalty, loss)?;
    let objective = b.add(loss, like)?;
    for (role, v) in [("penalty", penalty), ("objective", objective)] {
        b.graph[v].name = io::free_name(b.graph, role);
        b.graph.outputs.push(v);
        io::set_role(b.graph, role, v)?;
    }
    Ok(())
}

/// The penalty of one adapter.
struct Called<'a> {
    adapter: &'a Adapter,
    variant: &'static Variant,
    function: &'static Function,
    coefficients: Coefficients,
}

impl<'a> Called<'a> {
    /// `None` where its settings ask for none. `n` adapters share what is a mean over them.
    fn new(adapter: &'a Adapter, n: usize) -> Result<Option<Called<'a>>> {
        let (method, config) = (Method::named(&adapter.method)?, adapter.config()?);
        let coefficients = (method.penalty)(&config, n)?;
        if coefficients.is_empty() {
            return Ok(None);
        }
        let variant = method.variant(&config)?;
        let missing =
            || Error::new(Code::METHOD, format!("`{}` has no function for its penalty", method.name));
        let function = method.companion(&config, "Penalty")?.ok_or_else(missing)?;
        Ok(Some(Called { adapter, variant, function, coefficients }))
    }

    fn append(&self, b: &mut Builder<'_>) -> Result<Vec<Value>> {
        let path = &self.adapter.target;
        b.scope(format!("penalty.{path}."));
        let find = &mut |name: &str, b: &mut Builder<'_>| match name {
            "x" => self.input(b).map(Some),
            ranks::MASK => ranks::mask(path, b).map(Some),
            _ => match self.coefficients.iter().find(|c| c.0 == name) {
                Some(&(name, value)) => b.constant(name, Tensor::f32(&[], &[value as f32])).map(Some),
                None => Ok(ranks::weight(b.graph, path, name)),
            },
        };
        let operands = coefficients(self.function, find, b)?;
        let results = call(self.function, &operands, b)?;
        results.into_iter().map(|v| b.cast(v, DType::Float)).collect()
    }

    /// What the adapter reads.
    fn input(&self, b: &mut Builder<'_>) -> Result<Value> {
        let is_it = |n: &&Node| {
            let note = |key: &str| n.meta.get(key).map(String::as_str);
            note(meta::TARGET) == Some(&self.adapter.target)
                && (note(meta::ROLE) == Some(meta::BASE) || n.op == self.variant.function)
        };
        let x = b.graph.nodes.iter().find(is_it).and_then(|n| n.input(0));
        let lost = || Error::new(Code::GRAPH, format!("the linear `{}` is not found", self.adapter.target));
        b.cast(x.ok_or_else(lost)?, DType::Float)
    }
}

/// The operands of `function`: what `find` has for a name, else an input of the graph that plays this role.
fn coefficients(
    function: &Function,
    find: &mut dyn FnMut(&str, &mut Builder<'_>) -> Result<Option<Value>>,
    b: &mut Builder<'_>,
) -> Result<Vec<Value>> {
    let names: Vec<&str> = function.body.inputs.iter().map(|&v| function.body.name(v)).collect();
    names
        .into_iter()
        .map(|name| match find(name, b)? {
            Some(v) => Ok(v),
            None => io::scalar_input(b.graph, name, DType::Float),
        })
        .collect()
}

fn call(function: &Function, operands: &[Value], b: &mut Builder<'_>) -> Result<Vec<Value>> {
    library::adopt(b.graph, function)?;
    b.push_n("penalty", Node::new(&function.name, operands, &[]), function.body.outputs.len())
}
