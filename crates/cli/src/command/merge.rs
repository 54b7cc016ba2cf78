//! `graft merge`: folds adapters into the weights that they adapt.
mod combine;

use crate::{
    command::{
        inject::{apply, read_trained},
        train::TextFlags,
        verify,
    },
    feeds::{self, Sizes},
    model,
    output::Output,
    ui::Ui,
    usage,
};
use graft_ir::{Code, Error, Graph, Result, Tensor};
use graft_passes::{Options, inject::Inputs};
use graft_train::{
    Init, originals,
    routing::{self, Routing},
    trained::{self, Trained},
};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Fold adapters into the weights that they adapt
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model, or a model that `graft inject` made
    model: PathBuf,
    /// A trained adapter, and how much of it (repeatable); without one, those that are on the model. The head that was
    /// trained with it comes with it
    #[arg(long, value_name = "DIR[=WEIGHT]")]
    adapter: Vec<String>,
    #[command(flatten)]
    combine: combine::Combine,
    /// Leave the trained head off
    #[arg(long, requires = "adapter")]
    no_head: bool,
    #[command(flatten)]
    output: Output,
    /// Keep the weights as they were in this safetensors file, from which `graft unmerge` puts them back byte for byte
    #[arg(long, value_name = "FILE")]
    keep_original: Option<PathBuf>,
    /// Compare the merged model with the adapted one on random inputs
    #[arg(long)]
    verify: bool,
    /// The largest max|a−b| / max|a| that --verify passes
    #[arg(long, default_value_t = 1e-4, requires = "verify", value_parser = verify::tolerance)]
    tol: f64,
    #[command(flatten)]
    sizes: Sizes,
    /// Hold the routing of a HydraLoRA, which depends on the input, at its mean over --calibrate; prints how the outputs on
    /// that data differ for it
    #[arg(long, value_parser = ["mean"], requires_all = ["calibrate", "adapter"], conflicts_with = "verify")]
    routing: Option<String>,
    /// The data that the mean routing is taken over, as for `train`
    #[arg(long, value_name = "DATA", requires = "routing")]
    calibrate: Option<PathBuf>,
    #[command(flatten)]
    text: TextFlags,
    /// Print the comparison, and the routing, as one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        self.check()?;
        let model = model::load(&self.model, ui)?;
        let adapters: Vec<(&Path, f64)> =
            self.adapter.iter().map(|text| parse(text)).collect::<Result<_>>()?;
        let is_one = adapters.len() < 2 && adapters.iter().all(|(_, weight)| *weight == 1.0);
        let is_whole = is_one || self.combine.is_given();
        if self.json && !self.verify && self.routing.is_none() {
            return Err(usage("--json prints what --verify or --routing finds: give one of them"));
        }
        if !is_whole && (self.verify || self.routing.is_some()) {
            let message = "--verify and --routing compare with one whole adapter: give one, without a weight";
            return Err(usage(message));
        }
        let (adapted, merged) = match adapters.is_empty() {
            true => (model.graph.clone(), apply("merge", Options::default(), &model.graph, 0, ui)?),
            false => self.with_adapters(&model.graph, &adapters, ui)?,
        };
        // The comparison comes first: a model that fails it is not written.
        if self.verify {
            self.compare(&adapted, &merged, ui)?;
        }
        if let Some(path) = &self.keep_original {
            self.keep(&model.graph, &merged, path, ui)?;
        }
        self.output.write(&merged, &model, ui)
    }

    /// Refuses places that are taken, before any work is done for them.
    fn check(&self) -> Result<()> {
        self.output.check()?;
        let Some(path) = &self.keep_original else { return Ok(()) };
        if *path == self.output.output {
            return Err(usage("-o and --keep-original name the same file"));
        }
        graft_onnx::check_target(path, self.output.force)
    }

    /// Writes what `merged` does not have of the model without adapters.
    fn keep(&self, model: &Graph, merged: &Graph, path: &Path, ui: &Ui) -> Result<()> {
        let is_bare = !self.adapter.is_empty();
        let base = if is_bare { model.clone() } else { graft_passes::merge::stripped(model)? };
        originals::keep(&base, merged, path)?;
        ui.say(&format!("kept the original weights in {}", path.display()));
        Ok(())
    }

    /// The model with the adapters beside its weights (where it is to be compared) and folded into them.
    fn with_adapters(&self, base: &Graph, adapters: &[(&Path, f64)], ui: &Ui) -> Result<(Graph, Graph)> {
        let log = &mut |line: &str| ui.say(line);
        let (mut adapted, mut merged) = (base.clone(), base.clone());
        let (mut inits, mut heads) = (Vec::new(), Vec::new());
        for (dir, weight) in adapters {
            let Trained { adapter, head } = read_trained(dir, self.no_head, ui)?;
            let nothing = || {
                let message = format!(
                    "`{}` holds a head that was trained alone: there is nothing to merge",
                    dir.display()
                );
                Error::new(Code::MERGE, message)
                    .help("`graft inject MODEL --adapter DIR` puts the head on the model")
            };
            inits.push((adapter.ok_or_else(nothing)?, *weight));
            heads.extend(head);
        }
        for (adapter, weight) in &self.combine.apply(base, inits, ui)? {
            if self.verify || self.routing.is_some() {
                // Merging says the same.
                adapted = trained::inject(&adapted, adapter, Inputs::None, &mut |_| ())?;
            }
            merged = match &self.calibrate {
                Some(data) => self.merge_routed(base, &adapted, adapter, data, ui)?,
                None => trained::merge(&merged, adapter, *weight, log)?,
            };
        }
        match &heads[..] {
            [] => Ok((adapted, merged)),
            [head] => {
                let silent = &mut |_: &str| ();
                Ok((
                    trained::put_head(&adapted, head, true, silent)?,
                    trained::put_head(&merged, head, false, log)?,
                ))
            }
            _ => Err(usage(
                "more than one of the adapters has a trained head, and a model takes one: give --no-head",
            )),
        }
    }

    /// The model with the adapter folded in as the LoRA that it is where its mean routing over `data` is held fixed; says
    /// what that does to the outputs.
    fn merge_routed(
        &self,
        base: &Graph,
        adapted: &Graph,
        adapter: &Init,
        data: &Path,
        ui: &Ui,
    ) -> Result<Graph> {
        let log = &mut |line: &str| ui.say(line);
        let batches = routing::calibration(adapted, data, self.text.reading().as_ref(), log)?;
        let mean = routing::mean(adapted, &batches)?;
        let merged = trained::merge(base, &routing::as_lora(adapted, adapter, &mean)?, 1.0, log)?;
        let differences = |batch: &Vec<(String, Tensor)>| verify::compare(adapted, &merged, batch);
        let differences: Vec<_> = batches.iter().map(differences).collect::<Result<_>>()?;
        self.report_routing(&mean, batches.len(), &verify::worst(differences), ui)?;
        Ok(merged)
    }

    fn report_routing(
        &self,
        mean: &Routing,
        batches: usize,
        worst: &[verify::Difference],
        ui: &Ui,
    ) -> Result<()> {
        if self.json {
            let outputs = verify::rows(worst);
            let value =
                json!({"schema": "graft.merge/1", "routing": mean, "batches": batches, "outputs": outputs});
            return ui.json(&value);
        }
        for (path, p) in mean {
            let shares: Vec<String> = p.iter().map(|p| format!("{p:.3}")).collect();
            ui.say(&format!("mean routing of {path}: {}", shares.join(" ")));
        }
        ui.out(&format!(
            "what holding the routing does to the outputs, in the worst of {batches} batches\n"
        ))?;
        verify::report(worst, f64::INFINITY, false, ui)
    }

    fn compare(&self, adapted: &Graph, merged: &Graph, ui: &Ui) -> Result<()> {
        let feeds = feeds::random_feeds(adapted, &self.sizes.of(adapted)?, 0)?;
        verify::report(&verify::compare(adapted, merged, &feeds)?, self.tol, self.json, ui)
    }
}

/// `DIR` or `DIR=WEIGHT`.
fn parse(text: &str) -> Result<(&Path, f64)> {
    let Some((dir, weight)) = text.rsplit_once('=') else { return Ok((Path::new(text), 1.0)) };
    let bad = || usage(format!("--adapter {text}: `{weight}` is not a finite number"));
    let number = weight.parse().ok().filter(|w: &f64| w.is_finite()).ok_or_else(bad)?;
    Ok((Path::new(dir), number))
}
