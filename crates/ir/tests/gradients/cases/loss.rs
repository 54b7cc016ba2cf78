//! Losses.
use super::{Case, case};
use graft_ir::Attr;

pub(crate) const CASES: &[Case] = &[case("SoftmaxCrossEntropyLoss", |d| {
    let (samples, classes) = (d.positive(), d.positive());
    let positions: Vec<usize> = d.dims(0, 1);
    let logits = d.any(&[&[samples, classes], &positions[..]].concat());
    let labels = d.ints(&[&[samples], &positions[..]].concat(), 0, classes as i64);
    let reduction = d.one_of(&["none", "sum", "mean"]);
    // The mean over no label at all is not a number.
    let ignored = d.coin() && labels.ints().is_ok_and(|l| l.iter().any(|&label| label != 0));
    let example = d.node().x(logits).fed(labels).with("reduction", Attr::Str(reduction.into()));
    if ignored { example.int("ignore_index", 0) } else { example }
})];
