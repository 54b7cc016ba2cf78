//! Generators: for each kernel's name how a case of it is drawn.
mod adapter;
mod attention;
mod elementwise;
mod index;
mod loss;
mod matmul;
mod movement;
mod norm;
mod optimizer;
mod random;
mod reduce;
mod rotary;
mod search;
mod window;

use crate::{case::Case, draw::Draw};

/// A kernel's name, and how a case of it is drawn.
pub(crate) type Row = (&'static str, fn(&mut Draw) -> Case);

const FAMILIES: &[&[Row]] = &[
    adapter::ROWS,
    attention::ROWS,
    elementwise::ROWS,
    index::ROWS,
    loss::ROWS,
    matmul::ROWS,
    movement::ROWS,
    norm::ROWS,
    optimizer::ROWS,
    random::ROWS,
    reduce::ROWS,
    rotary::ROWS,
    search::ROWS,
    window::ROWS,
];

/// Whether a kernel is one of an adapter's.
pub(crate) fn is_of_adapter(name: &str) -> bool {
    adapter::ROWS.iter().any(|(row, _)| *row == name)
}

/// Every generator.
pub(crate) fn all() -> impl Iterator<Item = Row> {
    FAMILIES.iter().copied().flatten().copied()
}
