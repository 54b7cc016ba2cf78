//! What a run leaves in its folder for others: the adapter as PEFT has it, the head, the manifest.
use crate::{graphs::head_weights, init::Init, trained::Trained};
use graft_adapter::{
    Config as AdapterConfig, Coverage, Head, Manifest, Module, NO_METHOD, Targets, fingerprint,
};
use graft_ir::{Code, Error, Graph, Result, Tensor};
use graft_passes::{
    Linear, Options,
    inject::{Adapter, Method, adapters, compacted, file_tensors, peft},
    ranks, targets,
};
use std::{collections::BTreeMap, path::Path};

/// Everything about the results' files but the trained numbers.
#[derive(Debug)]
pub(crate) struct Outputs {
    /// `None` where there is no adapter.
    config: Option<AdapterConfig>,
    manifest: Manifest,
    /// Whether only those ranks are written that count in the end.
    cuts_ranks: bool,
}

impl Outputs {
    /// Describes the adapters and the head on `forward`, which was made from `base` with these options of the passes
    /// `inject` and `head`.
    pub(crate) fn new(
        base: &Graph,
        forward: &Graph,
        inject: Option<&Options>,
        head: Option<&Options>,
        init: Option<&AdapterConfig>,
    ) -> Result<Outputs> {
        let whole = ranks_kept(forward, &BTreeMap::new())?;
        let (found, tensors) = match &whole {
            Some(kept) => compacted(forward, &|_| None, kept)?,
            None => (adapters(forward)?, file_tensors(forward, &|_| Ok(None))?),
        };
        let config = match (init, inject) {
            (Some(config), _) => Some(config.clone()),
            (None, Some(options)) => Some(configuration(&found, options)?),
            (None, None) => None,
        };
        let linears = targets(base)?;
        let linear = |adapter: &Adapter| linears.iter().find(|l| l.path == adapter.target);
        let keys: Vec<String> = tensors.into_keys().collect();
        let modules: Vec<Module> =
            found.iter().filter_map(|adapter| Some(module(linear(adapter)?, &keys))).collect();
        let trained_on: Vec<&Linear> = match inject {
            Some(_) => found.iter().filter_map(linear).collect(),
            None => linears.iter().collect(),
        };
        let manifest = Manifest {
            schema: graft_adapter::SCHEMA.into(),
            graft: env!("CARGO_PKG_VERSION").into(),
            base: base_print(base, &trained_on),
            method: found.first().map_or_else(|| NO_METHOD.into(), |a| a.method.clone()),
            options: inject.map_or_else(BTreeMap::new, map),
            head: head.map(map),
            coverage: Coverage::new(found.len(), modules.len(), unclaimed(&keys, &modules)),
            modules,
        };
        Ok(Outputs { config, manifest, cuts_ranks: whole.is_some() })
    }

    /// Whether files hold those ranks only that count in the end.
    pub(crate) fn cuts_ranks(&self) -> bool {
        self.cuts_ranks
    }

    /// The same for a training of so many steps, in whose files these stand.
    pub(crate) fn lasting(mut self, forward: &Graph, steps: u64) -> Result<Outputs> {
        if let (Some(config), Some(adapter)) = (&mut self.config, adapters(forward)?.first()) {
            for key in peft::steps_keys(Method::named(&adapter.method)?, &adapter.config()?)? {
                config.keys.insert(key.into(), steps.into());
            }
        }
        Ok(self)
    }

    /// Modules that carry an adapter; `None` where the head alone is trained.
    pub(crate) fn adapted(&self) -> Option<usize> {
        self.config.as_ref().map(|_| self.manifest.coverage.adapted)
    }

    /// Whether this linear is one of a module that carries an adapter.
    pub(crate) fn is_adapted(&self, linear: &Linear) -> bool {
        self.config.is_some() && self.manifest.modules.iter().any(|module| module.path == linear.path)
    }

    /// What was trained, with these `weights` by name in `forward`.
    pub(crate) fn trained(&self, forward: &Graph, weights: &BTreeMap<String, Tensor>) -> Result<Trained> {
        let adapter = |config: &AdapterConfig| {
            let (config, tensors) = match ranks_kept(forward, weights)? {
                Some(kept) => {
                    let (left, tensors) = compacted(forward, &|name| weights.get(name).cloned(), &kept)?;
                    (configuration(&left, &Options::default())?, tensors)
                }
                None => (config.clone(), file_tensors(forward, &|name| Ok(weights.get(name).cloned()))?),
            };
            Init::of(graft_adapter::Adapter { config, tensors, warnings: Vec::new() })
        };
        let head = |options: &BTreeMap<_, _>| Head {
            options: options.clone(),
            tensors: head_tensors(forward, weights),
            is_alone: self.config.is_none(),
        };
        Ok(Trained {
            adapter: self.config.as_ref().map(adapter).transpose()?,
            head: self.manifest.head.as_ref().map(head),
        })
    }

    /// Writes the adapter, the head (where there are such) and the manifest into `out`.
    pub(crate) fn write(&self, trained: &Trained, out: &Path) -> Result<()> {
        trained.save(out)?;
        self.manifest.write(&out.join(graft_adapter::MANIFEST_FILE))
    }
}

