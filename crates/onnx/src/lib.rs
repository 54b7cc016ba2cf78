//! ONNX files in and out, without loss.
//!
//! [`load`] maps a file, looks at it before it decodes it, and makes a graph whose weights are slices of the map.
//! The decoded messages are kept as the model's [`Origin`], so that [`save()`] writes what nobody changed as it was.
mod attr;
mod encode;
mod export;
mod external;
mod files;
mod import;
mod limits;
mod map;
pub mod proto;
mod save;
mod scope;
mod spill;
mod tensor;
mod types;

pub use files::{atomic_write, atomic_write_with, check_target};
pub use save::{ExternalData, SaveOptions, save, save_training, to_bytes};

use bytes::Bytes;
use external::External;
use graft_ir::{Code, Error, Graph, Result};
use prost::Message as _;
use proto::ModelProto;
use std::{path::Path, sync::Arc};

/// A model as it was read.
#[derive(Clone, Debug)]
pub struct Model {
    /// The graph: types are those that the model declares, nothing has been inferred.
    pub graph: Graph,
    /// The messages that it was made from; `None` for a model read from text.
    pub origin: Option<Arc<Origin>>,
    /// What a user should know: fields of a newer ONNX, nodes out of order.
    pub warnings: Vec<String>,
}

/// The messages that a graph was made from, and the files that its weights lie in.
///
/// Nodes, params and functions of the graph hold their index in it.
#[derive(Debug)]
pub struct Origin {
    proto: ModelProto,
    external: External,
}

impl Origin {
    /// The whole message.
    pub fn proto(&self) -> &ModelProto {
        &self.proto
    }
}

/// Reads a model: `.onnx`, or ONNX text where the name ends in `.onnxtxt`.
///
/// # Errors
/// `IO` if the file cannot be read, `DECODE` and `LIMIT` if it is no model or a hostile one, `MODEL` if it breaks a
/// rule of the format, `EXTERNAL` if weights beside it are missing, `TEXT` if it is text that cannot be parsed.
pub fn load(path: &Path) -> Result<Model> {
    let bytes = map::open(path)
        .map_err(|e| Error::new(Code::IO, format!("`{}` cannot be read: {e}", path.display())))?;
    if is_text(path) {
        let not_text = |_| Error::new(Code::TEXT, "the file is not UTF-8");
        let graph = graft_ir::parse(std::str::from_utf8(&bytes).map_err(not_text)?)?;
        return Ok(Model { graph, origin: None, warnings: Vec::new() });
    }
    if bytes.is_empty() {
        return Err(Error::new(Code::DECODE, "the file is empty"));
    }
    decode_with(bytes.clone(), External::of_model(path, bytes))
}

/// Whether the file's name says that it holds ONNX text.
fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "onnxtxt")
}

/// Reads a model from memory; its external data are looked for in `folder`.
///
/// # Errors
/// As [`load`]'s.
pub fn decode(bytes: Bytes, folder: Option<&Path>) -> Result<Model> {
    decode_with(bytes, External::new(folder.map(Path::to_path_buf)))
}

fn decode_with(bytes: Bytes, external: External) -> Result<Model> {
    let warnings = limits::scan(&bytes)?;
    let proto = ModelProto::decode(bytes).map_err(|e| undecodable(&e.to_string()))?;
    import::model(proto, external, warnings)
}

/// What `prost` says, without the path through all the messages, which can be very long.
fn undecodable(message: &str) -> Error {
    let tail: Vec<char> = message.chars().rev().take(200).collect();
    let tail: String = tail.into_iter().rev().collect();
    let error = Error::new(Code::DECODE, format!("the model could not be decoded: {tail}"));
    if message.contains("UTF-8") {
        return error
            .help("names and texts in ONNX are UTF-8; the program that wrote this model did not keep to it");
    }
    error
}
