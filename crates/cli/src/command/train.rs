//! `graft train`: trains adapters.
use crate::{
    command::run::Machine,
    command::targets::Selector,
    model,
    ui::Ui,
    usage,
};
use graft_ir::Result;
use std::path::PathBuf;

/// Train adapters on text or tensors
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    #[command(flatten)]
    adapter: Adapter,
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    objective: Objective,
    #[command(flatten)]
    schedule: Schedule,
    #[command(flatten)]
    machine: Machine,
    /// The seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The folder that receives adapter, metrics, curve and state
    #[arg(long)]
    out: PathBuf,
    /// Go on from the state in --out
    #[arg(long)]
    resume: bool,
    /// Replace what is in --out
    #[arg(long, conflicts_with = "resume")]
    force: bool,
    /// Save the state every N steps (default: after each epoch, and at the end)
    #[arg(long, value_name = "N")]
    save_every: Option<u64>,
    /// Write the gradients of one step, before clipping, under the adapter file's names
    #[arg(long, value_name = "STEP=FILE")]
    dump_grads: Option<String>,
    /// Also write the model: `….onnx` with the adapter as nodes, or folded in if its name contains `merged`
    #[arg(long, value_name = "FILE")]
    export: Vec<PathBuf>,
}

/// Which adapter, and where.
#[derive(clap::Args)]
#[command(next_help_heading = "Adapter")]
pub(crate) struct Adapter {
    /// The adapter method (`graft methods` lists them); `none` trains the head alone
    #[arg(long)]
    method: Option<String>,
    /// The rank
    #[arg(long)]
    rank: Option<usize>,
    /// The scale's numerator
    #[arg(long)]
    alpha: Option<f64>,
    #[command(flatten)]
    selector: Selector,
    /// The rank of some targets (repeatable)
    #[arg(long, value_name = "SEL=R")]
    rank_pattern: Vec<String>,
    /// The alpha of some targets (repeatable)
    #[arg(long, value_name = "SEL=A")]
    alpha_pattern: Vec<String>,
    /// A setting of the method (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Start from this adapter: method, rank, alpha and targets come from its configuration
    #[arg(long, value_name = "DIR")]
    init: Option<PathBuf>,
}

/// What is learnt from.
#[derive(clap::Args)]
#[command(next_help_heading = "Data")]
struct Data {
    /// Training data: `.jsonl` (text with --tokenizer, or arrays), `.npz` or `.safetensors`
    #[arg(long)]
    data: PathBuf,
    /// Data to evaluate on, after each epoch
    #[arg(long)]
    eval: Option<PathBuf>,
    /// The model's tokenizer.json
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// The field that holds the text
    #[arg(long, default_value = "text")]
    text: String,
    /// The field or tensor that holds the label
    #[arg(long)]
    label: Option<String>,
    /// Tokens after which a text is cut off
    #[arg(long, default_value_t = 128)]
    max_length: usize,
    /// In which order rows are taken
    #[arg(long, default_value = "shuffle", value_parser = ["shuffle", "sequential"])]
    order: String,
}
