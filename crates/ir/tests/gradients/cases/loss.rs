//! Losses.
use super::{Case, case};
use graft_ir::{Array, Attr, DType};

/// A label that does not count.
const IGNORED: i64 = -100;

pub(crate) const CASES: &[Case] = &[case("SoftmaxCrossEntropyLoss", |d| {
    let (samples, classes) = (d.positive(), d.positive());
    let positions = d.dims(0, 2);
    let logits = d.any(&[&[samples, classes], &positions[..]].concat());
    let mut labels = d.ints(&[&[samples], &positions[..]].concat(), 0, classes as i64);
    let ignores = d.coin();
    if let (true, Array { data: graft_ir::Data::Int(labels), .. }) = (ignores, &mut labels) {
        // The first label counts, so that the mean is one of something.
        labels.iter_mut().skip(1).step_by(2).for_each(|label| *label = IGNORED);
    }
    if d.coin() {
        labels.dtype = DType::Int32;
    }
    let reduction = d.one_of(&["mean", "sum", "none"]);
    let mut example = d.node().x(logits).fed(labels).with("reduction", Attr::Str(reduction.into()));
    if d.coin() {
        let weights = d.floats(&[classes], 0.2, 1.0);
        example = example.fed(weights);
    }
    let example = if ignores { example.int("ignore_index", IGNORED) } else { example };
    if d.coin() { example } else { example.results(&[true, false]) }
})];
