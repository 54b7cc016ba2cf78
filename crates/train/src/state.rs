//! `state/`: everything that `--resume` needs to go on as if nothing had happened.
//!
//! One safetensors file, replaced as a whole, so that a run killed at any moment leaves the old state or the new one.
use graft_ir::{Code, Error, Result, Tensor};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The folder within the run's.
pub(crate) const FOLDER: &str = "state";
const FILE: &str = "state.safetensors";
const SCHEMA: &str = "graft.state/1";

/// A run after a step.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct State {
    /// Where it stands.
    pub(crate) progress: Progress,
    /// What it depends on, as text: settings, data, model. The schedule and the order of the data are functions of
    /// these and of the progress.
    pub(crate) settings: BTreeMap<String, String>,
    /// Trained tensors and the optimiser's, by input name of the training graph.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// The trained tensors of the best evaluation so far, if those are to be kept.
    pub(crate) best: BTreeMap<String, Tensor>,
}

/// How far a run has come.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Steps done.
    pub(crate) step: u64,
    /// Batches taken from the stream of data.
    pub(crate) batches: u64,
    /// The lowest evaluation loss so far, and its step.
    pub(crate) best: Option<(f64, u64)>,
    /// Evaluations since then.
    pub(crate) worse: u64,
}

#[derive(Serialize, Deserialize)]
struct Note {
    schema: String,
    progress: Progress,
    settings: BTreeMap<String, String>,
}

const STATE: &str = "state/";
const BEST: &str = "best/";

impl State {
    /// Writes the state of the run in `out`, replacing the one before.
    pub(crate) fn write(&self, out: &Path) -> Result<()> {
        let folder = out.join(FOLDER);
        std::fs::create_dir_all(&folder).map_err(|e| {
            Error::new(Code::IO, format!("cannot make the folder: {e}")).at(folder.display().to_string())
        })?;
        let note = Note { schema: SCHEMA.into(), progress: self.progress, settings: self.settings.clone() };
        let note = serde_json::to_string(&note).expect("a note is plain JSON");
        let named = |prefix: &'static str, tensors: &BTreeMap<String, Tensor>| {
            tensors.iter().map(|(name, t)| (format!("{prefix}{name}"), t.clone())).collect::<Vec<_>>()
        };
        let tensors = named(STATE, &self.tensors).into_iter().chain(named(BEST, &self.best)).collect();
        graft_adapter::tensors::write_with_note(&path(out), &tensors, &note)
    }

    /// Reads the state of the run in `out`.
    pub(crate) fn read(out: &Path) -> Result<State> {
        let path = path(out);
        let place = |e: Error| Error { code: Code::STATE, ..e };
        if !path.exists() {
            let message = format!("there is no saved state in `{}`", out.display());
            return Err(Error::new(Code::STATE, message).help("start the run without `--resume`"));
        }
        let (tensors, note) = graft_adapter::tensors::read_with_note(&path).map_err(place)?;
        let bad = |message: String| Error::new(Code::STATE, message).at(path.display().to_string());
        let note = note.ok_or_else(|| bad("the file holds no state of a run".into()))?;
        let note: Note =
            serde_json::from_str(&note).map_err(|e| bad(format!("the state is damaged: {e}")))?;
        if note.schema != SCHEMA {
            return Err(bad(format!("the state's form is `{}`, expected `{SCHEMA}`", note.schema)));
        }
        let part = |prefix: &str| {
            let named = tensors
                .iter()
                .filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_string(), t.clone())));
            named.collect()
        };
        Ok(State { progress: note.progress, settings: note.settings, tensors: part(STATE), best: part(BEST) })
    }

    /// Refuses a state that belongs to other settings, data or another model, naming the first difference.
    pub(crate) fn check(&self, settings: &BTreeMap<String, String>) -> Result<()> {
        let keys = self.settings.keys().chain(settings.keys());
        let Some(key) = keys.into_iter().find(|&key| self.settings.get(key) != settings.get(key)) else {
            return Ok(());
        };
        let said = |value: Option<&String>| value.map_or("not set".into(), |v| format!("`{v}`"));
        let (was, is) = (said(self.settings.get(key)), said(settings.get(key)));
        let message = format!("the saved run is another one: `{key}` was {was} and is {is}");
        Err(Error::new(Code::STATE, message)
            .help("resume with the same model, data and flags, or start anew with `--force`"))
    }
}

fn path(out: &Path) -> PathBuf {
    out.join(FOLDER).join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            progress: Progress { step: 7, batches: 14, best: Some((0.1 + 0.2, 5)), worse: 1 },
            settings: BTreeMap::from([("lr".into(), "0.01".into())]),
            tensors: BTreeMap::from([("p".into(), Tensor::f32(&[2], &[1.0, -0.0]))]),
            best: BTreeMap::from([("p".into(), Tensor::f32(&[2], &[3.0, 4.0]))]),
        }
    }

    #[test]
    fn a_state_reads_back_and_is_deterministic() {
        let dir = tempfile::tempdir().unwrap();
        state().write(dir.path()).unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), state());
        let bytes = std::fs::read(path(dir.path())).unwrap();
        state().write(dir.path()).unwrap();
        assert_eq!(std::fs::read(path(dir.path())).unwrap(), bytes);
    }

    #[test]
    fn damaged_and_foreign_states_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::read(dir.path()).unwrap_err().code, Code::STATE);
        state().write(dir.path()).unwrap();
        let bytes = std::fs::read(path(dir.path())).unwrap();
        for cut in [0, 8, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(path(dir.path()), &bytes[..cut]).unwrap();
            assert_eq!(State::read(dir.path()).unwrap_err().code, Code::STATE, "cut at {cut}");
        }
        graft_adapter::tensors::write(&path(dir.path()), &state().tensors).unwrap();
        assert_eq!(State::read(dir.path()).unwrap_err().code, Code::STATE);

        assert!(state().check(&state().settings).is_ok());
        let other = BTreeMap::from([("lr".into(), "0.02".into())]);
        let error = state().check(&other).unwrap_err();
        assert_eq!(error.message, "the saved run is another one: `lr` was `0.01` and is `0.02`");
        let more = BTreeMap::from([("lr".into(), "0.01".into()), ("clip".into(), "1".into())]);
        assert!(state().check(&more).unwrap_err().message.contains("`clip` was not set and is `1`"));
    }
}
