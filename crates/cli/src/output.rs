//! Where a command writes a model.
use crate::ui::Ui;
use graft_ir::{Graph, Result};
use graft_onnx::{Model, SaveOptions};
use std::path::PathBuf;

/// The output, and whether it may replace something.
#[derive(clap::Args)]
pub(crate) struct Output {
    /// Where to write (`.onnx` or `.onnxtxt`); `-` prints ONNX text
    #[arg(short, long)]
    pub(crate) output: PathBuf,
    /// Overwrite the output
    #[arg(long)]
    pub(crate) force: bool,
}

impl Output {
    fn is_stdout(&self) -> bool {
        self.output.as_os_str() == "-"
    }
    /// Refuses a place that is taken, before any work is done for it.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_stdout() { Ok(()) } else { graft_onnx::check_target(&self.output, self.force) }
    }
    /// Writes `graph`, which was made of `origin`.
    pub(crate) fn write(&self, graph: &Graph, origin: &Model, ui: &Ui) -> Result<()> {
        if self.is_stdout() {
            return ui.out(&graph.to_string());
        }
        let options = SaveOptions { force: self.force, ..SaveOptions::default() };
        graft_onnx::save(graph, Some(origin), &self.output, &options)?;
        ui.say(&format!("wrote {}", self.output.display()));
        Ok(())
    }
}
