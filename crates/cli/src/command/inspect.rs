//! `graft inspect`: what is in a model, and whether it can be trained.
mod tree;

use crate::{
    feeds::Sizes,
    model,
    ui::{self, Ui},
};
use graft_ir::{Dim, Graph, Result, Vjp, cost, ops};
use graft_onnx::Model;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

/// Show what is in a model
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model (`.onnx` or `.onnxtxt`)
    model: PathBuf,
    /// List how often each op occurs
    #[arg(long)]
    ops: bool,
    /// Show the modules that the names of nodes reveal, with their parameters and adapters
    #[arg(long)]
    tree: bool,
    /// Print the graph as ONNX text
    #[arg(long, conflicts_with_all = ["ops", "tree", "trainable", "json"])]
    text: bool,
    /// Say whether adapters in this model can be trained, and which ops stand in the way
    #[arg(long)]
    trainable: bool,
    #[command(flatten)]
    sizes: Sizes,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let model = model::load(&self.model, ui)?;
        if self.text {
            return ui.out(&model.graph.to_string());
        }
        let sizes = self.sizes.of(&model.graph)?;
        if self.json {
            return ui.json(&summary(&model)?);
        }
        ui.out(&self.report(&model, &sizes, ui)?)
    }

    fn report(&self, model: &Model, sizes: &BTreeMap<&str, usize>, ui: &Ui) -> Result<String> {
        let graph = &model.graph;
        let mut text = overview(model, ui);
        let flops = cost::flops(graph);
        let sized = flops.count.substitute(|name| sizes.get(name).map(|&n| Dim::from(n)));
        let _ = writeln!(text, "{}  {}", ui.bold("flops  "), human_flops(&sized));
        if self.ops {
            let rows: Vec<Vec<String>> =
                histogram(graph).into_iter().map(|(op, n)| vec![op.to_string(), n.to_string()]).collect();
            let _ = write!(text, "\n{}", ui::table(&["op", "nodes"], &rows));
        }
        if self.tree {
            let _ = write!(text, "\n{}", tree::render(graph, ui)?);
        }
        if self.trainable {
            let _ = write!(text, "\n{}", trainable(graph));
        }
        Ok(text)
    }
}

fn human_flops(count: &Dim) -> String {
    match count.as_const() {
        Some(n) => format!("{:.3} GFLOP in matrix products", n as f64 / 1e9),
        None => format!("{count} in matrix products (give --sizes to count them)"),
    }
}

fn overview(model: &Model, ui: &Ui) -> String {
    let graph = &model.graph;
    let opsets: Vec<String> = graph.opsets.iter().map(|(d, v)| format!("{} {v}", domain(d))).collect();
    let mut text = format!("{}  {}\n", ui.bold("graph  "), graph.name);
    let _ = writeln!(text, "{}  {}, IR {}, by {}", ui.bold("opset  "), opsets.join(", "), graph.ir_version, producer(model));
    for (title, values) in [("input  ", &graph.inputs), ("output ", &graph.outputs)] {
        for &v in values.iter().filter(|v| title != "input  " || !graph.is_param(**v)) {
            let ty = graph[v].ty.as_ref().map_or("?".into(), ToString::to_string);
            let _ = writeln!(text, "{}  {} {}", ui.bold(title), graph.name(v), ui.dim(&ty));
        }
    }
    let (count, size, by_dtype) = parameters(graph);
    let split: Vec<String> = by_dtype.iter().map(|(d, n)| format!("{} {d}", ui::thousands(*n))).collect();
    let split = if split.is_empty() { String::new() } else { format!(": {}", split.join(", ")) };
    let line = format!("{} in {} ({}){split}", ui::thousands(count), graph.params.len(), ui::bytes(size), );
    let _ = writeln!(text, "{}  {line}", ui.bold("weights"));
    let _ = writeln!(text, "{}  {} of {} ops", ui.bold("nodes  "), graph.nodes.len(), histogram(graph).len());
    text
}

