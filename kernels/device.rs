//! How a CUDA device does a kernel's work: a column of the table.
use crate::{
    Operands,
    cuda::{Plan, Site},
};

/// What a device launches for one application of an op or function.
#[derive(Clone, Copy)]
pub struct Device {
    /// Makes its launches, if it has any; `None` where they do not serve these types or sizes.
    pub plan: Option<fn(&Site<'_>) -> Option<Plan>>,
    /// The operands that may be strided; others are made row-major before.
    pub strided: Operands,
    /// Pairs (operand, result): the result may overwrite the row-major operand of the same type and size.
    pub in_place: &'static [(usize, usize)],
}

impl Device {
    /// Nothing: the host has to do it.
    pub const NONE: Device = Device { plan: None, strided: Operands::None, in_place: &[] };

    /// Launches that read row-major operands and overwrite none.
    pub const fn launches(plan: fn(&Site<'_>) -> Option<Plan>) -> Device {
        Device { plan: Some(plan), strided: Operands::None, in_place: &[] }
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
}
