//! How a CUDA device does a kernel's work: a column of the table.
use crate::{
    Operands,
    cuda::{Plan, Site},
    elementwise::cuda as elementwise,
};

/// What a device does for one application of an op or function.
#[derive(Clone, Copy)]
pub struct Device {
    /// How it is done.
    pub work: Work,
    /// The operands that may be strided; others are made row-major before.
    pub strided: Operands,
    /// Pairs (operand, result): the result may overwrite the row-major operand of the same type and size.
    pub in_place: &'static [(usize, usize)],
    /// The operands and results that are of single precision even where the others have 16 bits.
    pub single: (Operands, Operands),
}

/// How a device does an op's or a function's work.
#[derive(Clone, Copy)]
pub enum Work {
    /// Not at all: the host has to.
    None,
    /// By launches that this function makes; `None` where they do not serve these types or sizes.
    Launches(fn(&Site<'_>) -> Option<Plan>),
    /// Element by element: neighbouring ops become one kernel.
    Map(elementwise::Expression),
}

impl Device {
    /// Nothing: the host has to do it.
    pub const NONE: Device = Device {
        work: Work::None,
        strided: Operands::None,
        in_place: &[],
        single: (Operands::None, Operands::None),
    };

    /// Launches that read row-major operands and overwrite none.
    pub const fn launches(plan: fn(&Site<'_>) -> Option<Plan>) -> Device {
        Device { work: Work::Launches(plan), ..Device::NONE }
    }
    /// Where these operands may be strided.
    pub const fn strided(mut self, operands: Operands) -> Device {
        self.strided = operands;
        self
    }
    /// Where these results may overwrite their operands.
    pub const fn in_place(mut self, pairs: &'static [(usize, usize)]) -> Device {
        self.in_place = pairs;
        self
    }
    /// Where these operands and results are of single precision whatever the others are.
    pub const fn single(mut self, operands: Operands, results: Operands) -> Device {
        self.single = (operands, results);
        self
    }
    /// Whether it does anything.
    pub fn is_any(&self) -> bool {
        !matches!(self.work, Work::None)
    }
    /// What it launches at `site`; `None` where it does not serve these types or sizes.
    pub fn plan(&self, site: &Site<'_>) -> Option<Plan> {
        match self.work {
            Work::None => None,
            Work::Launches(plan) => plan(site),
            Work::Map(expression) => elementwise::plan(expression, site),
        }
    }
}
