//! `graft explain`: what an error code means, at length.
use crate::{
    ui::{self, Ui},
    usage,
};
use graft_ir::{Code, Result, error::nearest};
use serde_json::{Value, json};

/// Explain an error code
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The code, such as G0302; without one, all are listed
    code: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let codes = match &self.code {
            Some(id) => vec![find(id)?],
            None => Code::ALL.to_vec(),
        };
        if self.json {
            let rows: Vec<Value> = codes.into_iter().map(row).collect();
            return ui.json(&json!({"schema": "graft.explain/1", "codes": rows}));
        }
        if self.code.is_none() {
            let cells = |c: &&Code| vec![c.id.into(), exit(c).to_string(), c.explain.into()];
            return ui.out(&ui::table(&["code", "exit", "meaning"], &codes.iter().map(cells).collect::<Vec<_>>()));
        }
        let text = |c: &&Code| format!("{}, exit code {}\n{}\n", ui.bold(c.id), exit(c), c.explain);
        ui.out(&codes.iter().map(text).collect::<String>())
    }
}

/// The code of that name, in any case.
fn find(id: &str) -> Result<&'static Code> {
    let unknown = || {
        let near = nearest(&id.to_uppercase(), Code::ALL.iter().map(|c| c.id)).join("`, `");
        usage(format!("there is no error code `{id}`"))
            .help(format!("nearest: `{near}`; `graft explain` without a code lists all"))
    };
    Code::ALL.iter().copied().find(|c| c.id.eq_ignore_ascii_case(id)).ok_or_else(unknown)
}

fn exit(code: &Code) -> u8 {
    code.kind as u8
}

fn row(code: &Code) -> Value {
    json!({"code": code.id, "exit": exit(code), "explanation": code.explain})
}
