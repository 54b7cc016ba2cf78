//! NVIDIA's libraries by the folders that users name: what was loaded from there by its path, whoever asks for its name finds.
use graft_ir::{Code, Error};
use libloading::Library;
use std::path::Path;

/// The library with one of these names in a folder; none if no such file can be loaded.
pub(super) fn load(folder: &Path, names: &[&str]) -> Option<Library> {
    // SAFETY: initialisers of NVIDIA's libraries have no requirements.
    names.iter().find_map(|name| unsafe { Library::new(folder.join(name)) }.ok())
}

/// The error of a library that is not there: in a folder, or anywhere.
pub(super) fn missing(library: &str, folder: Option<&Path>, help: &str) -> Error {
    let place = folder.map_or("on this system".into(), |folder| format!("in `{}`", folder.display()));
    Error::new(Code::DEVICE, format!("no {library} was found {place}")).help(help)
}
