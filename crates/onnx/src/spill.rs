//! Which weights lie in a file beside the model, and at which place of it.
use crate::{
    ExternalData, Origin, SaveOptions,
    external::{External, Place},
    files,
    proto::{tensor_proto::DataLocation, *},
    tensor,
};
use bytes::Bytes;
use graft_ir::{Code, Error, Result, Tensor};
use prost::Message as _;
use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
};

/// Smaller weights stay in the model.
const SMALLEST: usize = 1024;
/// Data begin at a multiple of a page,
const PAGE: u64 = 4 << 10;
/// and large ones at a multiple of what some systems map at a time.
const CHUNK: u64 = 64 << 10;
/// What counts as large.
const LARGE: u64 = 1 << 20;

/// A file of weights that is to be written.
pub(crate) struct Weights {
    /// Its name.
    pub(crate) path: PathBuf,
    parts: Vec<(u64, Bytes)>,
    end: u64,
}

/// Decides where each weight goes and makes the messages say so. What is returned must be written beside the model.
pub(crate) fn plan(
    proto: &mut ModelProto,
    origin: Option<&Origin>,
    path: &Path,
    options: &SaveOptions,
) -> Result<Option<Weights>> {
    if options.external == ExternalData::Never {
        inline(proto, origin)?;
        return Ok(None);
    }
    let mut data = path.file_name().map_or_else(OsString::new, OsString::from);
    data.push(".data");
    let mut weights = Weights { path: path.with_file_name(&data), parts: Vec::new(), end: 0 };
    let spills = options.external == ExternalData::Always || proto.encoded_len() as u64 > options.threshold;
    let empty = External::default();
    let external = origin.map_or(&empty, |o| &o.external);
    // References stay as they are if the files that they name do.
    let mut stay = same_folder(external, path);
    each_tensor(proto, &mut |t| {
        let named = location(t);
        let named = named.as_deref().and_then(Path::file_name);
        stay &= !is_external(t) || named != path.file_name() && !(spills && named == Some(data.as_os_str()));
        Ok(())
    })?;
    if options.external == ExternalData::Shared {
        if !same_folder(external, path) {
            let message = "weights can be shared by models in one folder only";
            let help = "readers of ONNX refuse weights outside of a model's folder: write it beside the one that it is made of";
            return Err(Error::new(Code::USAGE, message).help(help));
        }
        share(proto, external, path);
    }
    if !stay {
        each_tensor(proto, &mut |t| if is_external(t) { weights.take(t, external) } else { Ok(()) })?;
    }
    if spills && let Some(graph) = &mut proto.graph {
        for t in graph.initializer.iter_mut().filter(|t| !is_external(t) && t.encoded_len() >= SMALLEST) {
            weights.take(t, external)?;
        }
    }
    Ok((!weights.parts.is_empty()).then_some(weights))
}

/// Makes large weights refer to the origin's file that holds them, unless that is to be replaced by `path`.
fn share(proto: &mut ModelProto, external: &External, path: &Path) {
    let stays = |name: &str| path.file_name() != Some(name.as_ref());
    let place = |data: Bytes| {
        let (name, offset) = external.place_of(&data).filter(|(name, _)| stays(name))?;
        Some((name, offset, data.len() as u64))
    };
    for t in proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        let data = t.raw_data.clone().filter(|data| !is_external(t) && data.len() >= SMALLEST);
        if let Some((name, offset, length)) = data.and_then(place) {
            refer(t, &name, offset, length);
        }
    }
}

