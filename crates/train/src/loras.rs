//! Adapters as LoRAs: those that are LoRAs, what other methods change of the weights, and several of them as one.
use crate::{init::Init, trained};
use graft_adapter::{
    Adapter as Files, Lora,
    combine::{Combination, Combine, Of, Options, cut_down},
    lora,
};
use graft_ir::{Code, Error, Graph, Result, Tensor};
use graft_passes::{
    inject::{Adapter, Inputs, Method, adapters, file_tensors},
    merge::{Changes, stripped},
};
use std::collections::{BTreeMap, BTreeSet};

/// The function of a plain LoRA.
const LORA: &str = "graft.Lora";

/// The adapters on `graph` as LoRAs, by module path.
///
/// # Errors
/// [`Code::ADAPTER_FEATURE`] where one is of another kind.
pub fn of_graph(graph: &Graph) -> Result<BTreeMap<String, Lora>> {
    let tensors = file_tensors(graph, &|_| Ok(None))?;
    adapters(graph)?
        .iter()
        .map(|adapter| Ok((adapter.target.clone(), of_adapter(adapter, &tensors)?)))
        .collect()
}

fn of_adapter(adapter: &Adapter, tensors: &BTreeMap<String, Tensor>) -> Result<Lora> {
    let (method, config) = (Method::named(&adapter.method)?, adapter.config()?);
    let variant = method.variant(&config)?;
    if variant.function != LORA {
        let message = format!("the adapter on `{}` is no plain LoRA: {}", adapter.target, variant.about);
        let help = "`graft convert --as-lora RANK` makes the nearest LoRA of it";
        return Err(Error::new(Code::ADAPTER_FEATURE, message).help(help));
    }
    let factor = |role: &str| {
        let lost =
            || Error::new(Code::ADAPTER, format!("the adapter on `{}` has no `{role}`", adapter.target));
        let form = method.file(role).ok_or_else(lost)?;
        tensors.get(&format!("{}.{}", adapter.target, form.suffix)).cloned().ok_or_else(lost)
    };
    // An rsLoRA divides by the root of its rank: the same as a LoRA of a larger alpha.
    let rank = adapter.rank as f64;
    let alpha = if config.get("rslora")? { adapter.alpha * rank.sqrt() } else { adapter.alpha };
    Lora::new(factor("a")?, factor("b")?, alpha)
}

/// Adapters for `base`, each with a weight, as one LoRA; `tell` receives, for each module that loses something, how much.
///
/// # Errors
/// [`Code::MERGE`] for adapters that the combination cannot take; those of the pass `inject`.
pub fn combined(
    base: &Graph,
    these: &[(Init, f64)],
    how: &Combination,
    options: &Options,
    tell: &mut dyn FnMut(&str),
) -> Result<Init> {
    // What the model carries already takes no part.
    let base = &stripped(base)?;
    let graphs = these
        .iter()
        .map(|(adapter, weight)| Ok((trained::inject(base, adapter, Inputs::None, &mut |_| ())?, *weight)));
    let graphs: Vec<(Graph, f64)> = graphs.collect::<Result<_>>()?;
    let loras = match how.of {
        Of::Factors(combine) => of_factors(&graphs, how.name, combine, options)?,
        Of::Changes => of_changes(&graphs, options.rank, tell)?,
    };
    Init::of(Files::of_loras(&loras))
}

/// Each module's LoRAs as one.
fn of_factors(
    graphs: &[(Graph, f64)],
    name: &str,
    combine: Combine,
    options: &Options,
) -> Result<BTreeMap<String, Lora>> {
    let mut parts: BTreeMap<String, Vec<(Lora, f64)>> = BTreeMap::new();
    for (graph, weight) in graphs {
        let refused = |e: Error| {
            let help = "`--combine svd` takes adapters of every method that can be merged";
            Error::new(Code::MERGE, format!("`{name}` combines the factors of LoRAs, and {}", e.message))
                .help(help)
        };
        for (path, lora) in of_graph(graph).map_err(refused)? {
            parts.entry(path).or_default().push((lora, *weight));
        }
    }
    let each = parts.into_iter().zip(0..).map(|((path, parts), module)| {
        let lora = combine(&parts, options, module).map_err(|e| e.at(format!("combining on `{path}`")))?;
        Ok((path, lora))
    });
    each.collect()
}

/// The sum of each module's changes, cut down to `rank`, by default the largest rank that an adapter has anywhere.
fn of_changes(
    graphs: &[(Graph, f64)],
    rank: Option<usize>,
    tell: &mut dyn FnMut(&str),
) -> Result<BTreeMap<String, Lora>> {
    let sources = graphs.iter().map(|(graph, weight)| Ok((Changes::new(graph)?, adapters(graph)?, *weight)));
    let sources: Vec<_> = sources.collect::<Result<_>>()?;
    let ranks = sources.iter().flat_map(|(_, found, _)| found).map(|a| a.rank);
    let rank = rank.or_else(|| ranks.max()).unwrap_or(1);
    let paths: BTreeSet<&String> =
        sources.iter().flat_map(|(_, found, _)| found).map(|a| &a.target).collect();
    let mut loras = BTreeMap::new();
    for path in paths {
        let mut parts = Vec::new();
        for (changes, found, weight) in &sources {
            for adapter in found.iter().filter(|a| a.target == *path) {
                parts.push((lora::transposed(&changes.of(adapter)?)?, *weight));
            }
        }
        let (lora, error) = cut_down(&parts, rank).map_err(|e| e.at(format!("`{path}`")))?;
        tell(&format!("{path}: rank {}, error {error:.3e}", lora.rank()));
        loras.insert(path.clone(), lora);
    }
    Ok(loras)
}
