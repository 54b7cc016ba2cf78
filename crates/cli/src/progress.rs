//! The progress of a training run: a bar on a terminal, plain lines otherwise.
use crate::ui::{self, Ui};
use graft_train::{Evaluation, Observer, StepMetrics};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::ops::ControlFlow;

/// Shows a run to the user.
pub(crate) struct Progress {
    /// For the steps.
    ui: Ui,
    /// For everything else.
    notes: Ui,
    bar: ProgressBar,
    /// Without a terminal, lines about single steps are written at most this often over a run.
    lines: u64,
    total: u64,
}

impl Progress {
    pub(crate) fn new(ui: &Ui) -> Progress {
        Progress::with(*ui, *ui, 20)
    }
    /// One that leaves it to the caller to say what the run is about and how it ended.
    pub(crate) fn terse(ui: &Ui) -> Progress {
        Progress::with(*ui, ui.quieter(), 5)
    }
    fn with(ui: Ui, notes: Ui, lines: u64) -> Progress {
        let target =
            if ui.draws_progress() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Progress { ui, notes, bar: ProgressBar::with_draw_target(None, target), lines, total: 0 }
    }
    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
    fn line(&self, text: &str) {
        self.bar.suspend(|| self.notes.say(text));
    }
}

/// What is prepared, not run: there are notes and no steps.
impl Observer for Ui {
    fn note(&mut self, line: &str) {
        self.say(line);
    }
}

impl Observer for Progress {
    fn note(&mut self, line: &str) {
        self.line(line);
    }
    fn pass(&mut self, step: &graft_passes::Step<'_>) {
        let nodes = step.after.nodes.len();
        self.ui.detail(&format!(
            "{:>9.3} ms  {} ({nodes} nodes)",
            step.elapsed.as_secs_f64() * 1e3,
            step.name
        ));
    }
    fn started(&mut self, done: u64, total: u64) {
        self.total = total;
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} · {eta} left");
        self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.reset_eta();
    }
    fn step(&mut self, metrics: &StepMetrics) -> ControlFlow<()> {
        let rate = ui::thousands(metrics.tokens_per_s as u64);
        let text = format!("loss {:.4} · {rate} tokens/s", metrics.loss);
        self.bar.set_position(metrics.step);
        self.bar.set_message(text.clone());
        let every = self.total.div_ceil(self.lines).max(1);
        if self.bar.is_hidden() && (metrics.step.is_multiple_of(every) || metrics.step == self.total) {
            self.ui.say(&format!("step {}/{} · {text}", metrics.step, self.total));
        }
        ControlFlow::Continue(())
    }
    fn evaluation(&mut self, evaluation: &Evaluation) {
        self.line(&format!("step {} · {evaluation}", evaluation.step));
    }
}
