//! Weights in files beside the model: which bytes of which file, and that none outside the model's folder is read.
use crate::{map, proto::TensorProto};
use bytes::Bytes;
use graft_ir::{Code, Error, Result};
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The folder of a model, and the files in it that were opened so far, its own among them.
#[derive(Debug, Default)]
pub(crate) struct External {
    folder: Option<PathBuf>,
    files: Mutex<BTreeMap<String, Bytes>>,
}

/// Where a tensor's bytes lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place<'a> {
    /// A path relative to the model's folder.
    pub(crate) location: &'a str,
    /// Bytes before the data.
    pub(crate) offset: u64,
    /// Bytes of data; the rest of the file where it is not given.
    pub(crate) length: Option<u64>,
}

impl External {
    /// The files of a model in `folder`; without one, external data are refused.
    pub(crate) fn new(folder: Option<PathBuf>) -> External {
        External { folder, files: Mutex::default() }
    }
    /// The files of a model that was read from `path`, which holds `bytes`.
    pub(crate) fn of_model(path: &Path, bytes: Bytes) -> External {
        let name = path.file_name().and_then(|name| name.to_str()).map(str::to_string);
        let files = name.map(|name| (name, bytes)).into_iter().collect();
        External { folder: Some(crate::files::folder(path).to_path_buf()), files: Mutex::new(files) }
    }
    /// The opened file that `data` is a part of, and where it begins there.
    pub(crate) fn place_of(&self, data: &Bytes) -> Option<(String, u64)> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let start = data.as_ptr().addr();
        files.iter().find_map(|(name, file)| {
            let offset = start.checked_sub(file.as_ptr().addr())?;
            (offset + data.len() <= file.len()).then(|| (name.clone(), offset as u64))
        })
    }
    /// The model's folder.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }
    /// The `wanted` bytes of a tensor whose data are external.
    pub(crate) fn read(&self, tensor: &TensorProto, wanted: usize) -> Result<Bytes> {
        let place = Place::of(tensor)?;
        let file = self.open(place.location)?;
        let available = (file.len() as u64).saturating_sub(place.offset);
        if let Some(length) = place.length
            && length != wanted as u64
        {
            let message = format!("the tensor needs {wanted} bytes, but its external data have {length}");
            return Err(Error::new(Code::EXTERNAL, message));
        }
        if available < wanted as u64 {
            let message = format!(
                "`{}` has {} bytes, too few for {wanted} bytes at offset {}",
                place.location,
                file.len(),
                place.offset
            );
            return Err(Error::new(Code::EXTERNAL, message));
        }
        // The offset fits: it is at most the file's length.
        let start = if wanted == 0 { 0 } else { place.offset as usize };
        Ok(file.slice(start..start + wanted))
    }
    fn open(&self, location: &str) -> Result<Bytes> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(location) {
            return Ok(file.clone());
        }
        let path = self.resolve(location)?;
        let failed =
            |e| Error::new(Code::EXTERNAL, format!("external data `{location}` cannot be read: {e}"));
        let file = map::open(&path).map_err(failed)?;
        files.insert(location.into(), file.clone());
        Ok(file)
    }
    /// The file at `location`, which must be a regular file within the folder, symbolic links followed.
    fn resolve(&self, location: &str) -> Result<PathBuf> {
        let refuse = |why: &str| Error::new(Code::EXTERNAL, format!("external data `{location}` {why}"));
        let Some(folder) = &self.folder else {
            return Err(refuse("cannot be found, because the model was not read from a folder"));
        };
        let inside = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
        // Backslashes separate folders on one system and are letters on others: no exporter needs them.
        if location.is_empty() || location.contains('\\') || !Path::new(location).components().all(inside) {
            return Err(refuse("is not a path within the model's folder"));
        }
        let missing = |e: std::io::Error| refuse(&format!("cannot be read: {e}"));
        let root = folder.canonicalize().map_err(missing)?;
        let path = root.join(location).canonicalize().map_err(missing)?;
        if !path.starts_with(&root) {
            return Err(refuse("is a link to outside the model's folder").help("copy the file to the folder"));
        }
        if !path.metadata().map_err(missing)?.is_file() {
            return Err(refuse("is not a regular file"));
        }
        Ok(path)
    }
}

impl<'a> Place<'a> {
    /// Reads a tensor's `external_data`.
    pub(crate) fn of(tensor: &'a TensorProto) -> Result<Place<'a>> {
        let get = |key: &str| tensor.external_data.iter().find(|e| e.key() == key).map(|e| e.value());
        let number = |key: &str| {
            let parse = |text: &str| {
                let wrong =
                    || Error::new(Code::EXTERNAL, format!("external data: {key} `{text}` is no size"));
                text.parse::<u64>().map_err(|_| wrong())
            };
            get(key).map(parse).transpose()
        };
        let missing = || Error::new(Code::EXTERNAL, "external data without a location");
        Ok(Place {
            location: get("location").ok_or_else(missing)?,
            offset: number("offset")?.unwrap_or(0),
            length: number("length")?,
        })
    }
}
