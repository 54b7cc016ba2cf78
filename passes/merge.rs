//! Folds adapters into the weights that they adapt.
mod strip;
mod weight;

use crate::{
    Context, Linear, Options, Pass,
    inject::{self, Method, adapters},
    meta,
    target::{is_finite, targets},
};
use graft_ir::{Array, Code, Error, Graph, Node, Precision, Result, Tensor, Value, eval::eval};

/// Options: `weight`: how much of the adapter is folded in (1); and those of `inject`, where the context holds trained
/// weights.
///
/// With trained weights in the context they are folded into `graph`; without, the adapters that are on `graph` are,
/// and taken off. A merged weight keeps its layout and element type; it is computed in double precision and rounded
/// once. A weight that others use too stays for them, and the linear gets its own.
pub const PASS: Pass =
    Pass { name: "merge", about: "folds adapters into the weights that they adapt", run: merge };

fn merge(graph: &Graph, options: &Options, ctx: &mut Context<'_>) -> Result<Graph> {
    let factor: f64 = options.get_or("weight", 1.0)?;
    let inject_options = options.without("weight");
    let (merged, mut out) = if ctx.adapter.is_some() {
        let adapted = (inject::PASS.run)(graph, &inject_options.with("finite", true), ctx)?;
        (merged_weights(&adapted, factor)?, graph.clone())
    } else {
        inject_options.expect_only(&[])?;
        (merged_weights(graph, factor)?, strip::stripped(graph)?)
    };
    for (path, tensor) in &merged {
        let linears = targets(&out)?;
        let lost = || Error::new(Code::MERGE, format!("linear `{path}` is not found again"));
        let linear = linears.iter().find(|l| l.path == *path).ok_or_else(lost)?;
        weight::replace(&mut out, linear, tensor.clone())?;
    }
    out.sweep();
    (ctx.log)(&format!("merge: {} adapters folded in", merged.len()));
    Ok(out)
}

/// For each adapter on `graph`, the path of its linear and the weight that has the same effect, as it is stored.
fn merged_weights(graph: &Graph, factor: f64) -> Result<Vec<(String, Tensor)>> {
    let found = adapters(graph)?;
    if found.is_empty() {
        let help = "give one with `--adapter`, or a model that `graft inject` made";
        return Err(Error::new(Code::MERGE, "there is no adapter to merge").help(help));
    }
    let linears = targets(graph)?;
    let merged = |adapter: &inject::Adapter| {
        let is_base = |l: &&Linear| l.index.is_some_and(|i| is_base_of(&graph.nodes[i], &adapter.target));
        let lost = || {
            Error::new(
                Code::MERGE,
                format!("the base linear of adapter `{}` is not in the graph", adapter.target),
            )
            .help("run the pass `inline` first if the graph is fused")
        };
        let linear = linears.iter().find(is_base).ok_or_else(lost)?;
        let place = || format!("merging into `{}`", adapter.target);
        let tensor = merged_weight(graph, adapter, linear, factor).map_err(|e| e.at(place()))?;
        Ok((adapter.target.clone(), tensor))
    };
    found.iter().map(merged).collect()
}

/// Whether `node` is the linear that the adapter on `target` adapts.
fn is_base_of(node: &Node, target: &str) -> bool {
    let notes = |key: &str, value: &str| node.meta.get(key).is_some_and(|v| v == value);
    notes(meta::ROLE, meta::BASE) && notes(meta::TARGET, target)
}

fn merged_weight(graph: &Graph, adapter: &inject::Adapter, linear: &Linear, factor: f64) -> Result<Tensor> {
    let stored = weight::stored(graph, linear)?;
    let node = linear.index.map(|i| &graph.nodes[i]);
    let alpha = node.map_or(Ok(None), |n| n.float("alpha"))?.map_or(1.0, f64::from);
    let w = weight::from_stored(linear, &stored, alpha)?;
    let method = Method::named(&adapter.method)?;
    let config =
        inject::Config { rank: adapter.rank, alpha: adapter.alpha, settings: adapter.settings.clone() };
    let function = method.function_named(&format!("{}Merged", (method.function)(&config)))?;
    let mut operands = vec![Some(w.clone())];
    for &input in &function.body.inputs[1..] {
        operands.push(Some(adapter_weight(graph, &adapter.target, function.body.name(input))?));
    }
    let mut body = function.body;
    body.opsets.clone_from(&graph.opsets);
    let results = eval(&body, &operands, Precision::Exact)?;
    let [merged] = &results[..] else {
        return Err(Error::new(Code::MERGE, format!("`{}` returns more than the weight", function.name)));
    };
    let (from, to) = (w.floats()?, merged.floats()?);
    let mixed = from.iter().zip(to).map(|(w, m)| w + factor * (m - w)).collect();
    let tensor = weight::to_stored(linear, Array::float(merged.dtype, merged.dims.clone(), mixed), alpha)?;
    if is_finite(&tensor) {
        return Ok(tensor);
    }
    let message = format!("the merged weight does not fit {}: it would hold infinite values", linear.dtype);
    Err(Error::new(Code::NON_FINITE, message))
}

/// The data of the adapter's weight that plays `role`.
fn adapter_weight(graph: &Graph, target: &str, role: &str) -> Result<Array> {
    let is_wanted = |v: &&Value| {
        let notes = &graph[**v].meta;
        notes.get(meta::TARGET).is_some_and(|t| t == target)
            && notes.get(meta::ROLE).is_some_and(|r| r == role)
    };
    let missing =
        || Error::new(Code::ADAPTER, format!("adapter `{target}` has no data for its weight `{role}`"));
    let v = graph.params.iter().find(is_wanted).ok_or_else(missing)?;
    Array::from_tensor(graph[*v].tensor.as_ref().ok_or_else(missing)?)
}
