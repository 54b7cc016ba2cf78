//! Adapters from one format into another, and out of models.
use crate::{init::Init, loras, outputs::configuration, trained};
use graft_adapter::{
    Adapter as Files, Cut, Lora,
    format::{self, Content, Form, Format, Loras, Naming},
    lora,
};
use graft_ir::{Code, DType, Error, Graph, Result, error::nearest};
use graft_passes::{
    Options, inject,
    inject::{Inputs, Method, Variant, adapters, file_tensors, input_tensors, of_inputs, peft, stand_in},
    merge::{Changes, stripped, weights},
    meta, targets,
};
use std::{collections::BTreeMap, path::Path};

/// What is to become of an adapter.
#[derive(Clone, Default)]
pub struct Wish<'a> {
    /// The model that it is for: it must fit, and modules are called as there. Some formats, and some methods as LoRAs, can
    /// be understood only beside it.
    pub model: Option<&'a Graph>,
    /// The nearest LoRA, with so many ranks.
    pub as_lora: Option<Cut>,
    /// One of the names that PEFT has had for the method, where it is not to be the present one.
    pub peft_type: Option<&'a str>,
    /// What formats want to know.
    pub naming: Naming,
}

/// An adapter as a LoRA: the rank on each module, and the distance from what it was, as [`Lora::nearest`] has it.
pub type Errors = BTreeMap<String, (usize, f64)>;

/// The adapter in the file or folder at `path`, whatever its format.
///
/// # Errors
/// Those of [`format::read`]; [`Code::ADAPTER_FIT`] for modules that `model` lacks.
pub fn read(path: &Path, model: Option<&Graph>, naming: &Naming) -> Result<Init> {
    let (_, content) = format::read(path, naming)?;
    files(content, model).and_then(Init::of).map_err(|e| e.at(path.display().to_string()))
}

/// `adapter` as `to` holds it, and what was lost where it became a LoRA.
///
/// # Errors
/// [`Code::ADAPTER_FEATURE`] for what the format cannot hold; [`Code::ADAPTER_FIT`] where the adapter does not fit the
/// model.
pub fn converted(init: Init, to: &Format, wish: &Wish<'_>) -> Result<(Content, Errors)> {
    if wish.model.is_none() && wish.as_lora.is_none() && to.form == Form::Files {
        return Ok((Content::Files(renewed(init, wish.peft_type)?.into()), Errors::new()));
    }
    let (graph, unknown) = graph(&init, wish.model)?;
    let (graph, errors) = match wish.as_lora {
        Some(cut) => {
            let (found, errors) = nearest_loras(&graph, &init, &unknown, cut)?;
            (self::graph(&Init::of(found)?, wish.model)?.0, errors)
        }
        None => (graph, Errors::new()),
    };
    let content = match to.form {
        Form::Files => {
            let mut files = of_graph(&graph)?;
            files.config.fan_in_fan_out = init.config.fan_in_fan_out && files.config.alpha.is_some();
            files.config.base_model = init.config.base_model;
            Content::Files(renewed(Init::of(files)?, wish.peft_type)?.into())
        }
        Form::Loras => {
            let mut loras = loras::of_graph(&graph).map_err(|e| refused(e, to))?;
            if wish.as_lora.is_none() {
                loras.iter_mut().for_each(|(path, lora)| keep_types(path, lora, &init));
            }
            Content::Loras(Loras { loras, ..Loras::default() })
        }
        Form::Inputs => {
            let is_fed =
                |model: &&Graph| model.inputs.iter().any(|&v| model[v].meta.contains_key(meta::METHOD));
            let fed = wish.model.filter(is_fed);
            Content::Inputs(input_tensors(&graph, fed)?)
        }
    };
    Ok((content, errors))
}

/// The adapters on a model as PEFT has them.
///
/// # Errors
/// [`Code::ADAPTER`] where there is none, or one has no data.
pub fn of_graph(graph: &Graph) -> Result<Files> {
    let found = adapters(graph)?;
    if found.is_empty() {
        let help = "`graft inspect --tree` shows them; of a fine-tuned model, `graft extract --base` takes the difference";
        return Err(Error::new(Code::ADAPTER, "there is no adapter on the model").help(help));
    }
    let methods: std::collections::BTreeSet<&str> = found.iter().map(|a| a.method.as_str()).collect();
    if methods.len() > 1 {
        let names: Vec<&str> = methods.into_iter().collect();
        let message = format!("adapters of several methods are on the model: `{}`", names.join("`, `"));
        return Err(Error::new(Code::ADAPTER_FEATURE, message).help("a file holds one method"));
    }
    let tensors = file_tensors(graph, &|_| Ok(None))?;
    if let Some((key, _)) = tensors.iter().find(|(_, tensor)| tensor.is_empty()) {
        let message = format!("the adapter has no ranks yet: `{key}` is empty");
        return Err(Error::new(Code::ADAPTER, message)
            .help("its weights are inputs; they come from an adapter's file"));
    }
    Ok(Files { config: configuration(&found, &Options::default())?, tensors, warnings: Vec::new() })
}

