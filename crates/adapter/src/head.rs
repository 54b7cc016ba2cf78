//! A trained head: its weights in `head.safetensors`, and what the manifest says it stands on.
use crate::{HEAD_FILE, MANIFEST_FILE, Manifest, NO_METHOD, tensors};
use graft_ir::{Code, Error, Result, Tensor};
use std::{collections::BTreeMap, path::Path};

/// A trained head.
#[derive(Clone, PartialEq, Debug)]
pub struct Head {
    /// The options of the pass `head` that puts it on the base model.
    pub options: BTreeMap<String, Vec<String>>,
    /// Its weights by their names in `head.safetensors`: `head.weight` (in, classes), `head.bias` (classes).
    pub tensors: BTreeMap<String, Tensor>,
    /// Whether it was trained without an adapter.
    pub is_alone: bool,
}

impl Head {
    /// Reads the head in an adapter's directory, where there is one.
    ///
    /// # Errors
    /// [`Code::ADAPTER`] where a file is damaged, or no manifest says what the head stands on.
    pub fn read(dir: &Path) -> Result<Option<Head>> {
        let [weights, manifest] = [HEAD_FILE, MANIFEST_FILE].map(|file| dir.join(file));
        if !weights.exists() {
            return Ok(None);
        }
        let unplaced = || {
            let message = format!(
                "`{}` holds a trained head, but no `{MANIFEST_FILE}` that says what output it reads",
                dir.display()
            );
            Error::new(Code::ADAPTER, message).help("`--no-head` leaves it out")
        };
        if !manifest.exists() {
            return Err(unplaced());
        }
        let Manifest { head, method, .. } = Manifest::read(&manifest)?;
        let options = head.ok_or_else(unplaced)?;
        Ok(Some(Head { options, tensors: tensors::read(&weights)?, is_alone: method == NO_METHOD }))
    }

    /// Writes the weights into `dir`, which must exist; the manifest is another matter.
    pub fn save(&self, dir: &Path) -> Result<()> {
        tensors::write(&dir.join(HEAD_FILE), &self.tensors)
    }
}
