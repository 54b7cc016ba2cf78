//! What Kohya's trainers write for image models: `lora_unet_<path, flat>.lora_down.weight`, `.lora_up.weight`, `.alpha`.
use super::{Content, Form, Format, Loras, Naming, Source, components, unknown_tensors};
use crate::{Lora, safetensors};
use graft_ir::{Code, DType, Error, Result, Tensor};
use std::collections::BTreeMap;

pub(super) const FORMAT: Format = Format {
    name: "kohya",
    about: "Kohya's safetensors: lora_unet_….lora_down.weight, .lora_up.weight, .alpha",
    extension: "safetensors",
    form: Form::Loras,
    is_it: |source| source.has_key(|key| key.starts_with("lora_") && key.contains(".lora_down.")),
    read: |source, naming| read(source, naming).map(Content::Loras),
    write: |content, naming| match content {
        Content::Loras(loras) => Ok(vec![("", write(loras, naming)?)]),
        _ => FORMAT.refuse(),
    },
};

const DOWN: &str = "lora_down.weight";
const UP: &str = "lora_up.weight";
const ALPHA: &str = "alpha";

fn read(source: &Source, naming: &Naming) -> Result<Loras> {
    let (tensors, _) = safetensors::decode(&source.bytes, safetensors::NOTE)?;
    let mut parts: BTreeMap<&str, BTreeMap<&str, &Tensor>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for (key, tensor) in &tensors {
        match key.split_once('.').filter(|(_, part)| [DOWN, UP, ALPHA].contains(part)) {
            Some((module, part)) => _ = parts.entry(module).or_default().insert(part, tensor),
            None => unknown.push(key.as_str()),
        }
    }
    unknown_tensors(&unknown)?;
    let mut modules = BTreeMap::new();
    for (module, parts) in parts {
        let foreign =
            || Error::new(Code::ADAPTER, format!("`{module}` belongs to no component that is known"));
        let (names, path) = components::of_flat(module).ok_or_else(foreign)?;
        let lora = lora(&parts).map_err(|e| e.at(format!("`{module}`")))?;
        modules.insert((names, path.to_string()), lora);
    }
    Ok(components::loras(components::one(modules, naming)?, true))
}

/// Without an alpha the scale is 1.
fn lora(parts: &BTreeMap<&str, &Tensor>) -> Result<Lora> {
    let part = |name: &str| {
        let lost = || Error::new(Code::ADAPTER, format!("`{name}` is missing"));
        parts.get(name).copied().cloned().ok_or_else(lost)
    };
    let (a, b) = (part(DOWN)?, part(UP)?);
    let alpha = match parts.get(ALPHA) {
        Some(alpha) => super::number(alpha)?,
        None => a.dims().first().copied().unwrap_or(1) as f64,
    };
    Lora::new(a, b, alpha)
}

fn write(loras: &Loras, naming: &Naming) -> Result<Vec<u8>> {
    let (_, prefix) = components::written(naming)?;
    let mut tensors = BTreeMap::new();
    for (path, lora) in &loras.loras {
        let module = format!("{prefix}_{}", path.replace('.', "_"));
        let alpha = Tensor::from_f64(DType::Float, &[], [lora.alpha]);
        let alpha = alpha.ok_or_else(|| Error::new(Code::ADAPTER, "alpha is no number"))?;
        for (part, tensor) in [(DOWN, lora.a.clone()), (UP, lora.b.clone()), (ALPHA, alpha)] {
            if tensors.insert(format!("{module}.{part}"), tensor).is_some() {
                let message = format!("two modules are called `{module}` where dots are underscores");
                return Err(Error::new(Code::ADAPTER_FEATURE, message));
            }
        }
    }
    safetensors::encode(&tensors, Some(("format", "pt")))
}
