//! The runs of a comparison. Each is a `graft train` of its own: its peak memory is its own too, and a run that fails
//! takes no other with it.
use super::{Comparison, Entry};
use crate::ui::{Ui, thousands};
use graft_ir::{Code, Error, Result};
use graft_train::{
    Interrupt,
    compare::History,
};
use serde_json::Value as Json;
use std::{
    ffi::OsString,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// What is to be run.
pub(crate) struct Contest {
    /// The model's file.
    pub(crate) model: PathBuf,
    /// Flags of `graft train` that all runs share: data, objective, course.
    pub(crate) flags: Vec<OsString>,
    /// Those that select linears.
    pub(crate) select: Vec<OsString>,
    /// Who takes part.
    pub(crate) entries: Vec<Entry>,
    /// The seeds, each for every entry.
    pub(crate) seeds: Range<u64>,
    /// Whether a run keeps the adapter of its best evaluation, not of the last.
    pub(crate) keeps_best: bool,
    /// The folder of the comparison.
    pub(crate) out: PathBuf,
    /// Whether it may replace something.
    pub(crate) force: bool,
}

/// One run that has ended.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) folder: PathBuf,
    /// What it brought, or why it failed.
    pub(crate) result: Result<Finished, String>,
}

/// What a run brought.
pub(crate) struct Finished {
    pub(crate) history: History,
    pub(crate) seconds: f64,
    /// The largest resident size of its process, where the system tells.
    pub(crate) peak_mb: Option<f64>,
}

impl Contest {
    /// Runs everything, one after another; a line on stderr for each.
    ///
    /// # Errors
    /// [`Code::IO`] for the folder, [`Code::INTERRUPTED`] after SIGINT. A run that fails is no
    /// error of the comparison: it is a part of its result.
    pub(crate) fn run(self, ui: &Ui) -> Result<Comparison> {
        let failed = |e| Error::new(Code::IO, format!("the folder cannot be used: {e}")).at(self.out.display().to_string());
        fs::create_dir_all(&self.out).map_err(failed)?;
        let interrupt = Interrupt::new()?;
        let mut runs = Vec::new();
        for entry in &self.entries {
            let of_entry: Result<Vec<Run>> =
                self.seeds.clone().map(|seed| self.train(entry, seed, &interrupt, ui)).collect();
            runs.push(of_entry?);
        }
        Ok(Comparison { runs, contest: self })
    }

    /// Refuses a folder that holds something, unless that may be replaced.
    ///
    /// # Errors
    /// [`Code::EXISTS`].
    pub(crate) fn check_folder(&self) -> Result<()> {
        let is_taken = self.out.is_dir() && fs::read_dir(&self.out).is_ok_and(|mut files| files.next().is_some());
        if !is_taken || self.force {
            return Ok(());
        }
        let message = format!("`{}` is not empty", self.out.display());
        Err(Error::new(Code::EXISTS, message).help("`--force` replaces what is in it"))
    }

    fn train(&self, entry: &Entry, seed: u64, interrupt: &Interrupt, ui: &Ui) -> Result<Run> {
        let folder = self.out.join("runs").join(entry.folder()).join(format!("seed-{seed}"));
        let output = self.command(entry, seed, &folder, ui)?.output().map_err(|e| {
            Error::new(Code::IO, format!("`graft train` cannot be started: {e}"))
        })?;
        if interrupt.is_asked() || output.status.code() == Some(Code::INTERRUPTED.kind as i32) {
            let message = format!("interrupted at `{}` with seed {seed}; the runs before it are complete", entry.label);
            return Err(Error::new(Code::INTERRUPTED, message).help("`--force` begins anew"));
        }
        let result = finished(&output, &folder);
        ui.say(&format!("{} · seed {seed} · {}", entry.label, outcome(&result, self.keeps_best)));
        Ok(Run { seed, folder, result })
    }

    /// `graft train` for one run.
    fn command(&self, entry: &Entry, seed: u64, folder: &Path, ui: &Ui) -> Result<Command> {
        let unknown = |e| Error::new(Code::IO, format!("the running program cannot be found: {e}"));
        let mut command = Command::new(std::env::current_exe().map_err(unknown)?);
        command.args(["train", "--json", "--color=never"]).arg(&self.model).args(&self.flags);
        command.args(entry.flags(&self.select)).arg(format!("--seed={seed}"));
        command.arg("--out").arg(folder).args(self.force.then_some("--force"));
        command.stdin(Stdio::null());
        // What a run says matters only where it fails, or is asked for.
        command.stderr(if ui.is_verbose() { Stdio::inherit() } else { Stdio::piped() });
        Ok(command)
    }
}

/// Reads what a run has left.
fn finished(output: &Output, folder: &Path) -> Result<Finished, String> {
    if !output.status.success() {
        return Err(said(output));
    }
    let report: Json = serde_json::from_slice(&output.stdout).map_err(|e| format!("its report is unreadable: {e}"))?;
    let history = History::read(folder).map_err(|e| e.to_string())?;
    let number = |key: &str| report.get(key).and_then(Json::as_f64);
    Ok(Finished { history, seconds: number("seconds").unwrap_or(f64::NAN), peak_mb: number("rss_mb") })
}

/// The error that a process ended with, as it said it.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let error = text.find("error[").map(|at| text[at..].trim().to_string());
    error.unwrap_or_else(|| format!("`graft train` ended with {}", output.status))
}

/// How a run ended, in a line.
fn outcome(result: &Result<Finished, String>, keeps_best: bool) -> String {
    match result {
        Ok(run) => {
            let evaluation = run.history.kept(keeps_best).map(ToString::to_string);
            let loss = || run.history.final_loss().map_or_else(String::new, |loss| format!("loss {loss:.4}"));
            let rate = run.history.tokens_per_s().map_or(0, |rate| rate as u64);
            format!("{} · {} tokens/s · {:.1} s", evaluation.unwrap_or_else(loss), thousands(rate), run.seconds)
        }
        Err(error) => error.clone(),
    }
}
