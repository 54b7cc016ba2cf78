//! `graft verify`: runs two models on the same inputs and compares every output.
use crate::{
    feeds::{self, Sizes},
    model,
    ui::{self, Ui},
};
use graft_exec::{Options, Session};
use graft_ir::{Array, Code, Error, Graph, Result, Tensor, Value, error::nearest, eval};
use serde_json::json;
use std::path::PathBuf;

/// Run two models on the same inputs and compare every output
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The reference
    a: PathBuf,
    /// The model to judge
    b: PathBuf,
    /// Inputs (`.npz` or `.safetensors`); otherwise random ones
    #[arg(long)]
    inputs: Option<PathBuf>,
    #[command(flatten)]
    sizes: Sizes,
    /// The largest max|a−b| / max|a| that passes, for every output
    #[arg(long, default_value_t = 1e-4, value_parser = tolerance)]
    tol: f64,
    /// The seed of random inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How one output differs.
pub(crate) struct Difference {
    name: String,
    max_abs: f64,
    max_rel: f64,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let a = model::load(&self.a, ui)?;
        let b = model::load(&self.b, ui)?;
        let feeds = match &self.inputs {
            Some(path) => graft_adapter::tensors::read(path)?.into_iter().collect::<Vec<_>>(),
            None => feeds::random_feeds(&a.graph, &self.sizes.of(&a.graph)?, self.seed)?,
        };
        check_used(&feeds, [&a.graph, &b.graph])?;
        let extra = names(&b.graph.outputs, &b.graph).filter(|n| !names(&a.graph.outputs, &a.graph).any(|m| m == *n));
        extra.for_each(|name| ui.warn(&format!("output `{name}` is in the second model only: not compared")));
        let differences = compare(&a.graph, &b.graph, &feeds)?;
        report(&differences, self.tol, self.json, ui)
    }
}

fn names<'g>(values: &'g [Value], graph: &'g Graph) -> impl Iterator<Item = &'g str> {
    values.iter().map(|&v| graph.name(v))
}

/// Refuses given inputs that neither model takes.
fn check_used(feeds: &[(String, Tensor)], graphs: [&Graph; 2]) -> Result<()> {
    let taken = || graphs.into_iter().flat_map(|g| names(&g.inputs, g));
    let Some((name, _)) = feeds.iter().find(|(name, _)| !taken().any(|t| t == name)) else { return Ok(()) };
    let near = nearest(name, taken()).join("`, `");
    Err(Error::new(Code::FEED, format!("neither model has an input `{name}`")).help(format!("nearest: `{near}`")))
}

/// A tolerance that can be kept and broken.
pub(crate) fn tolerance(text: &str) -> std::result::Result<f64, String> {
    let number: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if number >= 0.0 { Ok(number) } else { Err("a tolerance is 0 or more".into()) }
}

/// Runs both graphs on `feeds` and compares the outputs of `a` with those of the same name of `b`.
pub(crate) fn compare(a: &Graph, b: &Graph, feeds: &[(String, Tensor)]) -> Result<Vec<Difference>> {
    let [ours, theirs] = [run(a, feeds)?, run(b, feeds)?];
    let mut differences = Vec::new();
    for (name, x) in ours {
        let missing = || Error::new(Code::GRAPH, format!("the second model has no output `{name}`"));
        let y = &theirs.iter().find(|(n, _)| *n == name).ok_or_else(missing)?.1;
        let (x, y) = (Array::from_tensor(&x)?, Array::from_tensor(y)?);
        let shapes = || Error::new(Code::OVER_TOLERANCE, format!("output `{name}` is {:?} in one and {:?} in the other", x.dims, y.dims));
        let (max_abs, scale) = eval::difference(&x, &y).ok_or_else(shapes)?;
        let max_rel = if max_abs == 0.0 { 0.0 } else { max_abs / scale };
        differences.push(Difference { name, max_abs, max_rel });
    }
    Ok(differences)
}

/// For each output, the largest of several differences.
pub(crate) fn worst(differences: Vec<Vec<Difference>>) -> Vec<Difference> {
    let mut all = differences.into_iter();
    let first = all.next().unwrap_or_default();
    all.flatten().fold(first, |mut worst, d| {
        if let Some(of_name) = worst.iter_mut().find(|w| w.name == d.name) {
            // In this order NaN is the largest number of all.
            let larger = |a: f64, b: f64| if a.total_cmp(&b).is_ge() { a } else { b };
            of_name.max_abs = larger(of_name.max_abs, d.max_abs);
            of_name.max_rel = larger(of_name.max_rel, d.max_rel);
        }
        worst
    })
}

fn run(graph: &Graph, feeds: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
    let mut session = Session::new(graph, &[], &Options::default())?;
    let wanted: Vec<(&str, &Tensor)> = feeds
        .iter()
        .filter(|(name, _)| graph.inputs.iter().any(|&v| graph.name(v) == name))
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    session.run(&wanted)
}

/// The differences as JSON; numbers that JSON has not are texts.
pub(crate) fn rows(differences: &[Difference]) -> serde_json::Value {
    let finite = |x: f64| if x.is_finite() { json!(x) } else { json!(x.to_string()) };
    let row = |d: &Difference| json!({"name": d.name, "max_abs": finite(d.max_abs), "max_rel": finite(d.max_rel)});
    differences.iter().map(row).collect()
}

/// Prints the differences, and fails if one is over the tolerance.
pub(crate) fn report(differences: &[Difference], tol: f64, as_json: bool, ui: &Ui) -> Result<()> {
    let is_over = |d: &&Difference| d.max_rel.is_nan() || d.max_rel > tol;
    let worst = differences.iter().filter(is_over).max_by(|x, y| x.max_rel.total_cmp(&y.max_rel));
    if as_json {
        ui.json(&json!({"schema": "graft.verify/1", "outputs": rows(differences), "ok": worst.is_none()}))?;
    } else {
        let row = |d: &Difference| vec![d.name.clone(), format!("{:.3e}", d.max_abs), format!("{:.3e}", d.max_rel)];
        let rows: Vec<_> = differences.iter().map(row).collect();
        ui.out(&ui::table(&["output", "max_abs", "max_rel"], &rows))?;
    }
    match worst {
        None => Ok(()),
        Some(d) => {
            let message = format!("output `{}` differs by {:.3e} of its largest value, over the tolerance of {tol:.0e}", d.name, d.max_rel);
            Err(Error::new(Code::OVER_TOLERANCE, message))
        }
    }
}
