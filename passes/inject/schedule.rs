//! What a method decides in the course of a training: which ranks count, and the coefficients of its penalty.
use super::{Config, method::Coefficients};
use graft_ir::Result;

/// The decisions of a method, as pure functions: the same statistics always give the same decision.
pub struct Schedule {
    /// What holds before the first step.
    pub start: fn(&Course<'_>, adapters: &[Beginning]) -> Result<Control>,
    /// What holds after a step, given what held in it and, for each adapter, the elements of `graft.MStats`.
    pub decide: fn(&Course<'_>, &Control, statistics: &[Vec<f64>]) -> Result<Control>,
    /// Whether ranks that do not count stay as they are: neither trained nor decayed.
    pub holds: bool,
    /// The weight, a row for each rank or one row, that is set to 0 at ranks which do not count, after steps that say so.
    pub zeroes: Option<&'static str>,
}

/// An adapter before the first step.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Beginning {
    /// Its ranks, those that do not count included.
    pub width: usize,
    /// The elements of `graft.MStats`, as its weights are; empty where that takes gradients.
    pub statistics: Vec<f64>,
}

#[cfg(test)]
impl Beginning {
    /// An adapter of so many ranks of which nothing else matters.
    pub(super) fn wide(width: usize) -> Beginning {
        Beginning { width, statistics: Vec::new() }
    }
}

/// Where a training stands.
#[derive(Clone, Copy, Debug)]
pub struct Course<'a> {
    /// The settings.
    pub config: &'a Config,
    /// Steps made.
    pub step: u64,
    /// The steps of the whole training.
    pub total: u64,
    /// The learning rate of the last step.
    pub lr: f64,
}

/// What a schedule has decided.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Control {
    /// Coefficients, by the names of the inputs that `graft.MPenalty` and `graft.MBudget` have for them.
    pub scalars: Coefficients,
    /// The ranks of each adapter.
    pub layers: Vec<Ranks>,
    /// Whether what [`Schedule::zeroes`] names is set to 0 after this step.
    pub zeroes_now: bool,
}

/// The ranks of one adapter.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Ranks {
    /// Whether each counts.
    pub active: Vec<bool>,
    /// The step after which each began to.
    pub born: Vec<u64>,
    /// A number that the schedule compares the next statistics with.
    pub memory: f64,
}

impl Ranks {
    /// Of `width` ranks, the first `n` count from the beginning.
    pub fn first(n: usize, width: usize) -> Ranks {
        Ranks { active: (0..width).map(|i| i < n).collect(), born: vec![0; width], memory: 0.0 }
    }
    /// How many count.
    pub fn count(&self) -> usize {
        self.active.iter().filter(|active| **active).count()
    }
}

impl Control {
    /// How many ranks count in all adapters together.
    pub fn total(&self) -> usize {
        self.layers.iter().map(Ranks::count).sum()
    }
}
