//! `graft diff`: what differs between two models, structure and weights, with what was grafted marked.
use crate::{
    model,
    ui::{self, Ui},
};
use graft_ir::{
    Code, Error, Result,
    compare::{Change, Part, compare},
};
use graft_passes::meta;
use serde_json::{Value, json};
use std::{fmt::Write as _, path::PathBuf};

/// Show what differs between two models
///
/// Values, weights and nodes belong together by name. Exit code 1 if the models differ.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model before
    a: PathBuf,
    /// The model after
    b: PathBuf,
    /// Only count the changes
    #[arg(long)]
    stat: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with = "stat")]
    json: bool,
}

/// The parts with their names in results, in the order in which they are shown.
const PARTS: [(Part, &str); 6] = [
    (Part::Header, "header"),
    (Part::Input, "inputs"),
    (Part::Output, "outputs"),
    (Part::Weight, "weights"),
    (Part::Node, "nodes"),
    (Part::Function, "functions"),
];

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let (a, b) = (model::load(&self.a, ui)?, model::load(&self.b, ui)?);
        let changes = compare(&a.graph, &b.graph);
        if self.json {
            ui.json(&summary(&changes))?;
        } else if !changes.is_empty() {
            let mut text = counts(&changes);
            if !self.stat {
                text += &listing(&changes, ui);
            }
            ui.out(&text)?;
        }
        if changes.is_empty() {
            return Ok(());
        }
        let places = if changes.len() == 1 { "place" } else { "places" };
        let message = format!("the models differ in {} {places}", ui::thousands(changes.len() as u64));
        Err(Error::new(Code::DIFFERENT, message))
    }
}

/// Where a grafted node or weight belongs: `lora on encoder.query`.
fn grafted(change: &Change) -> Option<String> {
    Some(format!("{} on {}", change.meta.get(meta::METHOD)?, change.meta.get(meta::TARGET)?))
}

/// How often each kind of change occurs in each part.
fn counts(changes: &[Change]) -> String {
    let row = |&(part, name): &(Part, &str)| {
        let of_part: Vec<&Change> = changes.iter().filter(|c| c.part == part).collect();
        let count = |wanted: fn(&Change) -> bool| of_part.iter().filter(|c| wanted(c)).count().to_string();
        let columns = [
            count(|c| c.before.is_none()),
            count(|c| c.after.is_none()),
            count(|c| c.before.is_some() && c.after.is_some()),
            count(|c| grafted(c).is_some()),
        ];
        (!of_part.is_empty()).then(|| [vec![name.to_string()], columns.into()].concat())
    };
    let rows: Vec<Vec<String>> = PARTS.iter().filter_map(row).collect();
    ui::table(&["part", "added", "removed", "changed", "grafted"], &rows)
}

/// Every change: what goes behind `-`, what comes behind `+`.
fn listing(changes: &[Change], ui: &Ui) -> String {
    let mut text = String::new();
    for (part, name) in PARTS {
        let of_part = changes.iter().filter(|c| c.part == part);
        for (i, change) in of_part.enumerate() {
            if i == 0 {
                let _ = writeln!(text, "\n{}", ui.bold(name));
            }
            text += &sides(change, ui);
        }
    }
    text
}

fn sides(change: &Change, ui: &Ui) -> String {
    // A node's line says the name itself.
    let line = |side: &str| match change.part {
        Part::Node | Part::Function => side.trim_end().replace('\n', "\n  "),
        _ => format!("{}  {side}", change.name),
    };
    let mark = grafted(change).map_or_else(String::new, |mark| ui.dim(&format!("  # {mark}")));
    let mut text = String::new();
    match (&change.before, &change.after, change.distance) {
        (Some(before), Some(after), Some((max_abs, max_rel))) if before == after => {
            let far = format!("max|a−b| {max_abs:.3e}, {max_rel:.3e} of max|a|");
            let _ = writeln!(text, "{} {}  {far}{mark}", ui.bold("~"), line(after));
        }
        (before, after, _) => {
            if let Some(before) = before {
                let _ = writeln!(text, "{}", ui.removed(&format!("- {}", line(before))));
            }
            if let Some(after) = after {
                let _ = writeln!(text, "{}{mark}", ui.added(&format!("+ {}", line(after))));
            }
        }
    }
    text
}

fn summary(changes: &[Change]) -> Value {
    let name = |part: Part| PARTS.iter().find(|(p, _)| *p == part).map_or("", |(_, name)| name);
    let change = |c: &Change| {
        let distance = c.distance.map(|(max_abs, max_rel)| json!({"max_abs": max_abs, "max_rel": max_rel}));
        json!({
            "part": name(c.part), "name": c.name, "before": c.before, "after": c.after,
            "method": c.meta.get(meta::METHOD), "target": c.meta.get(meta::TARGET), "distance": distance,
        })
    };
    let changes: Vec<Value> = changes.iter().map(change).collect();
    json!({"schema": "graft.diff/1", "same": changes.is_empty(), "changes": changes})
}
