//! `graft merge`: folds adapters into the weights that they adapt.
use crate::{
    command::{
        inject::{apply, read_adapter},
        verify,
    },
    feeds::{self, Sizes},
    model,
    ui::Ui,
    usage,
};
use graft_ir::{Graph, Result};
use graft_onnx::SaveOptions;
use graft_passes::Options;
use std::path::{Path, PathBuf};

/// Fold adapters into the weights that they adapt
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model, or a model that `graft inject` made
    model: PathBuf,
    /// A trained adapter, and how much of it (repeatable); without one, those that are on the model
    #[arg(long, value_name = "DIR[=WEIGHT]")]
    adapter: Vec<String>,
    /// Where to write
    #[arg(short, long)]
    output: PathBuf,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
    /// Compare the merged model with the adapted one on random inputs
    #[arg(long)]
    verify: bool,
    /// The largest max|a−b| / max|a| that --verify passes
    #[arg(long, default_value_t = 1e-4, requires = "verify")]
    tol: f64,
    #[command(flatten)]
    sizes: Sizes,
    /// Print the comparison as one JSON object
    #[arg(long, requires = "verify")]
    json: bool,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let model = model::load(&self.model, ui)?;
        let adapters: Vec<(&Path, f64)> = self.adapter.iter().map(|text| parse(text)).collect::<Result<_>>()?;
        if self.verify && (adapters.len() > 1 || adapters.iter().any(|(_, weight)| *weight != 1.0)) {
            return Err(usage("--verify compares with one whole adapter: give one, without a weight"));
        }
        let mut merged = match adapters.is_empty() {
            true => apply("merge", Options::default(), &model.graph, None, 0, ui)?,
            false => model.graph.clone(),
        };
        let mut adapted = model.graph.clone();
        for (dir, weight) in adapters {
            let (options, tensors) = read_adapter(dir, ui)?;
            if self.verify {
                adapted = apply("inject", options.clone(), &adapted, Some(&tensors), 0, ui)?;
            }
            merged = apply("merge", options.with("weight", weight), &merged, Some(&tensors), 0, ui)?;
        }
        // The comparison comes first: a model that fails it is not written.
        if self.verify {
            self.compare(&adapted, &merged, ui)?;
        }
        let save = SaveOptions { force: self.force, ..SaveOptions::default() };
        graft_onnx::save(&merged, Some(&model), &self.output, &save)?;
        ui.say(&format!("wrote {}", self.output.display()));
        Ok(())
    }

    fn compare(&self, adapted: &Graph, merged: &Graph, ui: &Ui) -> Result<()> {
        let feeds = feeds::random_feeds(adapted, &self.sizes.by_name()?, 0)?;
        verify::report(&verify::compare(adapted, merged, &feeds)?, self.tol, self.json, ui)
    }
}

/// `DIR` or `DIR=WEIGHT`.
fn parse(text: &str) -> Result<(&Path, f64)> {
    let Some((dir, weight)) = text.rsplit_once('=') else { return Ok((Path::new(text), 1.0)) };
    let bad = |_| usage(format!("--adapter {text}: `{weight}` is not a number"));
    Ok((Path::new(dir), weight.parse().map_err(bad)?))
}
