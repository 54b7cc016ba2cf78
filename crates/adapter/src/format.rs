//! The formats of adapters: `FORMATS` lists them, one file each, with how a file in it is told and what it can hold.
mod components;
mod diffusers;
mod gguf;
mod kohya;
mod npz;
mod onnx_adapter;
mod peft;

use crate::{Adapter, Lora};
use bytes::Bytes;
use graft_ir::{Code, Error, Result, Tensor, error::nearest};
use std::{collections::BTreeMap, path::Path};

/// A format of adapters.
pub struct Format {
    /// As the command line has it.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// What names of files in this format end in; empty for a folder.
    pub extension: &'static str,
    /// What it holds of an adapter.
    pub form: Form,
    /// Whether a file, or a folder, is in this format.
    is_it: fn(&Source) -> bool,
    /// Reads one.
    read: fn(&Source, &Naming) -> Result<Content>,
    /// The bytes of the file, or of the files in the folder by name.
    write: fn(&Content, &Naming) -> Result<Written>,
}

/// The bytes of files, each with its name in the folder; of a file by itself without.
type Written = Vec<(&'static str, Vec<u8>)>;

/// What a format can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Every method: a configuration and tensors as PEFT has them.
    Files,
    /// LoRAs alone.
    Loras,
    /// Every method: the weights as the inputs of an ONNX graph take them.
    Inputs,
}

/// What was read of an adapter, or is to be written.
#[derive(Clone, PartialEq, Debug)]
pub enum Content {
    /// Configuration and tensors.
    Files(Box<Adapter>),
    /// LoRAs by module path.
    Loras(Loras),
    /// Weights by the names of a graph's inputs, in the graph's orientation, the scale in them.
    Inputs(BTreeMap<String, Tensor>),
}

/// LoRAs by module path.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Loras {
    /// Each with its path.
    pub loras: BTreeMap<String, Lora>,
    /// Whether the format has underscores in the place of the paths' dots, so that a path can be told only from a model's.
    pub is_flat: bool,
    /// What is to be said about the file: one sentence each.
    pub warnings: Vec<String>,
}

/// What some formats want to know about the model that an adapter is for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Naming {
    /// Which part of a pipeline it is: `unet`, `text_encoder`, …
    pub component: Option<String>,
    /// llama.cpp's name of its architecture: `llama`, `qwen2`, `bert`, …
    pub architecture: Option<String>,
}

/// A file or a folder to be read.
pub(crate) struct Source {
    path: std::path::PathBuf,
    /// The content; empty for a folder.
    bytes: Bytes,
}

/// Every format.
pub const FORMATS: &[Format] =
    &[peft::FORMAT, onnx_adapter::FORMAT, npz::FORMAT, kohya::FORMAT, diffusers::FORMAT, gguf::FORMAT];