/// For each adapter, by its path, the ranks that `weights` say to count (all, where they do not say); `None` where no
/// ranks come and go.
fn ranks_kept(
    forward: &Graph,
    weights: &BTreeMap<String, Tensor>,
) -> Result<Option<BTreeMap<String, Vec<usize>>>> {
    let mut kept = BTreeMap::new();
    for adapter in adapters(forward)? {
        if !ranks::holds(Method::named(&adapter.method)?, &adapter.config()?)? {
            return Ok(None);
        }
        let mask = weights.get(&ranks::mask_role(&adapter.target)).and_then(Tensor::to_f64);
        let all = || vec![1.0; ranks::width(forward, &adapter.target).unwrap_or(0)];
        let counts = mask.unwrap_or_else(all).into_iter().enumerate().filter(|(_, counts)| *counts != 0.0);
        kept.insert(adapter.target, counts.map(|(rank, _)| rank).collect());
    }
    Ok((!kept.is_empty()).then_some(kept))
}

/// Options as the manifest holds them.
fn map(options: &Options) -> BTreeMap<String, Vec<String>> {
    options.iter().map(|(k, v)| (k.to_string(), v.to_vec())).collect()
}

/// The fingerprint of the weights of these linears.
fn base_print(base: &Graph, linears: &[&Linear]) -> String {
    let weight = |linear: &&Linear| base.params.iter().copied().find(|&v| base.name(v) == linear.weight);
    fingerprint(linears.iter().filter_map(|linear| {
        let tensor = base[weight(linear)?].tensor.as_ref()?;
        Some((linear.path.as_str(), linear.weight.as_str(), tensor))
    }))
}

/// The head's weights by their names in `head.safetensors`; those that `weights` lacks are as they stand in `forward`.
fn head_tensors(forward: &Graph, weights: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let tensor = |v| weights.get(forward.name(v)).or(forward[v].tensor.as_ref()).cloned();
    head_weights(forward).into_iter().filter_map(|(key, v)| Some((key, tensor(v)?))).collect()
}

fn module(linear: &Linear, keys: &[String]) -> Module {
    let own = |key: &&String| key.strip_prefix(&linear.path).is_some_and(|rest| rest.starts_with('.'));
    Module {
        path: linear.path.clone(),
        node: linear.node.clone(),
        op: linear.op.clone(),
        initializer: linear.weight.clone(),
        d_in: linear.d_in,
        d_out: linear.d_out,
        tensors: keys.iter().filter(own).cloned().collect(),
    }
}

fn unclaimed(keys: &[String], modules: &[Module]) -> Vec<String> {
    keys.iter().filter(|key| !modules.iter().any(|m| m.tensors.contains(key))).cloned().collect()
}

/// The `adapter_config.json` of adapters that `options` made. Rank and alpha are those of most modules; each of the
/// others stands in both patterns, as PEFT's scale needs the two.
pub(crate) fn configuration(found: &[Adapter], options: &Options) -> Result<AdapterConfig> {
    let none = || Error::new(Code::FROZEN, "there is no adapter to train");
    let first = found.first().ok_or_else(none)?;
    let method = Method::named(&first.method)?;
    let shape = |a: &Adapter| (a.rank, a.alpha.to_bits());
    let common = found.iter().max_by_key(|a| found.iter().filter(|b| shape(a) == shape(b)).count());
    let common = common.unwrap_or(first);
    let targets = Targets::from_selector(&options.get_or("targets", "all-linear".to_string())?);
    let is_explicit = targets == Targets::AllLinear;
    let targets = match targets {
        // PEFT writes down what it found, and so do we: another graph's linears may be others.
        Targets::AllLinear => Targets::List(found.iter().map(|a| a.target.clone()).collect()),
        named => named,
    };
    let list = |key: &str| -> Result<Vec<String>> {
        let text = options.get_or(key, String::new())?;
        Ok(text.split(',').map(|s| s.trim().to_string()).filter(|s| !s.is_empty()).collect())
    };
    let (peft_type, keys) = peft::write(method, &common.config()?)?;
    let mut config = AdapterConfig { keys, ..AdapterConfig::new(peft_type, common.rank, targets) };
    config.alpha = method.alpha.map(|_| common.alpha);
    if !is_explicit {
        config.exclude = options.get::<String>("exclude")?.map(|text| Targets::from_selector(&text));
        config.layers = list("layers")?.iter().filter_map(|n| n.parse().ok()).collect();
        config.layers_pattern = list("layers-pattern")?;
    }
    for other in found.iter().filter(|a| shape(a) != shape(common)) {
        config.rank_pattern.insert(other.target.clone(), other.rank);
        if method.alpha.is_some() {
            config.alpha_pattern.insert(other.target.clone(), other.alpha);
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(target: &str, rank: usize) -> Adapter {
        let settings = vec![("rslora".to_string(), "true".to_string())];
        let (method, target) = ("lora".to_string(), target.to_string());
        Adapter { target, method, rank, alpha: 16.0, settings, parameters: 0, nodes: 4 }
    }

    #[test]
    fn mixed_ranks_stand_in_both_patterns() {
        let found = [adapter("a.x", 8), adapter("b.x", 2), adapter("c.x", 8)];
        let config = configuration(&found, &Options::default()).unwrap();
        assert_eq!((config.rank, config.alpha), (8, Some(16.0)));
        assert_eq!((&config.keys["use_rslora"], &config.keys["use_dora"]), (&true.into(), &false.into()));
        assert_eq!(config.rank_pattern, BTreeMap::from([("b.x".to_string(), 2)]));
        assert_eq!(config.alpha_pattern, BTreeMap::from([("b.x".to_string(), 16.0)]));
        let all = Targets::List(["a.x", "b.x", "c.x"].map(String::from).into());
        assert_eq!(config.targets, all);
        let options = Options::default().with("targets", "x").with("exclude", "q").with("layers", "0,2");
        let config = configuration(&found, &options).unwrap();
        assert_eq!(config.targets, Targets::List(vec!["x".into()]));
        assert_eq!(config.exclude, Some(Targets::List(vec!["q".into()])));
        assert_eq!(config.layers, [0, 2]);
    }
}
