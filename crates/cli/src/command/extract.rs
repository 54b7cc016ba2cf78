//! `graft extract`: the adapter on a model, or the difference of two models as one.
use crate::{
    command::convert::{Target, cut, report},
    model,
    ui::Ui,
};
use graft_adapter::Cut;
use graft_ir::Result;
use graft_train::{
    Init,
    convert::{self, Errors, Wish},
};
use std::path::PathBuf;

/// Take the adapter out of a model
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model with adapters on it; with --base, a fine-tuned one
    model: PathBuf,
    /// Where to write: a folder, or a file for formats other than peft
    #[arg(short, long)]
    output: PathBuf,
    /// The model before it was fine-tuned: what has changed since becomes a LoRA
    #[arg(long, value_name = "MODEL", requires = "as_lora")]
    base: Option<PathBuf>,
    /// Make the nearest LoRA, of this rank (8), or of the least that keeps this share of the squared singular values (0.99);
    /// prints how far from it each module is
    #[arg(long, value_name = "RANK|SHARE", value_parser = cut)]
    as_lora: Option<Cut>,
    #[command(flatten)]
    target: Target,
    /// Print what was lost as one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let to = self.target.format(&self.output)?;
        let model = model::load(&self.model, ui)?;
        let (files, mut errors) = match (&self.base, self.as_lora) {
            (Some(base), Some(cut)) => convert::difference(&model.graph, &model::load(base, ui)?.graph, cut)?,
            _ => (convert::of_graph(&model.graph)?, Errors::new()),
        };
        let is_difference = self.base.is_some();
        let as_lora = self.as_lora.filter(|_| !is_difference);
        let graph = (!is_difference).then_some(&model.graph);
        let wish =
            Wish { model: graph, as_lora, peft_type: self.target.peft_type(), naming: self.target.naming() };
        let (content, lost) = convert::converted(Init::of(files)?, to, &wish)?;
        to.write(&self.output, &content, &wish.naming)?;
        errors.extend(lost);
        report("extract", &errors, self.json, ui)?;
        ui.say(&format!("wrote {} ({})", self.output.display(), to.name));
        Ok(())
    }
}
