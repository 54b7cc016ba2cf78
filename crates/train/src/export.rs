//! Writing the model that a run has made.
use crate::{
    observer::Observer,
    trained::{self, Trained},
};
use graft_ir::{Code, Error, Graph, Result};
use graft_onnx::{Model, SaveOptions};
use graft_passes::inject::Inputs;
use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

/// A model to write at the end of a run: the base model with what was trained.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Export {
    /// How the adapter is in it. The head is in it in any case.
    pub form: Form,
    /// The file: `.onnx`, or ONNX text where the name ends in `.onnxtxt`.
    pub path: PathBuf,
}

/// How an adapter is in a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Beside the weights.
    Adapted,
    /// Folded into the weights.
    Merged,
}

impl Form {
    const ALL: [Form; 2] = [Form::Adapted, Form::Merged];

    fn name(self) -> &'static str {
        match self {
            Form::Adapted => "adapted",
            Form::Merged => "merged",
        }
    }
}

impl FromStr for Export {
    type Err = Error;
    /// `adapted=FILE` or `merged=FILE`; a file whose stem ends in one of these words says it itself.
    fn from_str(text: &str) -> Result<Export> {
        let given = |form: &Form| Some((*form, text.strip_prefix(form.name())?.strip_prefix('=')?));
        let stem = Path::new(text).file_stem().unwrap_or_default().to_string_lossy();
        let named = |form: &Form| stem.ends_with(form.name()).then_some((*form, text));
        let unclear = || {
            let message = format!("`{text}` does not say whether the adapted or the merged model goes there");
            Error::new(Code::USAGE, message).help(format!("give `adapted={text}` or `merged={text}`"))
        };
        let (form, path) = Form::ALL
            .iter()
            .find_map(given)
            .or_else(|| Form::ALL.iter().find_map(named))
            .filter(|(_, path)| !path.is_empty())
            .ok_or_else(unclear)?;
        Ok(Export { form, path: path.into() })
    }
}

impl Export {
    /// Refuses, before any work is done, what could not be written after it: `untrained` is what will be trained.
    ///
    /// # Errors
    /// [`Code::EXISTS`] where the file exists and `force` is not given; [`Code::IO`] where its folder takes no files;
    /// those of the passes, such as [`Code::MERGE`] for an adapter that cannot be merged.
    pub(crate) fn rehearse(&self, base: &Graph, untrained: &Trained, force: bool) -> Result<()> {
        if self.path.exists() && !force {
            let message = format!("`{}` exists already", self.path.display());
            return Err(Error::new(Code::EXISTS, message).help("name another file for `--export`"));
        }
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        tempfile::tempfile_in(folder).map(drop).map_err(|e| {
            let message = format!("`{}` cannot be written: {e}", self.path.display());
            Error::new(Code::IO, message)
        })?;
        self.graph(base, untrained).map(drop)
    }

    /// Writes the model.
    pub(crate) fn write(
        &self,
        model: &Model,
        trained: &Trained,
        force: bool,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let graph = self.graph(&model.graph, trained)?;
        graft_onnx::save(&graph, Some(model), &self.path, &SaveOptions { force, ..SaveOptions::default() })?;
        observer.note(&format!("wrote {}", self.path.display()));
        Ok(())
    }

    fn graph(&self, base: &Graph, trained: &Trained) -> Result<Graph> {
        // What the passes say was said when the run began.
        let log = &mut |_: &str| ();
        let graph = match (&trained.adapter, self.form) {
            (None, _) => base.clone(),
            (Some(adapter), Form::Adapted) => trained::inject(base, adapter, Inputs::None, log)?,
            (Some(adapter), Form::Merged) => trained::merge(base, adapter, 1.0, log)?,
        };
        match &trained.head {
            Some(head) => trained::put_head(&graph, head, self.form == Form::Adapted, log),
            None => Ok(graph),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_given_or_told_by_the_name() {
        for (text, form, path) in [
            ("merged.onnx", Form::Merged, "merged.onnx"),
            ("out/bert-adapted.onnxtxt", Form::Adapted, "out/bert-adapted.onnxtxt"),
            ("merged=x.onnx", Form::Merged, "x.onnx"),
            ("adapted=merged.onnx", Form::Adapted, "merged.onnx"),
        ] {
            let wanted = Export { form, path: path.into() };
            assert_eq!(text.parse::<Export>().unwrap(), wanted);
        }
        for text in ["x.onnx", "merged/x.onnx", "merged=", "both=x.onnx", ""] {
            assert_eq!(text.parse::<Export>().unwrap_err().code, Code::USAGE, "{text}");
        }
    }
}