/// What a fine-tuned model has changed of `base` in the linears that both have, as the nearest LoRAs.
///
/// # Errors
/// [`Code::ADAPTER_FIT`] where no linear has changed, or sizes differ.
pub fn difference(tuned: &Graph, base: &Graph, cut: Cut) -> Result<(Files, Errors)> {
    let (before, after) = (weights(base)?, weights(tuned)?);
    let mut found = BTreeMap::new();
    let mut errors = Errors::new();
    for (path, w) in &after {
        let lost = || {
            let near = nearest(path, before.keys().map(String::as_str)).join("`, `");
            Error::new(Code::ADAPTER_FIT, format!("the base model has no linear `{path}` of the same size"))
                .help(format!("nearest: `{near}`"))
        };
        let old = before.get(path).filter(|old| old.dims == w.dims).ok_or_else(lost)?;
        let change = lora::transposed(w)? - lora::transposed(old)?;
        if change.norm_max() == 0.0 {
            continue;
        }
        let (lora, error) =
            Lora::nearest(change.as_ref(), cut, DType::Float).map_err(|e| e.at(format!("`{path}`")))?;
        errors.insert(path.clone(), (lora.rank(), error));
        found.insert(path.clone(), lora);
    }
    if found.is_empty() {
        return Err(Error::new(Code::ADAPTER_FIT, "no linear of the model differs from the base model's"));
    }
    Ok((Files::of_loras(&found), errors))
}

/// What was read, as PEFT has it.
fn files(content: Content, model: Option<&Graph>) -> Result<Files> {
    match content {
        Content::Files(adapter) => Ok(*adapter),
        Content::Loras(mut loras) => {
            if loras.is_flat {
                loras.loras = pointed(loras.loras, model)?;
            }
            Ok(Files { warnings: loras.warnings, ..Files::of_loras(&loras.loras) })
        }
        Content::Inputs(inputs) => {
            let (found, tensors) = of_inputs(&inputs)?;
            Ok(Files { config: configuration(&found, &Options::default())?, tensors, warnings: Vec::new() })
        }
    }
}

/// LoRAs under the paths of `model` that are theirs where dots are underscores.
fn pointed(loras: BTreeMap<String, Lora>, model: Option<&Graph>) -> Result<BTreeMap<String, Lora>> {
    let Some(model) = model else {
        let message =
            "the format has underscores for the dots of the modules' paths, which only the model tells";
        return Err(Error::new(Code::USAGE, message).help("give it with --model"));
    };
    let linears = targets(model)?;
    let flat = |path: &str| path.replace('.', "_");
    let ends = |long: &str, short: &str| {
        long.strip_suffix(short).is_some_and(|head| head.is_empty() || head.ends_with('_'))
    };
    let mut found = BTreeMap::new();
    for (name, lora) in loras {
        let fits = |path: &str| ends(&flat(path), &name) || ends(&name, &flat(path));
        let exact = linears.iter().filter(|l| flat(&l.path) == name);
        let close = linears.iter().filter(|l| l.nth_use == 0 && fits(&l.path));
        let candidates: Vec<&str> = exact.chain(close).map(|l| l.path.as_str()).collect();
        let lost = || {
            let flat: Vec<String> = linears.iter().map(|l| flat(&l.path)).collect();
            let near = nearest(&name, flat.iter().map(String::as_str)).join("`, `");
            Error::new(Code::ADAPTER_FIT, format!("no linear node is called `{name}`"))
                .help(format!("nearest: `{near}`"))
        };
        let path = candidates.first().ok_or_else(lost)?;
        let is_clear = flat(path) == name || candidates.iter().all(|other| other == path);
        if !is_clear {
            let message = format!("`{name}` is ambiguous: `{}`", candidates.join("`, `"));
            return Err(Error::new(Code::ADAPTER_FIT, message));
        }
        if found.insert(path.to_string(), lora).is_some() {
            return Err(Error::new(Code::ADAPTER_FIT, format!("`{path}` is named twice")));
        }
    }
    Ok(found)
}

/// A graph with the adapter on it: the model, or one of nothing but the linears that it is for. In that, the paths of the
/// linears whose sizes are not known.
fn graph(init: &Init, model: Option<&Graph>) -> Result<(Graph, Vec<String>)> {
    let silent = &mut |_: &str| ();
    match model {
        Some(model) => Ok((trained::inject(&stripped(model)?, init, Inputs::None, silent)?, Vec::new())),
        None => {
            let (graph, unknown) = stand_in(variant(init)?, &init.tensors)?;
            // Which modules are targets, the tensors say; the patterns of a configuration may also match others.
            let bare = ["targets", "exclude", "layers", "layers-pattern"];
            let options = bare.iter().fold(init.options.clone(), |options, key| options.without(key));
            let init = Init { options, ..init.clone() };
            Ok((trained::inject(&graph, &init, Inputs::None, silent)?, unknown))
        }
    }
}

