//! Adapters as inputs of a graph: a model takes any adapter of its method by name, as ONNX Runtime's `LoraAdapter` gives it.
//! The scale is in `b`, so that a model knows no adapter's rank or alpha.
use super::{
    Adapter, Axis, Config, FileForm, METHODS, Method, Variant, Weight, adapters, method::SCALE,
    plan::Planned, sizes::Sizes,
};
use crate::ranks;
use graft_ir::{Code, Error, Graph, Result, Tensor, error::nearest};
use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

/// What of an adapter becomes an input of the graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Inputs {
    /// Nothing.
    #[default]
    None,
    /// The weights that adapter files hold.
    Weights,
    /// These and the scale, which is 1 where nothing else is fed.
    Scale,
}

/// The role of the weight that takes the scale where weights are inputs.
const SCALED: &str = "b";

impl FromStr for Inputs {
    type Err = Error;
    fn from_str(text: &str) -> Result<Inputs> {
        match text {
            "none" => Ok(Inputs::None),
            "weights" => Ok(Inputs::Weights),
            "scale" => Ok(Inputs::Scale),
            _ => Err(Error::new(Code::PASS, format!("`{text}` is none of none, weights, scale"))),
        }
    }
}

impl std::fmt::Display for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Inputs::None => "none",
            Inputs::Weights => "weights",
            Inputs::Scale => "scale",
        })
    }
}

/// A weight of a planned adapter as an input.
pub(super) struct Fed {
    /// The name of the input.
    pub(super) name: String,
    /// What its elements are multiplied by.
    pub(super) factor: f64,
    /// The axes of any size.
    pub(super) free: Vec<usize>,
}

impl Inputs {
    /// How the weight `role` of an adapter is fed; `None` where it is no input.
    pub(super) fn fed(self, planned: &Planned<'_>, role: &str) -> Option<Fed> {
        let named = |suffix: &str| format!("{}.{suffix}", planned.linear.path);
        match planned.variant.files.iter().find(|form| form.role == role) {
            Some(form) if self != Inputs::None => {
                let is_rank = |(i, axis): (usize, &Axis)| (*axis == Axis::Rank).then_some(i);
                let ranks = form.axes.iter().enumerate().filter_map(is_rank);
                let free = if takes_any_rank(planned) { ranks.collect() } else { Vec::new() };
                let factor = if role == SCALED { planned.parts.scale().unwrap_or(1.0) } else { 1.0 };
                Some(Fed { name: named(form.input), factor, free })
            }
            None if self == Inputs::Scale && role == SCALE => {
                Some(Fed { name: named(SCALE), factor: 1.0, free: Vec::new() })
            }
            _ => None,
        }
    }
    /// The settings that a planned adapter has here: where its weights are inputs, those by which the scale is 1.
    pub(super) fn config(self, planned: &Planned<'_>) -> Config {
        let mut config = planned.config.clone();
        if let Some(scale) = planned.parts.scale().filter(|_| self != Inputs::None) {
            // Of nothing, which a scale of 0 leaves, any alpha is right.
            config.alpha = if scale == 0.0 { config.rank as f64 } else { config.alpha / scale };
        }
        config
    }
    /// Sizes and elements of a weight in the graph. Of one that is fed they are what holds where nothing is: those of the
    /// adapter that is `given`, else of none, which has no ranks.
    pub(super) fn stored(
        self,
        weight: &Weight,
        fed: Option<&Fed>,
        values: Vec<f64>,
        given: bool,
    ) -> (Vec<usize>, Vec<f64>) {
        let dims = weight.dims.clone();
        match fed {
            _ if self != Inputs::None && weight.role == SCALE => (dims, vec![1.0]),
            None => (dims, values),
            Some(fed) if given || fed.free.is_empty() => {
                (dims, values.into_iter().map(|x| x * fed.factor).collect())
            }
            Some(fed) => {
                let size = |(i, n): (usize, usize)| if fed.free.contains(&i) { 0 } else { n };
                (dims.into_iter().enumerate().map(size).collect(), Vec::new())
            }
        }
    }
}

/// Whether the weights may have any rank: where nothing else in the graph depends on it.
fn takes_any_rank(planned: &Planned<'_>) -> bool {
    let is_fed = |role: &str| planned.variant.files.iter().any(|form| form.role == role);
    let of_rank = |axis: &Axis| matches!(axis, Axis::InBlocks | Axis::OutBlocks);
    planned.parts.attrs.is_empty()
        && planned.parts.weights.iter().all(|w| w.dims.is_empty() || is_fed(w.role))
        && !planned.variant.files.iter().flat_map(|form| form.axes).any(of_rank)
}

/// The weights of the adapters on `graph` by the names of the inputs that take them, with the scale in them. Inputs are
/// called as `inject` calls them, or as `model` does where that is given: the same adapters as inputs of another graph.
///
/// # Errors
/// [`Code::ADAPTER_FIT`] where `model` has no such input.
pub fn input_tensors(graph: &Graph, model: Option<&Graph>) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for adapter in adapters(graph)? {
        let variant = Method::named(&adapter.method)?.variant(&adapter.config()?)?;
        let weights = ranks::weights(graph, &adapter.target);
        let tensor = |role: &str| {
            let v = weights.iter().find(|(r, _)| r == role).map(|(_, v)| *v);
            v.and_then(|v| graph[v].tensor.clone())
        };
        let scale = tensor(SCALE).and_then(|t| t.to_f64()).and_then(|s| s.first().copied());
        for form in variant.files {
            let lost =
                || Error::new(Code::ADAPTER, format!("adapter `{}` lacks `{}`", adapter.target, form.role));
            let weight = tensor(form.role).ok_or_else(lost)?;
            let weight = match scale.filter(|&s| s != 1.0 && form.role == SCALED) {
                Some(scale) => times(&weight, scale).ok_or_else(lost)?,
                None => weight,
            };
            let name = match model {
                Some(model) => input_of(model, &adapter, form)?,
                None => format!("{}.{}", adapter.target, form.input),
            };
            tensors.insert(name, weight);
        }
    }
    Ok(tensors)
}

