//! What is grafted onto a graph, found by its notes.
use super::{Config, FileForm, Method};
use crate::meta;
use graft_ir::{Code, Error, Graph, Result, Tensor, Value};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// An adapter in a graph.
#[derive(Clone, PartialEq, Debug)]
pub struct Adapter {
    /// The module path of the linear that it adapts.
    pub target: String,
    /// The method's name.
    pub method: String,
    /// The rank it was made with.
    pub rank: usize,
    /// The alpha it was made with; 1 for a method without one.
    pub alpha: f64,
    /// The method's own settings, as `--set` has them.
    pub settings: Vec<(String, String)>,
    /// Trainable parameters.
    pub parameters: usize,
    /// Nodes that were added for it.
    pub nodes: usize,
}

impl Adapter {
    /// Its settings.
    pub fn config(&self) -> Result<Config> {
        let method = Method::named(&self.method)?;
        Ok(Config::new(method, self.rank, self.alpha, self.settings.clone()))
    }
}

/// Params and inputs, each once, params first.
fn weights(graph: &Graph) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    graph.params.iter().chain(&graph.inputs).copied().filter(|&v| seen.insert(v)).collect()
}

/// The trained weights of `graph`, adapters' and head's: its params first, then inputs (as in a training graph).
pub fn trainable(graph: &Graph) -> Vec<Value> {
    weights(graph).into_iter().filter(|&v| graph[v].meta.contains_key(meta::TRAINABLE)).collect()
}

/// Every adapter on `graph`, in the order of its weights.
///
/// # Errors
/// [`Code::ADAPTER`] where the notes are damaged.
pub fn adapters(graph: &Graph) -> Result<Vec<Adapter>> {
    let mut found: Vec<Adapter> = Vec::new();
    for v in weights(graph) {
        let notes = &graph[v].meta;
        let (Some(method), Some(target)) = (notes.get(meta::METHOD), notes.get(meta::TARGET)) else {
            continue;
        };
        if let Some(config) = notes.get(meta::CONFIG) {
            found.push(read(graph, method, target, config)?);
        }
        let size = graph[v].ty.as_ref().and_then(|ty| ty.sizes()).map_or(0, |dims| dims.iter().product());
        if let Some(adapter) = found.iter_mut().find(|a| a.target == *target)
            && notes.contains_key(meta::TRAINABLE)
        {
            adapter.parameters += size;
        }
    }
    Ok(found)
}

/// The same model with what is grafted onto it, adapters and a head, as parts of it: nothing of it is trained, drawn or
/// counted among adapters any more, and their linears still carry one.
pub fn settled(graph: &Graph) -> Graph {
    let mut out = graph.clone();
    for v in weights(graph) {
        out[v].meta.retain(|key, _| !meta::OF_WEIGHTS.contains(&key.as_str()));
    }
    out
}

/// Whether each step of a training draws random numbers for an adapter on `graph`.
///
/// # Errors
/// [`Code::ADAPTER`] where the notes are damaged.
pub fn draws(graph: &Graph) -> Result<bool> {
    if graph.params.iter().any(|&v| graph[v].meta.contains_key(meta::DRAWN)) {
        return Ok(true);
    }
    for adapter in adapters(graph)? {
        if adapter.config()?.dropout()? > 0.0 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read(graph: &Graph, method: &str, target: &str, config: &str) -> Result<Adapter> {
    let damaged =
        || Error::new(Code::ADAPTER, format!("the notes of adapter `{target}` are damaged: `{config}`"));
    let Ok(Json::Object(object)) = serde_json::from_str(config) else { return Err(damaged()) };
    let rank = object.get("rank").and_then(Json::as_u64).and_then(|r| usize::try_from(r).ok());
    let own = object.iter().filter(|(k, _)| *k != "rank" && *k != "alpha");
    let text = |v: &Json| v.as_str().map_or_else(|| v.to_string(), String::from);
    let is_added = |n: &&graft_ir::Node| {
        n.meta.get(meta::TARGET).is_some_and(|t| t == target)
            && n.meta.get(meta::ROLE).is_some_and(|role| role != meta::BASE)
    };
    Ok(Adapter {
        target: target.into(),
        method: method.into(),
        rank: rank.ok_or_else(damaged)?,
        alpha: object.get("alpha").map_or(Some(1.0), Json::as_f64).ok_or_else(damaged)?,
        settings: own.map(|(k, v)| (k.clone(), text(v))).collect(),
        parameters: 0,
        nodes: graph.nodes.iter().filter(is_added).count(),
    })
}

/// The adapters' weights as adapter files hold them: `<module path>.<suffix>` → tensor in the file's orientation.
///
/// `get` returns the present data of a weight by name; `None` stands for what the graph holds.
///
/// # Errors
/// [`Code::ADAPTER`] for a weight without data, [`Code::METHOD`] for an unknown method.
pub fn file_tensors(
    graph: &Graph,
    get: &dyn Fn(&str) -> Result<Option<Tensor>>,
) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for Stored { weight, target, form } in stored(graph)? {
        let name = graph.name(weight);
        let missing = || Error::new(Code::ADAPTER, format!("weight `{name}` has no data"));
        let tensor = get(name)?.or_else(|| graph[weight].tensor.clone()).ok_or_else(missing)?;
        let files = form.to_files(&tensor)?.into_iter();
        tensors.extend(files.map(|(suffix, tensor)| (format!("{target}.{suffix}"), tensor)));
    }
    Ok(tensors)
}

/// A weight of an adapter that stands in adapter files.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'g> {
    /// The weight.
    pub weight: Value,
    /// The module path of the linear that is adapted.
    pub target: &'g str,
    /// How the weight is called and laid out in files.
    pub form: &'static FileForm,
}

/// The weights of the adapters on `graph` that stand in adapter files.
///
/// # Errors
/// [`Code::METHOD`] for an unknown method.
pub fn stored(graph: &Graph) -> Result<Vec<Stored<'_>>> {
    let mut stored = Vec::new();
    for weight in weights(graph) {
        let note = |key: &str| graph[weight].meta.get(key);
        let (Some(method), Some(target), Some(role)) =
            (note(meta::METHOD), note(meta::TARGET), note(meta::ROLE))
        else {
            continue;
        };
        let form = Method::named(method)?.file(role);
        stored.extend(form.map(|form| Stored { weight, target, form }));
    }
    Ok(stored)
}
