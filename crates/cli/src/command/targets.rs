//! `graft targets`: every linear node, and which of them a selector matches.
use crate::{
    model,
    ui::{self, Ui},
};
use graft_ir::Result;
use graft_passes::target::{self, Linear, Selection};
use serde_json::{Value, json};
use std::path::PathBuf;

/// List the linear nodes that adapters can be put on
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    #[command(flatten)]
    selector: Selector,
    /// Say for every node why it is matched or not
    #[arg(long)]
    explain: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Which linear nodes are meant; the meaning is PEFT's.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct Selector {
    /// Module paths or their dotted suffixes, comma-separated; `re:REGEX` over whole paths; `all-linear`
    #[arg(long, value_name = "SEL")]
    pub(crate) targets: Option<String>,
    /// What to leave out, in the same form
    #[arg(long, value_name = "SEL")]
    pub(crate) exclude: Option<String>,
    /// Only these layer numbers, comma-separated
    #[arg(long, value_name = "N,…")]
    pub(crate) layers: Option<String>,
}
