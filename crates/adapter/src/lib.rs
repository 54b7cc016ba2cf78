//! Adapter files: PEFT's directory (`adapter_config.json` + `adapter_model.safetensors`), the other formats of adapters
//! (`format.rs` lists them) and the manifest `graft.json` in and out; LoRAs by themselves, and several as one; and maps of
//! named tensors as safetensors and npz.
//!
//! This crate knows files only. How a tensor is called and laid out for each method is told by `graft_passes::METHODS`;
//! whether an adapter fits a model is decided where it is put into one.
#![forbid(unsafe_code)]

pub mod combine;
mod config;
mod features;
mod fields;
pub mod format;
mod head;
pub mod lora;
mod manifest;
mod npz;
mod safetensors;
pub mod tensors;

pub use config::{Config, Targets};
pub use head::Head;
pub use lora::{Cut, Lora};
pub use manifest::{Coverage, Manifest, Module, NO_METHOD, SCHEMA, fingerprint};

use graft_ir::{Code, Error, Result, Tensor};
use std::{collections::BTreeMap, path::Path};

/// The name of the configuration in an adapter's directory.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The name of the weights in an adapter's directory.
pub const MODEL_FILE: &str = "adapter_model.safetensors";
/// The name of our manifest in an adapter's directory.
pub const MANIFEST_FILE: &str = "graft.json";
/// The name of the trained head's weights in an adapter's directory.
pub const HEAD_FILE: &str = "head.safetensors";

/// What PEFT puts before every key of `adapter_model.safetensors`.
const PREFIX: &str = "base_model.model.";

/// An adapter as read from a directory.
#[derive(Clone, PartialEq, Debug)]
pub struct Adapter {
    /// What `adapter_config.json` says.
    pub config: Config,
    /// File key (`<module path>.<suffix>`, without `base_model.model.`) → tensor in PyTorch's orientation.
    pub tensors: BTreeMap<String, Tensor>,
    /// Things in the configuration that have no effect here: one sentence each, to be shown.
    pub warnings: Vec<String>,
}

/// Reads an adapter's directory.
///
/// A damaged or incomplete file is a [`Code::ADAPTER`] error; a feature of PEFT that is not supported and would change
/// the result is a [`Code::ADAPTER_FEATURE`] error that names it.
pub fn load(dir: &Path) -> Result<Adapter> {
    let (config, warnings) = load_config(dir)?;
    let path = dir.join(MODEL_FILE);
    if !path.exists() && dir.join("adapter_model.bin").exists() {
        let message =
            format!("`{}` holds `adapter_model.bin`, a pickle, and no `{MODEL_FILE}`", dir.display());
        return Err(Error::new(Code::ADAPTER, message).help("save it with `safe_serialization=True`"));
    }
    let tensors = tensors::read(&path).map_err(|e| Error { code: adapter_code(&e), ..e })?;
    let tensors = tensors.into_iter().map(|(key, t)| (strip(&key).to_string(), t)).collect();
    Ok(Adapter { config, tensors, warnings })
}

/// Reads the configuration in an adapter's directory, with what is to be said about it.
pub fn load_config(dir: &Path) -> Result<(Config, Vec<String>)> {
    let path = dir.join(CONFIG_FILE);
    if !path.exists() && dir.join(HEAD_FILE).exists() {
        let message = format!("`{}` holds a trained head and no adapter", dir.display());
        let help = "`graft inject --adapter` alone takes such a folder, and puts the head on the model";
        return Err(Error::new(Code::ADAPTER, message).help(help));
    }
    let text = std::fs::read_to_string(&path).map_err(|e| {
        let message = format!("cannot read the adapter's configuration: {e}");
        Error::new(Code::ADAPTER, message).at(path.display().to_string())
    })?;
    Config::parse(&text).map_err(|e| e.at(path.display().to_string()))
}

/// Writes an adapter's two PEFT files into `dir`, which must exist, each under a temporary name that is then renamed.
///
/// `tensors` is keyed as in [`Adapter::tensors`]. The same adapter always gives the same bytes.
pub fn save(dir: &Path, config: &Config, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    graft_onnx::atomic_write(&dir.join(MODEL_FILE), &tensor_bytes(tensors)?)?;
    graft_onnx::atomic_write(&dir.join(CONFIG_FILE), config.to_json().as_bytes())
}

/// The bytes of an `adapter_model.safetensors`, or of any other file of tensors under an adapter's keys.
pub fn tensor_bytes(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    let prefixed = tensors.iter().map(|(key, t)| (file_key(key), t.clone())).collect();
    // PEFT looks for this entry before it believes that the file came from PyTorch.
    safetensors::encode(&prefixed, Some(("format", "pt")))
}

/// A key of [`Adapter::tensors`] as `adapter_model.safetensors` has it.
pub fn file_key(key: &str) -> String {
    format!("{PREFIX}{key}")
}

/// A key of an adapter's file without PEFT's prefix.
fn strip(key: &str) -> &str {
    key.strip_prefix(PREFIX).unwrap_or(key)
}

/// A damaged file of tensors is a damaged adapter here.
fn adapter_code(error: &Error) -> &'static Code {
    if error.code == Code::DATA || error.code == Code::IO { Code::ADAPTER } else { error.code }
}
