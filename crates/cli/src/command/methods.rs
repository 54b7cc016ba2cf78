//! `graft methods`: the adapter methods.
use crate::{
    ui::{self, Ui},
    usage,
};
use graft_ir::{DType, Result};
use graft_passes::{
    Linear,
    inject::{Config, METHODS, Method},
};
use serde_json::json;

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

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let size = self.size.split_once('x').and_then(|(i, o)| Some((i.parse().ok()?, o.parse().ok()?)));
        let (d_in, d_out) = size.ok_or_else(|| usage(format!("--size {}: expected INxOUT", self.size)))?;
        let counted = |m: &'static Method| Ok((m, parameters(m, d_in, d_out, self.rank)?));
        let methods = METHODS.iter().map(counted).collect::<Result<Vec<_>>>()?;
        let is_mergeable = |m: &Method| m.functions.contains("Merged");
        if self.json {
            let row = |(m, n): &(&Method, usize)| {
                json!({"name": m.name, "formula": m.about, "paper": m.paper, "settings": m.options,
                    "parameters": {"formula": m.parameters, "in": d_in, "out": d_out, "rank": self.rank, "count": n},
                    "mergeable": is_mergeable(m), "peft_type": graft_adapter::Config::peft_type_of(m.name)})
            };
            let rows: Vec<_> = methods.iter().map(row).collect();
            return ui.json(&json!({"schema": "graft.methods/1", "methods": rows}));
        }
        let row = |(m, n): &(&Method, usize)| {
            let merge = if is_mergeable(m) { "yes" } else { "no" };
            let peft = graft_adapter::Config::peft_type_of(m.name).unwrap_or("none");
            let texts = [m.name, m.about, m.parameters, &ui::thousands(*n as u64), merge, peft];
            texts.iter().map(ToString::to_string).collect()
        };
        let count = format!("at {} rank {}", self.size, self.rank);
        let header = ["method", "formula", "parameters", &count, "merges", "peft_type"];
        ui.out(&ui::table(&header, &methods.iter().map(row).collect::<Vec<_>>()))
    }
}

/// Trainable parameters of one linear of this size.
fn parameters(method: &Method, d_in: usize, d_out: usize, rank: usize) -> Result<usize> {
    let linear = Linear {
        path: String::new(),
        node: String::new(),
        op: "MatMul".into(),
        layout: "(in, out)",
        d_in,
        d_out,
        weight: String::new(),
        dtype: DType::Float,
        reason: None,
        is_output: false,
        steps: Vec::new(),
        index: None,
    };
    let config = Config { rank, alpha: 16.0, settings: Vec::new() };
    let weights = (method.weights)(&linear, &config)?;
    Ok(weights.iter().filter(|w| w.is_trainable).map(|w| w.dims.iter().product::<usize>()).sum())
}
