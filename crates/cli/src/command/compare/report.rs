//! The result of a comparison: what is known of each entry, as a table and as JSON.
use super::{Contest, Entry, failed, page, runs::Finished, runs::Run};
use crate::ui;
use graft_ir::Result;
use graft_onnx::atomic_write;
use graft_train::compare::{Curve, History, Quantity, Spread};
use serde_json::{Value as Json, json};
use std::path::Path;

/// The page of the comparison.
pub(crate) const PAGE_FILE: &str = "comparison.html";
/// The same numbers for programs.
const JSON_FILE: &str = "comparison.json";
/// The entry that the others are measured by.
const REFERENCE: &str = "lora";

/// All runs of a comparison.
pub(crate) struct Comparison {
    pub(crate) contest: Contest,
    /// For each entry, its runs by seed.
    pub(crate) runs: Vec<Vec<Run>>,
}

/// One entry with what its runs say together.
pub(super) struct Row<'a> {
    pub(super) entry: &'a Entry,
    pub(super) runs: &'a [Run],
    pub(super) accuracy: Option<Spread>,
    pub(super) eval_loss: Option<Spread>,
    pub(super) loss: Option<Spread>,
    pub(super) tokens_per_s: Option<Spread>,
    pub(super) peak_mb: Option<Spread>,
    pub(super) seconds: Option<Spread>,
    /// The first step whose mean loss is at most the lowest of plain LoRA's.
    pub(super) steps_to_reference: Option<u64>,
}

impl Row<'_> {
    /// The histories of the runs that did not fail.
    pub(super) fn histories(&self) -> Vec<&History> {
        finished(self.runs).map(|run| &run.history).collect()
    }
    /// `91.17 ± 0.42`, after multiplication with `factor`; one run alone has no spread.
    fn spread(&self, s: Spread, factor: f64, digits: usize) -> String {
        let mean = format!("{:.digits$}", s.mean * factor);
        match finished(self.runs).count() {
            1 => mean,
            _ => format!("{mean} ± {:.digits$}", s.deviation * factor),
        }
    }
    fn failures(&self) -> usize {
        self.runs.iter().filter(|run| run.result.is_err()).count()
    }
}

fn finished(runs: &[Run]) -> impl Iterator<Item = &Finished> {
    runs.iter().filter_map(|run| run.result.as_ref().ok())
}

