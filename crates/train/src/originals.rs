//! The file of what a merge replaced, by which a merged model becomes the one before again: a safetensors file of the
//! stored weights, with a note of what else changed and of the models that it belongs to.
use graft_adapter::{fingerprint, tensors};
use graft_ir::{Code, Error, Graph, Result, Tensor};
use graft_passes::merge::Originals;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The version of the note's form.
const SCHEMA: &str = "graft.originals/1";

/// What the header says.
#[derive(Serialize, Deserialize)]
struct Note {
    schema: String,
    /// [`fingerprint`] of the original weights, which are in the file.
    original: String,
    /// The same of the weights that the merge wrote.
    merged: String,
    operands: BTreeSet<(String, usize, String)>,
    added: BTreeSet<String>,
    notes: BTreeMap<String, Option<String>>,
}

/// Writes what `merged`, which was made of `base`, does not have of it; a file at `path` is replaced.
///
/// # Errors
/// [`Code::IO`] where it cannot be written.
pub fn keep(base: &Graph, merged: &Graph, path: &Path) -> Result<()> {
    let originals = Originals::of(base, merged);
    let note = Note {
        schema: SCHEMA.into(),
        original: of_weights(originals.weights.iter().map(|(name, tensor)| (name.as_str(), tensor))),
        merged: of_weights(originals.changed(merged)?),
        operands: originals.operands,
        added: originals.added,
        notes: originals.notes,
    };
    let note = serde_json::to_string(&note).map_err(|e| Error::new(Code::ORIGINALS, e.to_string()))?;
    tensors::write_with_note(path, &originals.weights, &note)
}

/// The model that was before the merge, from the merged one and the file that [`keep`] wrote.
///
/// # Errors
/// [`Code::ORIGINALS`] for a file that is damaged, or belongs to another model.
pub fn put_back(merged: &Graph, path: &Path) -> Result<Graph> {
    let place = |e: Error| e.at(path.display().to_string());
    let (weights, note) = tensors::read_with_note(path)?;
    let (originals, written) = read(weights, note).map_err(place)?;
    if of_weights(originals.changed(merged).map_err(place)?) != written {
        let message = "the weights of the model are not those that the merge wrote";
        let help = "give the model that was written together with these originals, unchanged";
        return Err(place(Error::new(Code::ORIGINALS, message).help(help)));
    }
    originals.put_back(merged).map_err(place)
}

/// The originals, and the fingerprint of what stands in their places.
fn read(weights: BTreeMap<String, Tensor>, note: Option<String>) -> Result<(Originals, String)> {
    let foreign = || {
        Error::new(Code::ORIGINALS, "not a file of originals")
            .help("`graft merge --keep-original FILE` writes one")
    };
    let note: Note = note.and_then(|note| serde_json::from_str(&note).ok()).ok_or_else(foreign)?;
    if note.schema != SCHEMA {
        let message = format!("the schema of the originals is `{}`, expected `{SCHEMA}`", note.schema);
        return Err(Error::new(Code::ORIGINALS, message));
    }
    if of_weights(weights.iter().map(|(name, tensor)| (name.as_str(), tensor))) != note.original {
        return Err(Error::new(Code::ORIGINALS, "the original weights are damaged"));
    }
    let Note { operands, added, notes, merged, .. } = note;
    Ok((Originals { weights, operands, added, notes }, merged))
}

/// The fingerprint of weights by name.
fn of_weights<'a>(weights: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> String {
    fingerprint(weights.into_iter().map(|(name, tensor)| (name, name, tensor)))
}
