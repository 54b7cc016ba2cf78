//! `graft targets`: every linear node, and which of them a selector matches.
use crate::{
    model,
    ui::{self, Ui},
};
use graft_ir::Result;
use graft_passes::{Options, Selector, target};
use serde_json::json;
use std::{fmt::Write as _, path::PathBuf};

/// List the linear nodes that adapters can be put on
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    #[command(flatten)]
    select: Select,
    /// Say for each node why it is matched or not
    #[arg(long)]
    explain: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Which linear nodes are meant; the meaning is PEFT's.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct Select {
    /// Module paths or their dotted suffixes, comma-separated; `re:REGEX` over whole paths; `all-linear` (the default)
    #[arg(long, value_name = "SEL")]
    pub(crate) targets: Option<String>,
    /// What to leave out, in the same form
    #[arg(long, value_name = "SEL")]
    pub(crate) exclude: Option<String>,
    /// Only layers with these numbers
    #[arg(long, value_name = "N,…")]
    pub(crate) layers: Option<String>,
}

impl Select {
    /// The same as options of the passes.
    pub(crate) fn options(&self, options: Options) -> Options {
        let given = [("targets", &self.targets), ("exclude", &self.exclude), ("layers", &self.layers)];
        given.into_iter().fold(options, |options, (key, value)| match value {
            Some(value) => options.with(key, value),
            None => options,
        })
    }
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let model = model::load(&self.model, ui)?;
        let linears = target::targets(&model.graph)?;
        let selector = Selector::new(&self.select.options(Options::default()))?;
        // Without a selector the listing is a question, which a model without targets answers too.
        if self.select.targets.is_some() {
            selector.select(&linears)?;
        }
        let matched = linears.iter().filter(|l| selector.matches(l) && l.is_eligible()).count();
        if self.json {
            let row = |l: &target::Linear| {
                let reason = l.reason.clone().or_else(|| selector.why_not(l));
                json!({
                    "path": l.path, "node": l.node, "op": l.op, "layout": l.layout, "in": l.d_in, "out": l.d_out,
                    "weight": l.weight, "dtype": l.dtype.name(), "eligible": l.is_eligible(),
                    "matched": l.is_eligible() && selector.matches(l), "reason": reason,
                })
            };
            let rows: Vec<_> = linears.iter().map(row).collect();
            return ui.json(&json!({"schema": "graft.targets/1", "targets": rows}));
        }
        let mut text = self.table(&linears, &selector);
        let _ = writeln!(text, "{matched} of {} linear nodes matched", linears.len());
        ui.out(&text)
    }

    fn table(&self, linears: &[target::Linear], selector: &Selector) -> String {
        let mut header = vec!["", "path", "op", "layout", "in", "out", "dtype", "weight"];
        if self.explain {
            header.push("why");
        }
        let row = |l: &target::Linear| {
            let is_matched = l.is_eligible() && selector.matches(l);
            let mark = if is_matched { "✓" } else { "·" };
            let sizes = [l.d_in.to_string(), l.d_out.to_string()];
            let mut cells = vec![mark.to_string(), l.path.clone(), l.op.clone(), l.layout.to_string()];
            cells.extend(sizes);
            cells.extend([l.dtype.name().to_string(), l.weight.clone()]);
            if self.explain {
                cells.push(l.reason.clone().or_else(|| selector.why_not(l)).unwrap_or_else(|| "matched".into()));
            }
            cells
        };
        ui::table(&header, &linears.iter().map(row).collect::<Vec<_>>())
    }
}
