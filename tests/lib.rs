//! What the suites share: file tests, seeded values for graphs, and the numeric judges.
pub mod case;
pub mod formula;
pub mod judge;
pub mod sample;
