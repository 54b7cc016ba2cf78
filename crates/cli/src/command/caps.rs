//! `graft caps`: what this build can do with each op, from the tables.
use crate::ui::{self, Ui};
use graft_ir::{OpDef, Result, Vjp, library, ops, opset};
use serde_json::json;
use std::collections::BTreeMap;

/// List what can be done with each op: opsets, running, gradients, kernels
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What can be done with one op or library function.
struct Row {
    name: &'static str,
    /// The versions from which on it means something of its own; empty for a function of the library.
    since: Vec<i64>,
    runs: bool,
    gradient: &'static str,
    /// Whether the CPU and a CUDA device have a kernel for it, for some element types at least.
    kernels: [bool; 2],
    formula: &'static str,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let rows = rows();
        if self.json {
            let row = |r: &Row| {
                json!({"op": r.name, "since": r.since, "infer": true, "eval": r.runs, "gradient": r.gradient,
                    "cpu_kernel": r.kernels[0], "cuda_kernel": r.kernels[1], "formula": r.formula})
            };
            let ops: Vec<_> = rows.iter().map(row).collect();
            return ui.json(&json!({"schema": "graft.caps/1", "newest_opset": opset::NEWEST, "ops": ops}));
        }
        let row = |r: &Row| {
            let since: Vec<String> = r.since.iter().map(ToString::to_string).collect();
            let yes = |b: bool| if b { "yes" } else { "no" };
            let [cpu, cuda] = r.kernels.map(yes);
            let texts = [r.name, &format!("from {}", since.join(", ")), yes(r.runs), r.gradient, cpu, cuda];
            texts.map(|t| t.trim_end_matches("from ").to_string()).to_vec()
        };
        let header = ["op", "opset", "eval", "gradient", "cpu kernel", "cuda kernel"];
        ui.out(&ui::table(&header, &rows.iter().map(row).collect::<Vec<_>>()))
    }
}

fn rows() -> Vec<Row> {
    let mut entries: BTreeMap<&str, Vec<&OpDef>> = BTreeMap::new();
    ops::all().for_each(|def| entries.entry(def.name).or_default().push(def));
    let ops = entries.into_iter().map(|(name, mut defs)| {
        defs.sort_by_key(|def| def.since);
        let newest = defs[defs.len() - 1];
        Row {
            name,
            since: defs.iter().map(|def| def.since).collect(),
            runs: newest.eval.is_some(),
            gradient: gradient(newest.vjp),
            kernels: kernels(name),
            formula: newest.doc,
        }
    });
    let functions = library::functions().map(|name| Row {
        name,
        since: Vec::new(),
        runs: true,
        gradient: if library::get(&format!("{name}Grad")).is_some() { "function" } else { "body" },
        kernels: kernels(name),
        formula: "a function whose body is made of the ops above",
    });
    ops.chain(functions).collect()
}

/// How something flows back through an op.
fn gradient(vjp: Vjp) -> &'static str {
    match vjp {
        Vjp::Missing => "no",
        Vjp::Zero => "zero",
        Vjp::Rule(_) => "rule",
        Vjp::Body(_) => "body",
    }
}

fn kernels(name: &str) -> [bool; 2] {
    let kernel = graft_kernels::all().find(|kernel| kernel.name == name);
    [kernel.is_some(), kernel.is_some_and(|kernel| kernel.device.is_any())]
}