/// Takes a tensor's data out of its message and says where they lie.
fn refer(t: &mut TensorProto, name: &str, offset: u64, length: u64) {
    clear(t);
    let entry =
        |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
    t.external_data = vec![
        entry("location", name.into()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ];
    t.data_location = Some(DataLocation::External as i32);
}

/// Puts all weights into the model.
pub(crate) fn inline(proto: &mut ModelProto, origin: Option<&Origin>) -> Result<()> {
    let empty = External::default();
    let external = origin.map_or(&empty, |o| &o.external);
    each_tensor(proto, &mut |t| {
        if is_external(t)
            && let Some(read) = read(t, external)?
        {
            clear(t);
            t.raw_data = Some(read.data().clone());
        }
        Ok(())
    })
}

fn same_folder(external: &External, path: &Path) -> bool {
    let same = |a: &Path| Some(a.canonicalize().ok()? == files::folder(path).canonicalize().ok()?);
    external.folder().and_then(same) == Some(true)
}

fn is_external(t: &TensorProto) -> bool {
    t.data_location == Some(DataLocation::External as i32)
}

fn location(t: &TensorProto) -> Option<PathBuf> {
    Place::of(t).ok().map(|place| PathBuf::from(place.location))
}

/// A tensor, but if it is of a type that only the original can express; then it must not have external data.
fn read(t: &TensorProto, external: &External) -> Result<Option<Tensor>> {
    let place = |e: Error| e.at(format!("tensor `{}`", t.name()));
    let read = tensor::read(t, external).map_err(place)?;
    if read.is_none() && is_external(t) {
        let message =
            format!("external data of the unknown element type {} cannot be moved", t.data_type.unwrap_or(0));
        return Err(place(Error::new(Code::EXTERNAL, message)));
    }
    Ok(read)
}

/// Takes the data out of a message.
fn clear(t: &mut TensorProto) {
    t.external_data.clear();
    t.data_location = None;
    t.raw_data = None;
    t.float_data = Vec::new();
    t.int32_data = Vec::new();
    t.int64_data = Vec::new();
    t.double_data = Vec::new();
    t.uint64_data = Vec::new();
}

impl Weights {
    /// Moves a tensor's data to the file. Strings and what the graph cannot express have to stay.
    fn take(&mut self, t: &mut TensorProto, external: &External) -> Result<()> {
        if !is_external(t) && t.data_type == Some(tensor_proto::DataType::String as i32) {
            return Ok(());
        }
        let Some(read) = read(t, external)? else { return Ok(()) };
        let data = read.data().clone();
        let length = data.len() as u64;
        let offset = self.end.next_multiple_of(if length >= LARGE { CHUNK } else { PAGE });
        self.end = offset + length;
        refer(t, &self.path.file_name().unwrap_or_default().to_string_lossy(), offset, length);
        self.parts.push((offset, data));
        Ok(())
    }

    /// Writes the file's content.
    pub(crate) fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let mut at = 0;
        for (offset, data) in &self.parts {
            std::io::copy(&mut std::io::Read::take(std::io::repeat(0), offset - at), out)?;
            out.write_all(data)?;
            at = offset + data.len() as u64;
        }
        Ok(())
    }
}

type Visit<'a> = dyn FnMut(&mut TensorProto) -> Result<()> + 'a;

/// Visits every tensor of a model, in the order of the messages.
fn each_tensor(proto: &mut ModelProto, visit: &mut Visit<'_>) -> Result<()> {
    let training = proto.training_info.iter_mut().flat_map(|t| [&mut t.initialization, &mut t.algorithm]);
    for graph in std::iter::once(&mut proto.graph).chain(training).flatten() {
        in_graph(graph, visit)?;
    }
    for function in &mut proto.functions {
        in_attributes(&mut function.attribute_proto, visit)?;
        in_nodes(&mut function.node, visit)?;
    }
    Ok(())
}

fn in_graph(graph: &mut GraphProto, visit: &mut Visit<'_>) -> Result<()> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    graph.sparse_initializer.iter_mut().try_for_each(|s| in_sparse(s, visit))?;
    in_nodes(&mut graph.node, visit)
}

fn in_nodes(nodes: &mut [NodeProto], visit: &mut Visit<'_>) -> Result<()> {
    nodes.iter_mut().try_for_each(|node| in_attributes(&mut node.attribute, visit))
}

fn in_attributes(attributes: &mut [AttributeProto], visit: &mut Visit<'_>) -> Result<()> {
    for attribute in attributes {
        attribute.t.as_deref_mut().into_iter().chain(&mut attribute.tensors).try_for_each(&mut *visit)?;
        let sparse = attribute.sparse_tensor.as_deref_mut().into_iter().chain(&mut attribute.sparse_tensors);
        for sparse in sparse {
            in_sparse(sparse, visit)?;
        }
        for graph in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
            in_graph(graph, visit)?;
        }
    }
    Ok(())
}

fn in_sparse(sparse: &mut SparseTensorProto, visit: &mut Visit<'_>) -> Result<()> {
    sparse.values.iter_mut().chain(&mut sparse.indices).try_for_each(visit)
}