impl Comparison {
    /// Every entry's row, in the order in which they were asked for.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let level = self.reference().and_then(|curve| curve.lowest());
        let row = |(entry, runs)| self.row(entry, runs, level);
        self.contest.entries.iter().zip(&self.runs).map(|(entry, runs)| (entry, runs.as_slice())).map(row).collect()
    }

    fn row<'a>(&self, entry: &'a Entry, runs: &'a [Run], level: Option<f64>) -> Row<'a> {
        let spread = |value: &dyn Fn(&Finished) -> Option<f64>| {
            Spread::of(&finished(runs).filter_map(value).collect::<Vec<f64>>())
        };
        let kept = |run: &Finished| run.history.kept(self.contest.keeps_best).copied();
        let curve = self.loss_curve(runs);
        Row {
            entry,
            runs,
            accuracy: spread(&|run| kept(run)?.accuracy),
            eval_loss: spread(&|run| Some(kept(run)?.eval_loss)),
            loss: spread(&|run| run.history.final_loss()),
            tokens_per_s: spread(&|run| run.history.tokens_per_s()),
            peak_mb: spread(&|run| run.peak_mb),
            seconds: spread(&|run| Some(run.seconds)),
            steps_to_reference: level.and_then(|level| curve.reaches(level)),
        }
    }

    /// The course of the loss that methods are judged by: on the evaluation data, where there is some.
    fn loss_curve(&self, runs: &[Run]) -> Curve {
        let histories: Vec<&History> = finished(runs).map(|run| &run.history).collect();
        [Quantity::EvalLoss, Quantity::Loss].map(|q| q.curve(&histories)).into_iter().find(|c| !c.0.is_empty()).unwrap_or_default()
    }

    /// The course of plain LoRA, where it takes part.
    fn reference(&self) -> Option<Curve> {
        let at = self.contest.entries.iter().position(|e| e.label == REFERENCE)?;
        Some(self.loss_curve(&self.runs[at]))
    }

    /// Whether plain LoRA takes part.
    pub(super) fn has_reference(&self) -> bool {
        self.reference().is_some_and(|curve| !curve.0.is_empty())
    }

    /// The columns of the table, and its cells.
    pub(super) fn cells(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let rows = self.rows();
        type Cell = fn(&Row<'_>) -> Option<String>;
        let columns: [(&str, Cell); 10] = [
            ("method", |r| Some(r.entry.label.clone())),
            ("rank", |r| r.entry.rank.map(|rank| rank.to_string())),
            ("parameters", |r| Some(ui::thousands(r.entry.parameters as u64))),
            ("lr", |r| Some(r.entry.lr.to_string())),
            ("accuracy, %", |r| r.accuracy.map(|s| r.spread(s, 100.0, 2))),
            ("evaluation loss", |r| r.eval_loss.map(|s| r.spread(s, 1.0, 4))),
            ("training loss", |r| r.loss.map(|s| r.spread(s, 1.0, 4))),
            ("steps to LoRA's best", |r| r.steps_to_reference.map(|n| n.to_string())),
            ("tokens/s", |r| r.tokens_per_s.map(|s| ui::thousands(s.mean as u64))),
            ("peak MB", |r| r.peak_mb.map(|s| format!("{:.0}", s.mean))),
        ];
        // A column that nobody fills is left out.
        let used = columns.iter().filter(|(_, cell)| rows.iter().any(|row| cell(row).is_some()));
        let used: Vec<&(&str, Cell)> = used.collect();
        let cells = |row: &Row<'_>| used.iter().map(|(_, cell)| cell(row).unwrap_or_else(|| "-".into())).collect();
        (used.iter().map(|(name, _)| *name).collect(), rows.iter().map(cells).collect())
    }

    /// The table for a terminal, with the runs that failed.
    pub(crate) fn table(&self) -> String {
        let (header, rows) = self.cells();
        let failures: String = self.failures().map(|(label, run, error)| format!("{label}, seed {}: {error}\n", run.seed)).collect();
        ui::table(&header, &rows) + &failures
    }

    /// Every run that failed: its entry's label, itself, its error.
    pub(super) fn failures(&self) -> impl Iterator<Item = (&str, &Run, &str)> {
        let runs = self.contest.entries.iter().zip(&self.runs);
        runs.flat_map(|(entry, runs)| runs.iter().map(move |run| (entry.label.as_str(), run)))
            .filter_map(|(label, run)| Some((label, run, run.result.as_ref().err()?.as_str())))
    }

    /// Everything as one object.
    pub(crate) fn json(&self) -> Json {
        let flags: Vec<String> = self.contest.flags.iter().map(|flag| flag.to_string_lossy().into()).collect();
        json!({
            "schema": "graft.compare/1", "model": self.contest.model.display().to_string(), "flags": flags,
            "budget": self.contest.entries.first().map(|e| e.budget),
            "seeds": self.contest.seeds.clone().collect::<Vec<u64>>(),
            "methods": self.rows().iter().map(|row| self.row_json(row)).collect::<Vec<Json>>(),
        })
    }

    fn row_json(&self, row: &Row<'_>) -> Json {
        let settings: serde_json::Map<String, Json> =
            row.entry.settings.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let curve = self.loss_curve(row.runs).0;
        let column = |of: fn(&(u64, Spread)) -> Json| curve.iter().map(of).collect::<Vec<Json>>();
        json!({
            "label": row.entry.label, "method": row.entry.method, "set": settings, "rank": row.entry.rank,
            "alpha": row.entry.alpha, "parameters": row.entry.parameters, "lr": row.entry.lr,
            "accuracy": spread_json(row.accuracy), "eval_loss": spread_json(row.eval_loss),
            "loss": spread_json(row.loss), "steps_to_lora": row.steps_to_reference,
            "tokens_per_s": spread_json(row.tokens_per_s), "peak_mb": spread_json(row.peak_mb),
            "seconds": spread_json(row.seconds), "failed": row.failures(),
            "curve": {"step": column(|p| json!(p.0)), "mean": column(|p| json!(p.1.mean)),
                "deviation": column(|p| json!(p.1.deviation))},
            "runs": row.runs.iter().map(|run| self.run_json(run)).collect::<Vec<Json>>(),
        })
    }

    fn run_json(&self, run: &Run) -> Json {
        let folder = run.folder.strip_prefix(&self.contest.out).unwrap_or(&run.folder).display().to_string();
        match &run.result {
            Ok(done) => {
                let kept = done.history.kept(self.contest.keeps_best);
                json!({"seed": run.seed, "folder": folder, "loss": done.history.final_loss(),
                    "eval_loss": kept.map(|e| e.eval_loss), "accuracy": kept.and_then(|e| e.accuracy),
                    "tokens_per_s": done.history.tokens_per_s(), "peak_mb": done.peak_mb, "seconds": done.seconds})
            }
            Err(error) => json!({"seed": run.seed, "folder": folder, "error": error}),
        }
    }

    /// Writes page and JSON into the folder.
    pub(crate) fn write(&self, out: &Path) -> Result<()> {
        atomic_write(&out.join(JSON_FILE), format!("{}\n", self.json()).as_bytes())?;
        atomic_write(&out.join(PAGE_FILE), page::html(self)?.as_bytes())
    }

    /// An error where runs failed.
    pub(crate) fn check(&self) -> Result<()> {
        match self.failures().count() {
            0 => Ok(()),
            n => Err(failed(n, self.runs.iter().map(Vec::len).sum())),
        }
    }
}

fn spread_json(s: Option<Spread>) -> Json {
    s.map_or(Json::Null, |s| json!({"mean": s.mean, "deviation": s.deviation}))
}
