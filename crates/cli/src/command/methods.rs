//! `graft methods`: the adapter methods.
use crate::{
    ui::{self, Ui},
    usage,
};
use graft_ir::{DType, Result};
use graft_passes::{
    Linear,
    inject::{Config, METHODS, Method, Variant, Weight},
};
use serde_json::json;
use std::ops::RangeInclusive;

/// Larger sizes would multiply to more than can be counted.
const SIZES: RangeInclusive<usize> = 1..=1 << 24;

/// List the adapter methods
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Count the parameters for a linear of this size
    #[arg(long, default_value = "768x768", value_name = "INxOUT")]
    size: String,
    /// Count the parameters for this rank, not each method's default
    #[arg(long)]
    rank: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A variant of a method, and its trainable parameters for the linear that was asked for, if it can be put on it.
struct Row {
    method: &'static Method,
    variant: &'static Variant,
    rank: usize,
    parameters: Option<usize>,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let size = self.size.split_once('x').and_then(|(i, o)| Some((i.parse().ok()?, o.parse().ok()?)));
        let (d_in, d_out) = size.ok_or_else(|| usage(format!("--size {}: expected INxOUT", self.size)))?;
        let given = [d_in, d_out].into_iter().chain(self.rank);
        if given.into_iter().any(|n| !SIZES.contains(&n)) {
            return Err(usage(format!("sizes and rank lie between {} and {}", SIZES.start(), SIZES.end())));
        }
        let row = |method: &'static Method, variant: &'static Variant| {
            let rank = self.rank.unwrap_or(method.rank);
            Row { method, variant, rank, parameters: parameters(method, variant, rank, d_in, d_out) }
        };
        let rows = METHODS.iter().flat_map(|m| m.variants.iter().map(move |v| row(m, v)));
        if self.json {
            let rows: Vec<_> = rows.map(|row| row.json(d_in, d_out)).collect();
            return ui.json(&json!({"schema": "graft.methods/1", "methods": rows}));
        }
        let count = format!("at {}", self.size);
        let header = [
            "method",
            "formula",
            "parameters",
            "rank",
            &count,
            "merges",
            "peft_type",
            "CPU kernel",
            "CUDA kernel",
        ];
        ui.out(&ui::table(&header, &rows.map(|row| row.texts()).collect::<Vec<_>>()))?;
        let lines: Vec<String> = METHODS.iter().map(Method::settings_help).collect();
        ui.out(&format!("\n{}\n", lines.join("\n")))
    }
}

impl Row {
    /// The method with the settings that ask for this variant.
    fn name(&self) -> String {
        let set = self.variant.example.iter().map(|(key, value)| format!(" --set {key}={value}"));
        [self.method.name.to_string()].into_iter().chain(set).collect()
    }
    /// What of it stands in fused graphs and in files: of a formula of training only, the method's first variant.
    fn lasting(&self) -> &'static Variant {
        if self.variant.peft.types.is_empty() { &self.method.variants[0] } else { self.variant }
    }
    fn peft_type(&self) -> &'static str {
        self.lasting().peft.types.first().copied().unwrap_or("none")
    }
    /// Whether the host and a CUDA device have a kernel for the function.
    fn has_kernels(&self) -> [bool; 2] {
        let kernel = graft_kernels::all().find(|kernel| kernel.name == self.lasting().function);
        [kernel.is_some(), kernel.is_some_and(|kernel| kernel.device.is_any())]
    }
    fn texts(&self) -> Vec<String> {
        let yes = |is: bool| if is { "yes" } else { "no" }.to_string();
        let count = self.parameters.map_or("does not fit".into(), |n| ui::thousands(n as u64));
        let (about, formula) = (self.variant.about.to_string(), self.variant.parameters.to_string());
        let merges = yes(self.variant.merged().is_some());
        let peft_type = self.peft_type().to_string();
        let [cpu, cuda] = self.has_kernels().map(yes);
        vec![self.name(), about, formula, self.rank.to_string(), count, merges, peft_type, cpu, cuda]
    }
    fn json(&self, d_in: usize, d_out: usize) -> serde_json::Value {
        let settings = self.method.settings.iter();
        let settings = settings.map(|s| json!({"name": s.name, "about": s.about, "default": s.default}));
        let [cpu, cuda] = self.has_kernels();
        let example: serde_json::Map<_, _> =
            self.variant.example.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
        json!({"name": self.method.name, "set": example, "function": self.variant.function,
            "formula": self.variant.about, "paper": self.method.paper, "settings": settings.collect::<Vec<_>>(),
            "parameters": {"formula": self.variant.parameters, "in": d_in, "out": d_out, "rank": self.rank,
                "count": self.parameters},
            "mergeable": self.variant.merged().is_some(), "peft_type": self.peft_type(),
            "kernels": {"cpu": cpu, "cuda": cuda}})
    }
}

/// Trainable parameters of one linear of this size; `None` if the variant cannot be put on it.
fn parameters(method: &Method, variant: &Variant, rank: usize, d_in: usize, d_out: usize) -> Option<usize> {
    let linear = Linear {
        path: String::new(),
        nth_use: 0,
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
    let example = variant.example.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let config = Config::new(method, rank, method.alpha.unwrap_or(1.0), example);
    let parts = (method.parts)(&linear, &config).ok()?;
    Some(parts.weights.iter().map(Weight::parameters).sum())
}
