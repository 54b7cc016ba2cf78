//! Folds adapters into the weights that they adapt.
mod originals;
mod strip;
mod weight;

pub use originals::Originals;
pub use strip::stripped;

use crate::{
    Context, Linear, Options, Pass,
    inject::{self, Method, adapters},
    meta,
    target::{is_finite, targets},
};
use graft_ir::{
    Array, Code, DType, Error, Function, Graph, Node, Precision, Result, Tensor, Value, eval::eval,
};
use std::collections::BTreeMap;

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
    let (adapted, mut out) = if ctx.adapter.is_some() {
        ((inject::PASS.run)(graph, &inject_options.with("finite", true), ctx)?, graph.clone())
    } else {
        inject_options.expect_only(&[])?;
        (graph.clone(), stripped(graph)?)
    };
    // What `graph` carries besides stays on it.
    let carried = adapters(&out)?;
    let is_new = |adapter: &inject::Adapter| carried.iter().all(|c| c.target != adapter.target);
    let found: Vec<_> = adapters(&adapted)?.into_iter().filter(is_new).collect();
    for merged in merged_weights(&adapted, &found, &out, factor)? {
        weight::replace(&mut out, merged)?;
    }
    let left = match carried.len() {
        0 => String::new(),
        n => format!(", {n} left on the model"),
    };
    (ctx.log)(&format!("merge: {} adapters folded in{left}", found.len()));
    Ok(out)
}

fn lost(path: &str) -> Error {
    Error::new(Code::MERGE, format!("the base linear of adapter `{path}` is not in the graph"))
        .help("run the pass `inline` first if the graph is fused")
}

/// A weight with an adapter in it.
struct Merged {
    /// The module path.
    path: String,
    /// The results of the linears that multiply by it: the uses of the module that read one value.
    results: Vec<Value>,
    /// As it is stored.
    tensor: Tensor,
}

/// For each adapter `found` on `adapted` the weights in `base` that have the same effect: one, unless the uses of its
/// module read the weight in several forms.
fn merged_weights(
    adapted: &Graph,
    found: &[inject::Adapter],
    base: &Graph,
    factor: f64,
) -> Result<Vec<Merged>> {
    if found.is_empty() {
        let help = "give one with `--adapter`, or a model that `graft inject` made";
        return Err(Error::new(Code::MERGE, "there is no adapter to merge").help(help));
    }
    let linears = targets(base)?;
    let mut all = Vec::new();
    for adapter in found {
        let path = &adapter.target;
        let place = || format!("merging into `{path}`");
        for uses in uses(base, &linears, path)? {
            let (linear, node) = uses[0];
            let w = weight::of(base, linear, node).map_err(|e| e.at(place()))?;
            let tensor = merged_weight(adapted, adapter, linear, node, (w, factor));
            let results = uses.iter().filter_map(|(_, node)| node.output(0)).collect();
            all.push(Merged { path: path.clone(), results, tensor: tensor.map_err(|e| e.at(place()))? });
        }
    }
    Ok(all)
}

/// A linear and its node.
type Use<'g> = (&'g Linear, &'g Node);

/// The uses of the module `path`, those that read one value (with one `alpha`) together.
fn uses<'g>(base: &'g Graph, linears: &'g [Linear], path: &str) -> Result<Vec<Vec<Use<'g>>>> {
    let mut forms: BTreeMap<(Option<Value>, u64), Vec<Use<'g>>> = BTreeMap::new();
    for linear in linears.iter().filter(|l| l.path == path) {
        let node = linear.index.map(|i| &base.nodes[i]).ok_or_else(|| lost(path))?;
        forms.entry((node.input(1), weight::alpha(node)?.to_bits())).or_default().push((linear, node));
    }
    if forms.is_empty() { Err(lost(path)) } else { Ok(forms.into_values().collect()) }
}

/// What the adapters on a graph change of its weights.
pub struct Changes<'g> {
    adapted: &'g Graph,
    base: Graph,
    linears: Vec<Linear>,
}

