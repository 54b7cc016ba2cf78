//! Normalisation over rows: layer norm, softmax, and their gradients.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::Attr;

pub(super) const ROWS: &[Row] = &[
    ("LayerNormalization", layer_normalization),
    ("graft.LayerNorm", layer_norm),
    ("graft.LayerNormGrad", layer_norm_grad),
    ("LogSoftmax", |d| softmax(d, Bound::Unit(4.0))),
    ("Softmax", |d| softmax(d, Bound::Largest(4.0))),
    ("graft.RmsNorm", rms_norm),
    ("graft.RmsNormGrad", rms_norm_grad),
    ("graft.SoftmaxGrad", softmax_grad),
];

fn layer_normalization(d: &mut Draw) -> Case {
    let rank = 1 + d.below(3);
    let (dims, axis) = (d.sizes(rank), d.axis(rank));
    let row = dims[axis.rem_euclid(rank as i64) as usize..].to_vec();
    let mut operands = vec![d.floats(&dims, -3.0, 3.0), d.floats(&row, -2.0, 2.0)];
    if d.flip() {
        operands.push(d.floats(&row, -2.0, 2.0));
    }
    let case = Case::new(Bound::Largest(2.0), operands).results(3).int("axis", axis);
    if d.flip() { case.attr("epsilon", Attr::Float(1e-3)) } else { case }
}

fn layer_norm(d: &mut Draw) -> Case {
    let rank = 1 + d.below(3);
    let dims = d.sizes(rank);
    let row = [dims[rank - 1]];
    let operands = [d.floats(&dims, -3.0, 3.0), d.floats(&row, -2.0, 2.0), d.floats(&row, -2.0, 2.0)];
    let case = Case::new(Bound::Largest(2.0), operands).results(3);
    if d.flip() { case.attr("epsilon", Attr::Float(1e-12)) } else { case }
}

fn layer_norm_grad(d: &mut Draw) -> Case {
    let rank = 1 + d.below(3);
    let dims = d.sizes(rank);
    let (row, mut moments) = ([dims[rank - 1]], dims.clone());
    moments[rank - 1] = 1;
    let operands = [
        d.floats(&dims, -1.0, 1.0),
        d.floats(&dims, -3.0, 3.0),
        d.floats(&row, -2.0, 2.0),
        d.floats(&row, -2.0, 2.0),
        d.floats(&moments, -1.0, 1.0),
        d.floats(&moments, 0.1, 2.0),
    ];
    Case::new(Bound::Largest(2.0), operands).results(3)
}

fn rms_norm(d: &mut Draw) -> Case {
    let rank = 1 + d.below(3);
    let dims = d.sizes(rank);
    let operands = [d.floats(&dims, -3.0, 3.0), d.floats(&dims[rank - 1..], -2.0, 2.0)];
    let case = Case::new(Bound::Largest(2.0), operands).results(2);
    if d.flip() { case.attr("epsilon", Attr::Float(1e-12)) } else { case }
}

fn rms_norm_grad(d: &mut Draw) -> Case {
    let rank = 1 + d.below(3);
    let dims = d.sizes(rank);
    let mut roots = dims.clone();
    roots[rank - 1] = 1;
    let operands = [
        d.floats(&dims, -1.0, 1.0),
        d.floats(&dims, -3.0, 3.0),
        d.floats(&dims[rank - 1..], -2.0, 2.0),
        d.floats(&roots, 0.1, 2.0),
    ];
    Case::new(Bound::Largest(2.0), operands).results(2)
}

fn softmax(d: &mut Draw, bound: Bound) -> Case {
    let rank = 1 + d.below(4);
    let (dims, axis) = (d.sizes(rank), d.axis(rank));
    let case = Case::new(bound, [d.floats(&dims, -20.0, 20.0)]).opset(d.pick(&[11, 13, 18]));
    // The default differs between opsets.
    if d.one_in(4) && rank > 1 { case } else { case.int("axis", axis) }
}

fn softmax_grad(d: &mut Draw) -> Case {
    let rank = 1 + d.below(4);
    let (dims, axis) = (d.sizes(rank), d.axis(rank));
    let case = Case::new(Bound::Largest(2.0), [d.floats(&dims, -2.0, 2.0), d.floats(&dims, 0.0, 1.0)]);
    if d.one_in(4) { case } else { case.int("axis", axis) }
}
