//! `graft run`: runs a model on given inputs.
use crate::{
    model,
    ui::{self, Ui},
};
use graft_adapter::tensors;
use graft_exec::{Device, Options, Session};
use graft_ir::{Result, Tensor};
use std::{collections::BTreeMap, path::PathBuf};

/// Run a model on given inputs
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// The inputs by name (`.npz` or `.safetensors`)
    #[arg(long)]
    inputs: PathBuf,
    /// Where to write the outputs by name (`.npz` or `.safetensors`)
    #[arg(short, long)]
    output: PathBuf,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    machine: Machine,
    /// Print the time of each op and node
    #[arg(long)]
    profile: bool,
}

/// What to run on.
#[derive(clap::Args, Clone)]
pub(crate) struct Machine {
    /// The device
    #[arg(long, default_value = "cpu", value_parser = ["cpu", "cuda"])]
    device: String,
    /// What activations are computed in
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// Threads; by default as many as there are cores
    #[arg(long)]
    threads: Option<usize>,
}
