//! Draws and dropout.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::{Array, Attr, DType};

pub(super) const ROWS: &[Row] = &[("graft.Dropout", dropout), ("graft.Uniform", uniform)];

/// Seed, step and tensor.
fn counters(d: &mut Draw) -> [Array; 3] {
    let mut number = |below: usize| Array::int(DType::Int64, vec![], vec![d.below(below) as i64]);
    [number(1 << 31), number(1 << 20), number(1 << 12)]
}

fn dropout(d: &mut Draw) -> Case {
    let dims = d.shape(3);
    let x = d.wild(&dims);
    let [seed, step, tensor] = counters(d);
    let threshold = d.pick(&[0, 1 << 28, 1 << 31, (1 << 32) - 1]);
    let case = Case::new(Bound::Own(1.0), [x, seed, step, tensor]).int("threshold", threshold);
    case.attr("scale", Attr::Float(d.pick(&[1.0, 1.25, 2.0])))
}

fn uniform(d: &mut Draw) -> Case {
    let sizes: Vec<i64> = d.shape(3).into_iter().map(|n| n as i64).collect();
    let [seed, step, tensor] = counters(d);
    Case::new(Bound::Exact, [seed, step, tensor, d.list(&sizes)])
}
