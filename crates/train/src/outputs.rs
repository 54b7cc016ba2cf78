//! What a run leaves in its folder for others: the adapter as PEFT has it, the head, the manifest.
use crate::{config::Config, graphs::head_weights};
use graft_adapter::{Config as AdapterConfig, Coverage, Manifest, Module, Targets, fingerprint};
use graft_ir::{Code, Error, Graph, Result, Tensor};
use graft_passes::{
    Linear, Options,
    inject::{Adapter, Method, adapters, file_tensors, peft},
    targets,
};
use std::collections::BTreeMap;

/// Everything about the adapter's files but the trained numbers.
pub(crate) struct Outputs {
    config: AdapterConfig,
    manifest: Manifest,
}

impl Outputs {
    /// Describes the adapters on `forward`, which was made from `base`.
    pub(crate) fn new(
        base: &Graph,
        forward: &Graph,
        options: &Options,
        init: Option<&AdapterConfig>,
    ) -> Result<Outputs> {
        let found = adapters(forward)?;
        let config = match init {
            Some(config) => config.clone(),
            None => configuration(&found, options)?,
        };
        let linears = targets(base)?;
        let linear = |adapter: &Adapter| linears.iter().find(|l| l.path == adapter.target);
        let keys: Vec<String> = file_tensors(forward, &|_| Ok(None))?.into_keys().collect();
        let modules: Vec<Module> =
            found.iter().filter_map(|adapter| Some(module(linear(adapter)?, &keys))).collect();
        let weights = found.iter().filter_map(|adapter| {
            let linear = linear(adapter)?;
            let v = base.params.iter().copied().find(|&v| base.name(v) == linear.weight)?;
            Some((linear.path.as_str(), linear.weight.as_str(), base[v].tensor.as_ref()?))
        });
        let manifest = Manifest {
            schema: graft_adapter::SCHEMA.into(),
            graft: env!("CARGO_PKG_VERSION").into(),
            base: fingerprint(weights),
            method: found.first().map_or(String::new(), |a| a.method.clone()),
            options: options.iter().map(|(k, v)| (k.to_string(), v.to_vec())).collect(),
            coverage: Coverage::new(found.len(), modules.len(), unclaimed(&keys, &modules)),
            modules,
        };
        Ok(Outputs { config, manifest })
    }

    /// Linears that carry an adapter.
    pub(crate) fn adapted(&self) -> usize {
        self.manifest.coverage.adapted
    }

    /// Writes the adapter, the head (where there is one) and the manifest; `weights` by name in `forward`.
    pub(crate) fn write(
        &self,
        forward: &Graph,
        weights: &BTreeMap<String, Tensor>,
        run: &Config,
    ) -> Result<()> {
        let tensors = file_tensors(forward, &|name| Ok(weights.get(name).cloned()))?;
        graft_adapter::save(&run.out, &self.config, &tensors)?;
        let head = head_tensors(forward, weights);
        if !head.is_empty() {
            graft_adapter::tensors::write(&run.out.join(graft_adapter::HEAD_FILE), &head)?;
        }
        self.manifest.write(&run.out.join(graft_adapter::MANIFEST_FILE))
    }
}

/// The head's weights by their names in `head.safetensors`.
fn head_tensors(forward: &Graph, weights: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let named = head_weights(forward).into_iter();
    named.filter_map(|(key, v)| Some((key, weights.get(forward.name(v))?.clone()))).collect()
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
fn configuration(found: &[Adapter], options: &Options) -> Result<AdapterConfig> {
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
