//! `graft unmerge`: puts the original weights back into a merged model.
use crate::{model, output::Output, ui::Ui, usage};
use graft_ir::Result;
use graft_train::originals;
use std::path::PathBuf;

/// Put the original weights back into a merged model, byte for byte
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The merged model
    model: PathBuf,
    /// The file that `graft merge --keep-original FILE` wrote together with it
    #[arg(long, value_name = "FILE")]
    original: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let kept = self.original.as_ref().ok_or_else(|| {
            usage("the weights before a merge cannot be computed from those after it, which are rounded: --original FILE is needed")
                .help("`graft merge --keep-original FILE` keeps them; merge again from the base model with it")
        })?;
        self.output.check()?;
        let model = model::load(&self.model, ui)?;
        let graph = originals::put_back(&model.graph, kept)?;
        self.output.write(&graph, &model, ui)
    }
}