impl<'g> Changes<'g> {
    /// Those of the adapters on `adapted`.
    ///
    /// # Errors
    /// As [`stripped`]'s.
    pub fn new(adapted: &'g Graph) -> Result<Changes<'g>> {
        let base = stripped(adapted)?;
        Ok(Changes { adapted, linears: targets(&base)?, base })
    }
    /// What `adapter`, one of those on the graph, adds to the weight (in, out) of its linear.
    ///
    /// # Errors
    /// [`Code::MERGE`] where no weight has its effect, or the base weight is not the stored one in another form.
    pub fn of(&self, adapter: &inject::Adapter) -> Result<Array> {
        let path = &adapter.target;
        let uses = uses(&self.base, &self.linears, path)?;
        let (linear, node) = uses[0][0];
        let method = Method::named(&adapter.method)?;
        let w = match method.variant(&adapter.config()?)?.is_additive() {
            // What is added does not depend on the weight, which may be unknown, and is exact beside none.
            true => Array::float(
                DType::Float,
                vec![linear.d_in, linear.d_out],
                vec![0.0; linear.d_in * linear.d_out],
            ),
            false => weight::of(&self.base, linear, node)?,
        };
        let with = with_adapter(self.adapted, adapter, linear, &w).map_err(|e| e.at(format!("`{path}`")))?;
        let changes = with.floats()?.iter().zip(w.floats()?).map(|(with, w)| with - w).collect();
        Ok(Array::float(w.dtype, w.dims.clone(), changes))
    }
}

/// The weights (in, out) of the linears of `graph` by module path, adapters left aside; without those that cannot be merged
/// into.
///
/// # Errors
/// As [`stripped`]'s.
pub fn weights(graph: &Graph) -> Result<BTreeMap<String, Array>> {
    let base = stripped(graph)?;
    let weight = |l: &Linear| Some((l.path.clone(), weight::of(&base, l, &base.nodes[l.index?]).ok()?));
    Ok(targets(&base)?.iter().filter(|l| l.is_eligible()).filter_map(weight).collect())
}

/// The weight `w` (in, out) of a linear with `factor` times the adapter in it, as it is stored.
fn merged_weight(
    adapted: &Graph,
    adapter: &inject::Adapter,
    linear: &Linear,
    node: &Node,
    (w, factor): (Array, f64),
) -> Result<Tensor> {
    let merged = with_adapter(adapted, adapter, linear, &w)?;
    let (from, to) = (w.floats()?, merged.floats()?);
    let mixed = from.iter().zip(to).map(|(w, m)| w + factor * (m - w)).collect();
    let mixed = Array::float(merged.dtype, merged.dims.clone(), mixed);
    let tensor = weight::to_stored(linear, mixed, weight::alpha(node)?)?;
    if is_finite(&tensor) {
        return Ok(tensor);
    }
    let message = format!("the merged weight does not fit {}: it would hold infinite values", linear.dtype);
    Err(Error::new(Code::NON_FINITE, message))
}

/// The weight `w` (in, out) of a linear with the adapter in it, in double precision.
fn with_adapter(adapted: &Graph, adapter: &inject::Adapter, linear: &Linear, w: &Array) -> Result<Array> {
    let method = Method::named(&adapter.method)?;
    let config = adapter.config()?;
    let never = || {
        let message = format!(
            "an adapter of the method `{}` depends on the input, so no weight has its effect",
            method.name
        );
        Error::new(Code::MERGE, message).help("keep it beside the model (`graft inject --adapter`), or hold its mean fixed (`graft merge --routing mean --calibrate DATA`)")
    };
    let function = method.variant(&config)?.merged().ok_or_else(never)?;
    let mut operands = vec![Some(w.clone())];
    for &input in &function.body.inputs[1..] {
        operands.push(Some(adapter_weight(adapted, &adapter.target, function.body.name(input))?));
    }
    let call = Node { attrs: (method.parts)(linear, &config)?.attrs, ..Node::default() };
    run(function, &call, &operands)
}

/// The only result of a function, in double precision.
fn run(function: &Function, call: &Node, operands: &[Option<Array>]) -> Result<Array> {
    let results = eval(&inject::bound(function, call)?, operands, Precision::Exact)?;
    let [merged] = &results[..] else {
        return Err(Error::new(Code::MERGE, format!("`{}` returns more than the weight", function.name)));
    };
    Ok(merged.clone())
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
