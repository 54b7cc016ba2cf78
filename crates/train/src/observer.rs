//! What a run tells whoever started it.
use crate::metrics::{Evaluation, StepMetrics};
use graft_passes::Step;
use std::ops::ControlFlow;

/// Receives the events of a run. The library prints nothing.
pub trait Observer {
    /// One line that a user may want to know: what was matched, what is ignored, what falls back.
    fn note(&mut self, _line: &str) {}
    /// A pass has run.
    fn pass(&mut self, _step: &Step<'_>) {}
    /// The first step is about to be made; `done` steps were made by the run that is resumed.
    fn started(&mut self, _done: u64, _total: u64) {}
    /// A step was made. `Break` ends the run as SIGINT does: the state is saved.
    fn step(&mut self, _metrics: &StepMetrics) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    /// An evaluation was made.
    fn evaluation(&mut self, _evaluation: &Evaluation) {}
}

/// Hears nothing.
pub struct Silent;

impl Observer for Silent {}
