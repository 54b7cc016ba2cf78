//! Attention and its gradients, with heads of their own and with shared ones.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::{Array, Attr, Data};

pub(super) const ROWS: &[Row] = &[
    ("graft.Attention", |d| attention(d, 1, false)),
    ("graft.AttentionGrad", |d| attention(d, 1, true)),
    ("graft.GroupedAttention", |d| {
        let times = 1 + d.below(3);
        shared(attention(d, times, false), times)
    }),
    ("graft.GroupedAttentionGrad", |d| {
        let times = 1 + d.below(3);
        shared(attention(d, times, true), times)
    }),
];

/// Masks of any shape that broadcasts, some of which hide keys, and now and then all keys of a query; a gradient has `dy`
/// before all and the logarithms of divisors behind.
fn attention(d: &mut Draw, times: usize, is_gradient: bool) -> Case {
    let (batch, heads) = (1 + d.below(2), 1 + d.below(3));
    let [queries, keys, size, width] = [0; 4].map(|_| d.positive());
    let all = [batch, heads * times, queries, keys];
    let (q, k) = ([batch, heads * times, queries, size], [batch, heads, keys, size]);
    let bias = d.broadcast_of(&all);
    let bias = d.floats(&bias, -2.0, 2.0);
    let bias = if d.flip() { hiding(d, bias) } else { bias };
    let mut operands = vec![
        d.floats(&q, -3.0, 3.0),
        d.floats(&k, -3.0, 3.0),
        d.floats(&[batch, heads, keys, width], -1.0, 1.0),
        bias,
    ];
    if is_gradient {
        operands.insert(0, d.floats(&[batch, heads * times, queries, width], -1.0, 1.0));
        operands.push(d.floats(&[batch, heads * times, queries, 1], 2.0, 3.0));
    }
    // Each share errs by as much of itself as its score errs, a sum of `size` products that comes to 4.5 at most; its gradient
    // is of sums of `width` and of `keys`.
    let bound = Bound::Largest(16.0 + (5 * size + width + keys) as f64);
    let scale = 0.5 / size as f32;
    Case::new(bound, operands).results(if is_gradient { 3 } else { 2 }).attr("scale", Attr::Float(scale))
}

/// The mask with -∞ in some places.
fn hiding(d: &mut Draw, mut bias: Array) -> Array {
    if let Data::Float(elements) = &mut bias.data {
        elements.iter_mut().filter(|_| d.one_in(3)).for_each(|x| *x = f64::NEG_INFINITY);
    }
    bias
}

fn shared(case: Case, times: usize) -> Case {
    let queries = if case.results == 3 { 1 } else { 0 };
    let heads = case.operands[queries].as_ref().map_or(0, |q| q.dims[1]);
    case.attr("times", Attr::Ints(vec![times as i64])).attr("heads", Attr::Ints(vec![heads as i64]))
}