fn times(tensor: &Tensor, factor: f64) -> Option<Tensor> {
    Tensor::from_f64(tensor.dtype(), tensor.dims(), tensor.to_f64()?.into_iter().map(|x| x * factor))
}

/// The input of `model` that takes a weight.
fn input_of(model: &Graph, adapter: &Adapter, form: &FileForm) -> Result<String> {
    let wanted = format!("{}.{}", adapter.target, form.input);
    let found = ranks::weight(model, &adapter.target, form.role).filter(|v| model.inputs.contains(v));
    found.map(|v| model.name(v).to_string()).ok_or_else(|| {
        let names = model.inputs.iter().map(|&v| model.name(v));
        let near = nearest(&wanted, names).join("`, `");
        Error::new(Code::ADAPTER_FIT, format!("the model has no input for `{wanted}`"))
            .help(format!("nearest: `{near}`"))
    })
}

/// Adapters that weights by the names of inputs stand for, with the tensors as adapter files hold them.
///
/// # Errors
/// [`Code::ADAPTER_FIT`] that lists the names that are no weights of a method's.
pub fn of_inputs(inputs: &BTreeMap<String, Tensor>) -> Result<(Vec<Adapter>, BTreeMap<String, Tensor>)> {
    let forms = || METHODS.iter().flat_map(|m| m.variants).flat_map(|v| v.files);
    let mut modules: BTreeMap<&str, BTreeMap<&str, &Tensor>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for (name, tensor) in inputs {
        let split =
            forms().find_map(|form| Some((name.strip_suffix(form.input)?.strip_suffix('.')?, form.input)));
        match split {
            Some((path, input)) => _ = modules.entry(path).or_default().insert(input, tensor),
            None => unknown.push(name.as_str()),
        }
    }
    if !unknown.is_empty() {
        let known: BTreeSet<&str> = forms().map(|form| form.input).collect();
        let known: Vec<&str> = known.into_iter().collect();
        let message = format!("tensors that are no adapter's: `{}`", unknown.join("`, `"));
        let help = format!("names are a module's path, a dot, and one of `{}`", known.join("`, `"));
        return Err(Error::new(Code::ADAPTER_FIT, message).help(help));
    }
    let (mut adapters, mut files) = (Vec::new(), BTreeMap::new());
    for (path, weights) in modules {
        let (method, variant) = variant_of(path, &weights)?;
        let mut sizes = Sizes::default();
        for form in variant.files {
            let tensor = weights[form.input];
            sizes.read(form, tensor.dims()).map_err(|e| e.at(format!("`{path}.{}`", form.input)))?;
            let tensors = form.to_files(tensor)?.into_iter();
            files.extend(tensors.map(|(suffix, tensor)| (format!("{path}.{suffix}"), tensor)));
        }
        adapters.push(adapter(path, &sizes, method, variant)?);
    }
    Ok((adapters, files))
}

/// The variant whose weights are just these.
fn variant_of(path: &str, weights: &BTreeMap<&str, &Tensor>) -> Result<(&'static Method, &'static Variant)> {
    let all = METHODS.iter().flat_map(|m| m.variants.iter().map(move |v| (m, v)));
    let mut fits = all.filter(|(_, v)| {
        v.files.len() == weights.len() && v.files.iter().all(|form| weights.contains_key(form.input))
    });
    fits.next().ok_or_else(|| {
        let names: Vec<&str> = weights.keys().copied().collect();
        Error::new(
            Code::ADAPTER,
            format!("no method has just the weights `{}` of `{path}`", names.join("`, `")),
        )
    })
}

/// The adapter whose weights have these sizes, and whose scale is 1.
fn adapter(path: &str, sizes: &Sizes, method: &'static Method, variant: &'static Variant) -> Result<Adapter> {
    let none =
        || Error::new(Code::ADAPTER, format!("the adapter of `{path}` has the rank 0: it adds nothing"));
    let rank = sizes.rank.filter(|&rank| rank > 0).ok_or_else(none)?;
    let fixed = variant.example.iter().filter(|(key, _)| !sizes.settings.contains_key(key));
    let fixed = fixed.map(|(key, value)| (key.to_string(), value.to_string()));
    let settings =
        fixed.chain(sizes.settings.iter().map(|(key, n)| (key.to_string(), n.to_string()))).collect();
    let (linear, _) = sizes.linear(path);
    let config = Config::new(method, rank, 1.0, settings);
    let parts = (method.parts)(&linear, &config)?;
    let planned = Planned { linear: &linear, config, variant, parts };
    let alpha = planned.parts.scale().map_or(1.0, |scale| 1.0 / scale);
    let Config { settings, .. } = planned.config;
    Ok(Adapter {
        target: path.into(),
        method: method.name.into(),
        rank,
        alpha,
        settings,
        parameters: 0,
        nodes: 0,
    })
}
