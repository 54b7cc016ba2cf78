//! Writing models: to one file, or to one and a file of weights beside it.
use crate::{
    Model, encode, export, files,
    files::Pending,
    is_text,
    proto::{ModelProto, StringStringEntryProto, TrainingInfoProto},
    spill,
};
use graft_ir::{Code, Error, Graph, Result};
use prost::Message as _;
use std::path::{Path, PathBuf};

/// How a model is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SaveOptions {
    /// Whether existing files are replaced.
    pub force: bool,
    /// Where weights go.
    pub external: ExternalData,
    /// With [`ExternalData::Auto`]: models of more bytes than this get a file of weights.
    pub threshold: u64,
}

impl Default for SaveOptions {
    fn default() -> SaveOptions {
        // Protobuf ends at 2 GiB.
        SaveOptions { force: false, external: ExternalData::Auto, threshold: 1_800 << 20 }
    }
}

/// Where weights go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExternalData {
    /// Into the model, unless they lay outside it before or the model gets too large.
    Auto,
    /// Into the model.
    Never,
    /// Into a file beside the model, but for small ones.
    Always,
    /// Where the origin has them, but for small ones: the file refers to the origin's, which must lie in its folder.
    Shared,
}

/// No message of protobuf can be larger.
const LARGEST: usize = i32::MAX as usize;

/// Writes a graph to `path`: as ONNX, or as ONNX text where the name ends in `.onnxtxt`. Weights that go into a file
/// of their own go to `<path>.data`. Whatever is as `origin` has it is written as it is there.
///
/// # Errors
/// `EXISTS` if a file exists and `force` is not given, `IO` if one cannot be written, `GRAPH` if a weight has no data,
/// `LIMIT` if the model is larger than ONNX allows. In each case nothing is left behind.
pub fn save(graph: &Graph, origin: Option<&Model>, path: &Path, options: &SaveOptions) -> Result<()> {
    save_training(graph, origin, path, options, &[])
}

/// [`save`] for a training step: after a run, each initializer of `update` takes the value of its output, which the model
/// says as ONNX does, by `TrainingInfoProto.update_binding`.
///
/// # Errors
/// As [`save`]'s.
pub fn save_training(
    graph: &Graph,
    origin: Option<&Model>,
    path: &Path,
    options: &SaveOptions,
    update: &[(String, String)],
) -> Result<()> {
    if is_text(path) {
        let text = graph.to_string();
        return files::atomic_write_with(path, options.force, |w| w.write_all(text.as_bytes()));
    }
    let origin = origin.and_then(|m| m.origin.as_deref());
    let mut proto = export::model(graph, origin)?;
    proto.training_info.extend(training_info(update));
    let mut model = Pending::create(path, options.force)?;
    let weights = match spill::plan(&mut proto, origin, path, options)? {
        Some(weights) => Some(write_weights(&weights, options.force)?),
        None => None,
    };
    check_size(&proto)?;
    encode::write(proto, &mut model.out).map_err(|e| files::unwritable(path, &e))?;
    match weights {
        Some((weights, target)) => commit_both(weights, &target, model),
        None => model.commit(),
    }
}

/// What the model says of its training; nothing where nothing is updated.
fn training_info(update: &[(String, String)]) -> Option<TrainingInfoProto> {
    let entry = |(key, value): &(String, String)| StringStringEntryProto {
        key: Some(key.clone()),
        value: Some(value.clone()),
    };
    let update_binding: Vec<_> = update.iter().map(entry).collect();
    (!update_binding.is_empty()).then(|| TrainingInfoProto { update_binding, ..TrainingInfoProto::default() })
}

/// The bytes of a model with all weights in it.
///
/// # Errors
/// `GRAPH` if a weight has no data, `EXTERNAL` if one that lies in a file cannot be read, `LIMIT` beyond 2 GiB.
pub fn to_bytes(graph: &Graph, origin: Option<&Model>) -> Result<Vec<u8>> {
    let origin = origin.and_then(|m| m.origin.as_deref());
    let mut proto = export::model(graph, origin)?;
    spill::inline(&mut proto, origin)?;
    check_size(&proto)?;
    Ok(proto.encode_to_vec())
}

fn check_size(proto: &ModelProto) -> Result<()> {
    let size = proto.encoded_len();
    if size <= LARGEST {
        return Ok(());
    }
    let message = format!("the model has {size} bytes, more than the {LARGEST} that one ONNX file can hold");
    Err(Error::new(Code::LIMIT, message).help("let the weights go to a file beside the model"))
}

fn write_weights(weights: &spill::Weights, force: bool) -> Result<(Pending, PathBuf)> {
    let mut pending = Pending::create(&weights.path, force)?;
    weights.write(&mut pending.out).map_err(|e| files::unwritable(&weights.path, &e))?;
    Ok((pending, weights.path.clone()))
}

/// First the weights, then the model that refers to them; without the model, weights that were not there before go.
fn commit_both(weights: Pending, target: &Path, model: Pending) -> Result<()> {
    let existed = target.exists();
    weights.commit()?;
    model.commit().inspect_err(|_| {
        if !existed {
            let _ = std::fs::remove_file(target);
        }
    })
}

impl Model {
    /// [`save`] with this model as the origin of its own graph.
    ///
    /// # Errors
    /// As [`save`]'s.
    pub fn save(&self, path: &Path, options: &SaveOptions) -> Result<()> {
        save(&self.graph, Some(self), path, options)
    }
}