impl Format {
    /// The format of that name.
    ///
    /// # Errors
    /// [`Code::USAGE`] that lists all.
    pub fn named(name: &str) -> Result<&'static Format> {
        let names = || FORMATS.iter().map(|f| f.name);
        let unknown = || {
            let near = nearest(name, names()).join("`, `");
            let all: Vec<&str> = names().collect();
            let help = format!("nearest: `{near}`; all formats: `{}`", all.join("`, `"));
            Error::new(Code::USAGE, format!("there is no format `{name}` of adapters")).help(help)
        };
        FORMATS.iter().find(|f| f.name == name).ok_or_else(unknown)
    }
    /// The format that a name says by its extension, or by having none; `None` where that leaves several.
    pub fn of_name(path: &Path) -> Option<&'static Format> {
        let extension = path.extension().map_or(Some(""), |e| e.to_str())?;
        let mut fits = FORMATS.iter().filter(|f| f.extension == extension);
        fits.next().filter(|_| fits.next().is_none())
    }
    /// Refuses a place where something is already.
    ///
    /// # Errors
    /// [`Code::EXISTS`], where `force` is not given; [`Code::IO`] where nothing can be written there.
    pub fn check_target(&self, path: &Path, force: bool) -> Result<()> {
        if !self.extension.is_empty() {
            return graft_onnx::check_target(path, force);
        }
        if path.exists() && !path.is_dir() {
            let message = format!("`{}` is a file, expected a folder", path.display());
            return Err(Error::new(Code::EXISTS, message));
        }
        [crate::CONFIG_FILE, crate::MODEL_FILE]
            .iter()
            .filter(|_| path.exists())
            .try_for_each(|file| graft_onnx::check_target(&path.join(file), force))
    }
    /// Writes a file, or a folder, each file under a temporary name that is then renamed. The same content always gives the
    /// same bytes.
    ///
    /// # Errors
    /// [`Code::ADAPTER_FEATURE`] for what the format cannot hold.
    pub fn write(&self, path: &Path, content: &Content, naming: &Naming) -> Result<()> {
        let files = (self.write)(content, naming)?;
        if !self.extension.is_empty() {
            return files.iter().try_for_each(|(_, bytes)| graft_onnx::atomic_write(path, bytes));
        }
        let failed = |e| Error::new(Code::IO, format!("`{}` cannot be made: {e}", path.display()));
        std::fs::create_dir_all(path).map_err(failed)?;
        files.iter().try_for_each(|(name, bytes)| graft_onnx::atomic_write(&path.join(name), bytes))
    }
    /// What this format cannot hold.
    fn refuse<T>(&self) -> Result<T> {
        Err(Error::new(Code::ADAPTER_FEATURE, format!("`{}` cannot hold this adapter", self.name)))
    }
}

/// Reads an adapter in whichever format it is, told by its content.
///
/// # Errors
/// [`Code::ADAPTER`] for a damaged file or one in no known format; [`Code::ADAPTER_FEATURE`] for what is not supported.
pub fn read(path: &Path, naming: &Naming) -> Result<(&'static Format, Content)> {
    let place = |e: Error| e.at(path.display().to_string());
    let source = Source::open(path).map_err(place)?;
    let unknown = || {
        let names: Vec<&str> = FORMATS.iter().map(|f| f.name).collect();
        let message = "the file is in no format of adapters that is known, or is damaged";
        place(Error::new(Code::ADAPTER, message).help(format!("known formats: `{}`", names.join("`, `"))))
    };
    let format = FORMATS.iter().find(|f| (f.is_it)(&source)).ok_or_else(unknown)?;
    let read = (format.read)(&source, naming).map_err(|e| match source.path.is_dir() {
        // What is in a folder says itself where it is.
        true => e,
        false => place(Error { code: crate::adapter_code(&e), ..e }),
    });
    Ok((format, read?))
}

impl Source {
    fn open(path: &Path) -> Result<Source> {
        let failed = |e| Error::new(Code::IO, format!("the adapter cannot be read: {e}"));
        let is_dir = std::fs::metadata(path).map_err(failed)?.is_dir();
        let bytes = if is_dir { Bytes::new() } else { std::fs::read(path).map_err(failed)?.into() };
        Ok(Source { path: path.into(), bytes })
    }
    /// The tensors of a safetensors file, and a note in its header; `None` for another file.
    fn safetensors(&self, note: &str) -> Option<(BTreeMap<String, Tensor>, Option<String>)> {
        crate::safetensors::decode(&self.bytes, note).ok()
    }
    /// Whether it is a safetensors file with such a key.
    fn has_key(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.safetensors(crate::safetensors::NOTE)
            .is_some_and(|(tensors, _)| tensors.keys().any(|k| wanted(k)))
    }
}

/// Tensors that a format does not know, which are named and not skipped.
fn unknown_tensors(names: &[&str]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let shown = names.iter().take(8).copied().collect::<Vec<_>>().join("`, `");
    let more =
        names.len().checked_sub(8).filter(|&n| n > 0).map_or(String::new(), |n| format!(" and {n} more"));
    Err(Error::new(Code::ADAPTER_FEATURE, format!("tensors that are not understood: `{shown}`{more}")))
}

/// The only element of a tensor.
fn number(tensor: &Tensor) -> Result<f64> {
    let value = tensor.to_f64().filter(|v| v.len() == 1 && v[0].is_finite());
    value.map(|v| v[0]).ok_or_else(|| Error::new(Code::ADAPTER, "its alpha is no finite number"))
}
