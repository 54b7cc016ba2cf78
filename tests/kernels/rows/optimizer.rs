//! Optimiser steps.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::{Attr, DType};

pub(super) const ROWS: &[Row] = &[("graft.AdamW", adamw), ("graft.Sgd", sgd)];

fn adamw(d: &mut Draw) -> Case {
    let dims = d.shape(3);
    let [p, g, m] = [(); 3].map(|()| d.floats(&dims, -2.0, 2.0));
    let (v, lr) = (d.floats(&dims, 0.0, 2.0), d.floats(&[], 0.0, 0.1));
    let of_step = if d.flip() { dims.clone() } else { Vec::new() };
    let step = d.ints(DType::Int64, &of_step, 1, 1000);
    let mut case = Case::new(Bound::Largest(2.0), [p, g, m, v, lr, step]).results(3);
    for (name, value) in [("beta1", 0.8), ("beta2", 0.95), ("epsilon", 1e-6), ("weight_decay", 0.1)] {
        case = if d.flip() { case.attr(name, Attr::Float(value)) } else { case };
    }
    case
}

fn sgd(d: &mut Draw) -> Case {
    let dims = d.shape(3);
    let (p, g) = (d.floats(&dims, -2.0, 2.0), d.floats(&dims, -2.0, 2.0));
    let case = Case::new(Bound::Largest(2.0), [p, g, d.floats(&[], 0.0, 0.5)]);
    if d.flip() { case.attr("weight_decay", Attr::Float(0.1)) } else { case }
}
