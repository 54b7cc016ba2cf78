//! The table of cases: for each op how an example is drawn.
use crate::{draw::Draw, example::Example};

mod activation;
mod arithmetic;
mod attention;
mod batch;
mod cast;
mod contrib;
mod index;
mod logic;
mod loss;
mod math;
mod matmul;
mod norm;
mod quantize;
mod rectifier;
mod reduce;
mod shape;
mod window;

/// One op with a way to draw a node of it.
pub(crate) struct Case {
    /// Op or function.
    pub(crate) op: &'static str,
    /// Draws a node at a point where it is differentiable.
    pub(crate) make: fn(&mut Draw) -> Example,
}

/// Shorthand for a line of a table.
const fn case(op: &'static str, make: fn(&mut Draw) -> Example) -> Case {
    Case { op, make }
}

/// All cases, by family as in the op table.
pub(crate) const FAMILIES: &[&[Case]] = &[
    activation::CASES,
    arithmetic::CASES,
    attention::CASES,
    batch::CASES,
    cast::CASES,
    contrib::CASES,
    index::CASES,
    logic::CASES,
    loss::CASES,
    math::CASES,
    matmul::CASES,
    norm::CASES,
    quantize::CASES,
    rectifier::CASES,
    reduce::CASES,
    shape::CASES,
    window::CASES,
];