/// The program that wrote the model, with its version, where the model says so.
fn producer(model: &Model) -> String {
    let Some(origin) = &model.origin else { return "text".into() };
    let proto = origin.proto();
    let words = [proto.producer_name.as_deref(), proto.producer_version.as_deref()];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn domain(name: &str) -> &str {
    if name.is_empty() { "ai.onnx" } else { name }
}

fn summary(model: &Model) -> Result<Value> {
    let graph = &model.graph;
    let (count, size, by_dtype) = parameters(graph);
    let ports = |values: &[graft_ir::Value]| -> Vec<Value> {
        let port = |&v: &graft_ir::Value| {
            let ty = graph[v].ty.as_ref();
            let shape = ty.and_then(|t| t.shape.as_ref()).map(|s| s.iter().map(dim_json).collect::<Vec<_>>());
            json!({"name": graph.name(v), "dtype": ty.map(|t| t.dtype.name()), "shape": shape})
        };
        values.iter().map(port).collect()
    };
    let opsets: Map<String, Value> = graph.opsets.iter().map(|(d, v)| (domain(d).to_string(), json!(v))).collect();
    let fed: Vec<_> = graph.inputs.iter().copied().filter(|&v| !graph.is_param(v)).collect();
    let adapters: Vec<Value> = graft_passes::inject::adapters(graph)?
        .iter()
        .map(|a| json!({"target": a.target, "method": a.method, "rank": a.rank, "alpha": a.alpha, "parameters": a.parameters, "nodes": a.nodes}))
        .collect();
    Ok(json!({
        "schema": "graft.inspect/1", "name": graph.name, "producer": producer(model), "ir_version": graph.ir_version,
        "opsets": opsets, "nodes": graph.nodes.len(), "ops": histogram(graph),
        "parameters": count, "bytes": size, "parameters_by_dtype": by_dtype,
        "flops": cost::flops(graph).count.to_string(),
        "inputs": ports(&fed), "outputs": ports(&graph.outputs), "adapters": adapters,
    }))
}

fn dim_json(d: &Dim) -> Value {
    d.as_const().map_or_else(|| json!(d.to_string()), |n| json!(n))
}

fn histogram(graph: &Graph) -> BTreeMap<&str, usize> {
    let mut ops = BTreeMap::new();
    for node in &graph.nodes {
        *ops.entry(node.op.as_str()).or_default() += 1;
    }
    ops
}

/// Elements, bytes, and elements by element type of all weights.
fn parameters(graph: &Graph) -> (u64, u64, BTreeMap<&'static str, u64>) {
    let (mut count, mut size, mut by_dtype) = (0, 0, BTreeMap::new());
    for tensor in graph.params.iter().filter_map(|&p| graph[p].tensor.as_ref()) {
        count += tensor.len() as u64;
        size += tensor.data().len() as u64;
        *by_dtype.entry(tensor.dtype().name()).or_default() += tensor.len() as u64;
    }
    (count, size, by_dtype)
}

/// Which ops have no gradient here: a list that is empty for a model that can be trained wherever adapters are put.
fn trainable(graph: &Graph) -> String {
    let mut without: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &graph.nodes {
        let opset = graph.opset(node.domain_and_name().0).unwrap_or(1);
        let has = match ops::lookup(&node.op, opset) {
            Some(def) => !matches!(def.vjp, Vjp::Missing),
            None => graph.functions.contains_key(&node.op),
        };
        if !has {
            *without.entry(&node.op).or_default() += 1;
        }
    }
    if without.is_empty() {
        return "trainable: every op here has a gradient\n".into();
    }
    let rows: Vec<Vec<String>> = without.iter().map(|(op, n)| vec![op.to_string(), n.to_string()]).collect();
    let table = ui::table(&["op", "nodes"], &rows);
    format!("these ops have no gradient; a target in front of one of them is refused:\n{table}")
}
