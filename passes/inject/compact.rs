//! Adapters as they are written to files when only some of their ranks count: the others are cut off, and where the method
//! folds, what is left is a LoRA.
use super::{Adapter, Method, adapters, evaluated::evaluated, function, method::Variant, peft};
use crate::ranks;
use graft_ir::{Code, Error, Graph, Result, Tensor};
use std::collections::BTreeMap;

/// The adapters of `graph` whose methods have a schedule, with the ranks `kept` of each by target, and their tensors as
/// adapter files hold them. An adapter that keeps none is left out.
///
/// `get` returns the present data of a weight by name; `None` stands for what the graph holds.
///
/// # Errors
/// [`Code::ADAPTER`] for a weight without data.
pub fn compacted(
    graph: &Graph,
    get: &dyn Fn(&str) -> Option<Tensor>,
    kept: &BTreeMap<String, Vec<usize>>,
) -> Result<(Vec<Adapter>, BTreeMap<String, Tensor>)> {
    let (mut left, mut files) = (Vec::new(), BTreeMap::new());
    for adapter in adapters(graph)? {
        let ranks = kept.get(&adapter.target).map_or(&[][..], Vec::as_slice);
        if ranks.is_empty() {
            continue;
        }
        let variant = Method::named(&adapter.method)?.variant(&adapter.config()?)?;
        let mut weights = cut(graph, &adapter, get, ranks)?;
        let folded = fold(variant, &mut weights)?;
        let method = if folded { "lora" } else { &adapter.method };
        for (role, tensor) in &weights {
            let Some(form) = Method::named(method)?.file(role) else { continue };
            for (suffix, tensor) in form.to_files(tensor)? {
                files.insert(format!("{}.{suffix}", adapter.target), tensor);
            }
        }
        left.push(described(&adapter, method, &weights, ranks.len())?);
    }
    Ok((left, files))
}

/// The adapter with its ranks, and the alpha that keeps its scale.
fn described(
    adapter: &Adapter,
    method: &str,
    weights: &BTreeMap<String, Tensor>,
    rank: usize,
) -> Result<Adapter> {
    // Without a scale of its own it is alpha over the ranks that count.
    let scale = weights.get("scale").and_then(Tensor::to_f64).and_then(|s| s.first().copied());
    let alpha = scale.map_or(adapter.alpha, |scale| scale * rank as f64);
    // The scale is stored in single precision; an alpha that was a short number is one again.
    let alpha = (alpha * 1e6).round() / 1e6;
    // The others were for the training.
    let own = Method::named(&adapter.method)?;
    let told = |key: &str| method == adapter.method && peft::is_told(own, key);
    let settings = adapter.settings.iter().filter(|(key, _)| told(key)).cloned().collect();
    Ok(Adapter { method: method.into(), rank, alpha, settings, ..adapter.clone() })
}

/// The weights of an adapter by role, with these ranks only.
fn cut(
    graph: &Graph,
    adapter: &Adapter,
    get: &dyn Fn(&str) -> Option<Tensor>,
    kept: &[usize],
) -> Result<BTreeMap<String, Tensor>> {
    let mut weights = BTreeMap::new();
    for (role, v) in ranks::weights(graph, &adapter.target) {
        let missing = || Error::new(Code::ADAPTER, format!("weight `{}` has no data", graph.name(v)));
        let whole = get(graph.name(v)).or_else(|| graph[v].tensor.clone()).ok_or_else(missing)?;
        let axes = ranks::axes(graph, v).unwrap_or_default();
        let tensor = axes.iter().try_fold(whole, |tensor, &axis| taken(&tensor, axis, kept));
        weights.insert(role, tensor?);
    }
    Ok(weights)
}

/// The slices of `tensor` with these numbers along an axis.
fn taken(tensor: &Tensor, axis: usize, these: &[usize]) -> Result<Tensor> {
    let mut dims = tensor.dims().to_vec();
    let size = tensor.dtype().bits() / 8 * dims[axis + 1..].iter().product::<usize>();
    let (outer, along) = (dims[..axis].iter().product::<usize>(), dims[axis]);
    let data = tensor.data();
    let mut bytes = Vec::with_capacity(outer * these.len() * size);
    for (block, &i) in (0..outer).flat_map(|block| these.iter().map(move |i| (block, i))) {
        let at = (block * along + i) * size;
        bytes.extend_from_slice(&data[at..at + size]);
    }
    dims[axis] = these.len();
    Tensor::new(tensor.dtype(), dims, bytes.into())
}

/// Replaces what the variant's `Folded` function computes; whether there is one.
fn fold(variant: &Variant, weights: &mut BTreeMap<String, Tensor>) -> Result<bool> {
    let Some(function) = function(&format!("{}Folded", variant.function)) else { return Ok(false) };
    for (name, tensor) in evaluated(function, weights)? {
        let role = name.strip_suffix("_folded").unwrap_or(&name).to_string();
        weights.insert(role, tensor);
    }
    Ok(true)
}
