//! What diffusers writes for image models: `unet.<path>.lora_A.weight`, `.lora_B.weight`, and the configuration as a note
//! `lora_adapter_metadata`; older files have `.lora.down.weight`, `.lora.up.weight` and `.alpha`.
use super::{Content, Form, Format, Loras, Naming, Source, components, unknown_tensors};
use crate::{Adapter, Config, Lora, safetensors};
use graft_ir::{Code, Error, Result, Tensor};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub(super) const FORMAT: Format = Format {
    name: "diffusers",
    about: "diffusers' safetensors: unet.….lora_A.weight, .lora_B.weight",
    extension: "safetensors",
    form: Form::Loras,
    is_it: |source| source.has_key(|key| PARTS.iter().any(|(suffix, _)| key.ends_with(suffix))),
    read,
    write: |content, naming| match content {
        Content::Loras(loras) => Ok(vec![("", write(loras, naming)?)]),
        _ => FORMAT.refuse(),
    },
};

/// The note that holds the configuration.
const NOTE: &str = "lora_adapter_metadata";

/// What follows a module's path, and which part of the LoRA it is.
const PARTS: &[(&str, Part)] = &[
    (".lora_A.weight", Part::A),
    (".lora_B.weight", Part::B),
    (".lora.down.weight", Part::A),
    (".lora.up.weight", Part::B),
    (".lora_magnitude_vector", Part::Magnitude),
    (".alpha", Part::Alpha),
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    A,
    B,
    Alpha,
    /// Of a DoRA, which only files with a configuration tell.
    Magnitude,
}

type Parts = BTreeMap<Part, Tensor>;

fn read(source: &Source, naming: &Naming) -> Result<Content> {
    let (tensors, note) = safetensors::decode(&source.bytes, NOTE)?;
    let mut modules: BTreeMap<(Vec<&'static str>, String), Parts> = BTreeMap::new();
    let mut unknown = Vec::new();
    for (key, tensor) in &tensors {
        let part = PARTS.iter().find_map(|&(suffix, part)| Some((key.strip_suffix(suffix)?, part)));
        let Some((module, part)) = part else {
            unknown.push(key.as_str());
            continue;
        };
        let (component, path) = components::of_path(module);
        let parts = modules.entry((component.into_iter().collect(), path.into())).or_default();
        if parts.insert(part, tensor.clone()).is_some() {
            return Err(Error::new(Code::ADAPTER, format!("`{key}` stands there in two spellings")));
        }
    }
    unknown_tensors(&unknown)?;
    let component = modules.keys().next().and_then(|(names, _)| names.first().copied());
    let component = naming.component.as_deref().or(component).unwrap_or_default();
    let (modules, warnings) = components::one(modules, naming)?;
    match note.map(|note| configuration(&note, component, &modules)).transpose()?.flatten() {
        Some((config, mut said)) => {
            said.extend(warnings);
            Ok(Content::Files(Adapter { config, tensors: files(modules), warnings: said }.into()))
        }
        None => {
            let loras = modules.into_iter().map(|(path, parts)| {
                let lora = lora(parts).map_err(|e| e.at(format!("`{path}`")))?;
                Ok((path, lora))
            });
            Ok(Content::Loras(components::loras((loras.collect::<Result<_>>()?, warnings), false)))
        }
    }
}

/// A module without a configuration; without an alpha the scale is 1.
fn lora(mut parts: Parts) -> Result<Lora> {
    let (a, b) = (parts.remove(&Part::A), parts.remove(&Part::B));
    let (Some(a), Some(b)) = (a, b) else {
        return Err(Error::new(Code::ADAPTER, "one of its two factors is missing"));
    };
    if parts.contains_key(&Part::Magnitude) {
        let message = "a DoRA without a configuration does not say its scale";
        return Err(Error::new(Code::ADAPTER_FEATURE, message));
    }
    let rank = a.dims().first().copied().unwrap_or(1) as f64;
    let alpha = parts.get(&Part::Alpha).map_or(Ok(rank), super::number)?;
    Lora::new(a, b, alpha)
}

/// The configuration in a note, whose keys begin with the component; `None` where it says nothing of this one.
fn configuration(
    note: &str,
    component: &str,
    modules: &BTreeMap<String, Parts>,
) -> Result<Option<(Config, Vec<String>)>> {
    let bad = || Error::new(Code::ADAPTER, format!("the note `{NOTE}` is no JSON object"));
    let Ok(Value::Object(all)) = serde_json::from_str(note) else { return Err(bad()) };
    let own = all.iter().filter_map(|(key, value)| {
        let key = key.strip_prefix(component)?;
        Some((key.strip_prefix('.').or(component.is_empty().then_some(key))?.to_string(), value.clone()))
    });
    let mut own: Map<String, Value> = own.collect();
    if own.is_empty() {
        return Ok(None);
    }
    own.insert("peft_type".into(), "LORA".into());
    own.entry("target_modules").or_insert_with(|| modules.keys().cloned().collect());
    Config::parse(&Value::Object(own).to_string()).map(Some)
}

/// The tensors under PEFT's keys.
fn files(modules: BTreeMap<String, Parts>) -> BTreeMap<String, Tensor> {
    let key = |path: &str, part| PARTS.iter().find(|row| row.1 == part).map(|row| format!("{path}{}", row.0));
    let each = |(path, parts): (String, Parts)| {
        parts
            .into_iter()
            .filter_map(move |(part, tensor)| Some((key(&path, part)?, tensor)))
            .collect::<Vec<_>>()
    };
    modules.into_iter().flat_map(each).collect()
}

fn write(loras: &Loras, naming: &Naming) -> Result<Vec<u8>> {
    let (component, _) = components::written(naming)?;
    let Adapter { config, tensors, .. } = Adapter::of_loras(&loras.loras);
    let prefixed = |key: &str| format!("{component}.{key}");
    let all: Map<String, Value> = serde_json::from_str(&config.to_json()).unwrap_or_default();
    // diffusers makes a `LoraConfig` of these.
    let told =
        ["r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_dora", "use_rslora"];
    let told = told.into_iter().filter_map(|key| Some((prefixed(key), all.get(key)?.clone())));
    let note = Value::Object(told.collect()).to_string();
    let tensors = tensors.into_iter().map(|(key, t)| (prefixed(&key), t)).collect();
    safetensors::encode(&tensors, Some((NOTE, &note)))
}
