//! Cross-entropy and its gradients.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::{Array, Attr, DType, Data};

pub(super) const ROWS: &[Row] = &[
    ("SoftmaxCrossEntropyLoss", cross_entropy),
    ("graft.CrossEntropyGrad", cross_entropy_grad),
    ("graft.CrossEntropyRows", cross_entropy_rows),
];

/// The exponent of each class is rounded, which costs its term a rounding for each unit that logits are apart (12); where
/// one class has almost all, its gradient is the sum of the other terms.
const GRADIENT: Bound = Bound::Largest(16.0);

/// Logits (samples, classes, positions…) and the sizes of their labels.
fn logits(d: &mut Draw) -> (Array, Vec<usize>, usize) {
    let n_axes = 1 + d.below(3);
    let mut sizes = d.sizes(n_axes);
    let classes = d.positive();
    while sizes.iter().product::<usize>() * classes > 40_000 {
        sizes.iter_mut().for_each(|n| *n = n.div_ceil(2));
    }
    let labels = sizes.clone();
    sizes.insert(1, classes);
    (d.floats(&sizes, -6.0, 6.0), labels, classes)
}

/// Labels, some of them `ignored`; now and then all of them.
fn labels(d: &mut Draw, dims: &[usize], classes: usize, ignored: Option<i64>) -> Array {
    let dtype = d.pick(&[DType::Int32, DType::Int64]);
    let often = if d.one_in(6) { 1 } else { 3 };
    let data = (0..dims.iter().product()).map(|_| match ignored {
        Some(label) if d.one_in(often) => label,
        _ => d.below(classes) as i64,
    });
    let data = data.collect();
    Array::int(dtype, dims.to_vec(), data)
}

/// The label that does not count, no class or one.
fn ignored(d: &mut Draw) -> i64 {
    d.pick(&[-100, -1, 0])
}

fn cross_entropy(d: &mut Draw) -> Case {
    let (x, sizes, classes) = logits(d);
    let index = d.flip().then(|| ignored(d));
    let labels = labels(d, &sizes, classes, index);
    let reduction = d.pick(&["mean", "sum"]);
    // Each term errs by the rounding of its exponentials.
    let terms = if reduction == "sum" { labels.len().max(1) as f64 } else { 1.0 };
    let case = Case::new(Bound::Unit(4.0 * terms), [x, labels]).opset(d.pick(&[12, 13, 18])).results(2);
    let case = case.attr("reduction", Attr::Str(reduction.into()));
    index.into_iter().fold(case, |case, index| case.int("ignore_index", index))
}

fn cross_entropy_grad(d: &mut Draw) -> Case {
    let (x, sizes, classes) = logits(d);
    let index = d.flip().then(|| ignored(d));
    // Without the attribute the body's default counts.
    let labels = labels(d, &sizes, classes, index.or(Some(-100)));
    let case = Case::new(GRADIENT, [d.floats(&[], -2.0, 2.0), x, labels]);
    index.into_iter().fold(case, |case, index| case.int("ignore_index", index))
}

fn cross_entropy_rows(d: &mut Draw) -> Case {
    let (x, sizes, classes) = logits(d);
    let labels = labels(d, &sizes, classes, Some(-100));
    let mut share = d.floats(&sizes, -2.0, 2.0);
    if let (Data::Float(shares), Ok(labels)) = (&mut share.data, labels.ints()) {
        shares.iter_mut().zip(labels).filter(|(_, l)| **l < 0).for_each(|(s, _)| *s = 0.0);
    }
    Case::new(GRADIENT, [share, x, labels])
}
