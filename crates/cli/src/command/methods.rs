//! `graft methods`: the adapter methods.
use crate::{
    ui::{self, Ui},
    usage,
};
use graft_ir::Result;
use graft_passes::inject::{Config, METHODS, Method};
use serde_json::json;
use std::fmt::Write as _;

/// List the adapter methods
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Count the parameters for a linear of this size
    #[arg(long, default_value = "768x768", value_name = "INxOUT")]
    size: String,
    /// Count the parameters for this rank
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}
