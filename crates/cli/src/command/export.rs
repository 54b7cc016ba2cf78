//! `graft export`: the training step as ONNX files that train elsewhere.
use crate::{
    command::{
        inject::AdapterFlags,
        train::{Objective, Rule},
    },
    model,
    ui::{self, Ui},
    usage,
};
use graft_ir::{Graph, Result};
use graft_train::{Calls, Config, TrainingGraphs, Wish};
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf};

/// Write the training step as ONNX, to train elsewhere
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// Export the training step: batch and state in, loss and next state out
    #[arg(long, required = true)]
    train: bool,
    #[command(flatten)]
    adapter: AdapterFlags,
    /// Start from this adapter: method, rank, alpha and targets come from its configuration
    #[arg(long, value_name = "DIR")]
    init: Option<PathBuf>,
    #[command(flatten)]
    objective: Objective,
    /// The name of the input for labels
    #[arg(long, default_value = "label")]
    label: String,
    #[command(flatten)]
    rule: Rule,
    #[command(flatten)]
    shape: Shape,
    /// Where to write (`.onnx`); the state goes beside it, to `.state.safetensors`
    #[arg(short, long)]
    output: PathBuf,
    /// Overwrite the outputs
    #[arg(long)]
    force: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What the files look like.
#[derive(clap::Args)]
#[command(next_help_heading = "Form")]
struct Shape {
    /// `portable`: ONNX's own ops alone; `functions`: calls with their bodies as local functions; `fused`: calls where
    /// graft's executor has kernels
    #[arg(long, default_value = "portable", value_parser = ["portable", "functions", "fused"])]
    form: String,
    /// The opset [default: the model's, and 17 at least]
    #[arg(long, value_name = "N")]
    opset: Option<i64>,
    /// `eval`: the evaluation graph too; `grads`: gradients as results, in place of the optimiser; `adapter`: the graph
    /// that makes the adapter's file of the state, and the folder for it (repeatable)
    #[arg(long, value_name = "WHAT", value_parser = ["eval", "grads", "adapter"])]
    with: Vec<String>,
    /// Keep the initial state in the graph too, as initialisers that can be fed
    #[arg(long)]
    embed_state: bool,
    /// Leave the frozen weights in the model's file, which the graphs refer to
    #[arg(long)]
    share_weights: bool,
    /// Two graphs: one sums gradients over batches, one updates the weights by their mean
    #[arg(long)]
    accumulate: bool,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let config = self.config()?;
        graft_onnx::check_target(&self.output, self.force)?;
        let model = model::load(&self.model, ui)?;
        let mut graphs = TrainingGraphs::new(&model.graph, &config, &self.wish()?, ui)?;
        if self.shape.embed_state {
            graphs.embed_state();
        }
        let files = graphs.save(&model, &self.output, self.force, self.shape.share_weights)?;
        files.iter().for_each(|file| ui.say(&format!("wrote {}", file.display())));
        self.report(&graphs, &files, ui)
    }

    fn config(&self) -> Result<Config> {
        let config = Config {
            inject: self.adapter.options_or_none()?,
            init: self.init.clone(),
            label: self.label.clone(),
            ..Config::new("", "", "none")
        };
        let config = self.rule.config(self.objective.config(config)?);
        config.check()?;
        // How many batches there will be is for the one to say who feeds them.
        Ok(Config { accumulate: usize::from(!self.shape.accumulate), ..config })
    }

    fn wish(&self) -> Result<Wish> {
        let with = |what: &str| self.shape.with.iter().any(|w| w == what);
        if with("grads") && self.shape.accumulate {
            return Err(usage(
                "`--with grads` leaves nothing to accumulate for: sum the gradients where they are used",
            ));
        }
        Ok(Wish {
            calls: self.shape.form.parse::<Calls>()?,
            opset: self.shape.opset,
            gradients: with("grads"),
            evaluation: with("eval"),
            adapter: with("adapter"),
        })
    }

    /// What the step consists of.
    fn report(&self, graphs: &TrainingGraphs, files: &[PathBuf], ui: &Ui) -> Result<()> {
        let ops = histogram(&graphs.step);
        let nodes = graphs.step.nodes.len();
        if self.json {
            let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            return ui.json(&json!({
                "schema": "graft.export/1", "form": self.shape.form, "nodes": nodes, "ops": ops, "files": files,
                "state": graphs.state.len(),
            }));
        }
        let rows: Vec<Vec<String>> = ops.iter().map(|(op, n)| vec![(*op).into(), n.to_string()]).collect();
        ui.out(&format!("{nodes} nodes\n{}", ui::table(&["op", "nodes"], &rows)))
    }
}

fn histogram(graph: &Graph) -> BTreeMap<&str, usize> {
    let mut ops = BTreeMap::new();
    for node in &graph.nodes {
        *ops.entry(node.op.as_str()).or_insert(0) += 1;
    }
    ops
}