/// The method and the variant that a configuration tells.
fn told(init: &Init) -> Result<(&'static Method, inject::Config)> {
    let method = Method::named(&init.options.get_or("method", String::new())?)?;
    let given = |s: &inject::Setting| Some((s.name.to_string(), init.options.all(s.name).last()?.clone()));
    let settings = method.settings.iter().filter_map(given).collect();
    let alpha = init.options.get_or("alpha", method.alpha.unwrap_or(1.0))?;
    Ok((method, inject::Config::new(method, init.config.rank, alpha, settings)))
}

fn variant(init: &Init) -> Result<&'static Variant> {
    let (method, config) = told(init)?;
    method.variant(&config)
}

/// The nearest LoRAs to the adapters on `graph`.
fn nearest_loras(graph: &Graph, init: &Init, unknown: &[String], cut: Cut) -> Result<(Files, Errors)> {
    let variant = variant(init)?;
    let blind = |why: String| {
        Err(Error::new(Code::ADAPTER_FEATURE, format!("{why}, so that no LoRA can be made of it alone"))
            .help("give the model that it is for with --model"))
    };
    let is_blind = graph.params.iter().any(|&v| graph[v].tensor.is_none());
    match unknown.first() {
        _ if variant.merged().is_none() => {
            let message = format!(
                "no LoRA has the effect of this adapter, which depends on the input: {}",
                variant.about
            );
            return Err(Error::new(Code::ADAPTER_FEATURE, message));
        }
        Some(path) => return blind(format!("the files do not tell the sizes of `{path}`")),
        None if is_blind && !variant.is_additive() => {
            return blind("what the adapter changes depends on the base weights".into());
        }
        None => {}
    }
    let changes = Changes::new(graph)?;
    let (mut found, mut errors) = (BTreeMap::new(), Errors::new());
    for adapter in adapters(graph)? {
        let change = lora::transposed(&changes.of(&adapter)?)?;
        let place = |e: Error| e.at(format!("`{}`", adapter.target));
        let (lora, error) = Lora::nearest(change.as_ref(), cut, DType::Float).map_err(place)?;
        errors.insert(adapter.target.clone(), (lora.rank(), error));
        found.insert(adapter.target, lora);
    }
    Ok((Files::of_loras(&found), errors))
}

/// A format that holds LoRAs alone does not hold this one.
fn refused(e: Error, to: &Format) -> Error {
    Error { message: format!("`{}` holds plain LoRAs alone, and {}", to.name, e.message), ..e }
}

/// The factors in the element types of the file; in a graph an adapter computes in single precision at least.
fn keep_types(path: &str, lora: &mut Lora, init: &Init) {
    let Ok(method) = Method::named("lora") else { return };
    for (role, tensor) in [("a", &mut lora.a), ("b", &mut lora.b)] {
        let stored = method.file(role).and_then(|form| init.tensors.get(&format!("{path}.{}", form.suffix)));
        if let Some(stored) = stored.filter(|stored| stored.dims() == tensor.dims()) {
            *tensor = stored.clone();
        }
    }
}

/// The adapter under the names that PEFT has now for method and tensors, or under those that came with `peft_type`.
fn renewed(init: Init, peft_type: Option<&str>) -> Result<Files> {
    let (method, config) = told(&init)?;
    let variant = method.variant(&config)?;
    let Init { config: mut told, tensors, warnings, .. } = init;
    let types = variant.peft.types;
    let unknown = |name: &str| {
        let message = format!("`{name}` is no `peft_type` of this adapter");
        Error::new(Code::USAGE, message).help(format!("it may be `{}`", types.join("` or `")))
    };
    let nth = match peft_type {
        Some(name) => types.iter().position(|t| *t == name).ok_or_else(|| unknown(name))?,
        None => 0,
    };
    let (_, keys) = peft::write(method, &config)?;
    told.peft_type = types.get(nth).map_or(told.peft_type, |name| name.to_string());
    for (key, value) in keys {
        told.keys.entry(key).or_insert(value);
    }
    let renamed = |key: String| {
        let found = variant.files.iter().find_map(|form| Some((form, form.split(&key)?)));
        let Some((form, (path, suffix))) = found else { return key };
        let older = nth.checked_sub(1).and_then(|i| form.aliases.get(i));
        format!("{path}.{}", older.copied().unwrap_or(&suffix))
    };
    let tensors = tensors.into_iter().map(|(key, tensor)| (renamed(key), tensor)).collect();
    Ok(Files { config: told, tensors, warnings })
}
