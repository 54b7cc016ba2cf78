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
    // Now and then more than a tile of each.
    let [queries, keys] = [0; 2].map(|_| if d.one_in(3) { 33 + d.below(70) } else { d.positive() });
    let [size, width] = [0; 2].map(|_| d.positive());
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
    // is of sums of `width` and of `keys`, and adds to sums over keys and over queries. Those of a gradient cancel.
    let roundings = (16 + 5 * size + width + keys) as f64;
    let bound = match is_gradient {
        true => Bound::Made(roundings + (queries * times) as f64, magnitudes),
        false => Bound::Largest(roundings),
    };
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

/// What the elements of dq, dk and dv are sums of, signs aside: the largest of each.
fn magnitudes(case: &Case) -> Vec<f64> {
    let operand = |i: usize| case.operands[i].as_ref().expect("an operand");
    let [dy, q, k, v, bias, lse] = [0, 1, 2, 3, 4, 5].map(operand);
    let &[batch, heads, queries, size] = q.dims.as_slice() else { unreachable!("q has rank 4") };
    let [shared, keys, width] = [k.dims[1], k.dims[2], v.dims[3]];
    let scale =
        case.attrs.iter().find_map(|(_, a)| if let Attr::Float(s) = a { Some(f64::from(*s)) } else { None });
    let scale = scale.expect("a scale");
    let mut largest_dq = 0f64;
    let mut dk = vec![0.0; batch * shared * keys * size];
    let mut dv = vec![0.0; batch * shared * keys * width];
    for [b, h, i] in indices([batch, heads, queries]) {
        let of = h / (heads / shared);
        let score = |j| scale * (0..size).map(|c| at(q, [b, h, i, c]) * at(k, [b, of, j, c])).sum::<f64>();
        let share = |j| (score(j) + at(bias, [b, h, i, j]) - at(lse, [b, h, i, 0])).exp();
        let p: Vec<f64> = (0..keys).map(share).collect();
        let back = |j| (0..width).map(|c| (at(dy, [b, h, i, c]) * at(v, [b, of, j, c])).abs()).sum::<f64>();
        let dp: Vec<f64> = (0..keys).map(back).collect();
        let along: f64 = p.iter().zip(&dp).map(|(p, d)| p * d).sum();
        let ds: Vec<f64> = p.iter().zip(&dp).map(|(p, d)| scale * p * (d + along)).collect();
        for c in 0..size {
            let dq: f64 = ds.iter().enumerate().map(|(j, ds)| ds * at(k, [b, of, j, c]).abs()).sum();
            largest_dq = largest_dq.max(dq);
        }
        for j in 0..keys {
            let row = (b * shared + of) * keys + j;
            (0..size).for_each(|c| dk[row * size + c] += ds[j] * at(q, [b, h, i, c]).abs());
            (0..width).for_each(|c| dv[row * width + c] += p[j] * at(dy, [b, h, i, c]).abs());
        }
    }
    let largest = |of: Vec<f64>| of.into_iter().fold(0.0, f64::max);
    vec![largest_dq, largest(dk), largest(dv)]
}

fn indices([a, b, c]: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..a * b * c).map(move |i| [i / (b * c), i / c % b, i % c])
}

/// An element of a tensor that broadcasts to four axes.
fn at(array: &Array, index: [usize; 4]) -> f64 {
    let own = &index[4 - array.dims.len()..];
    let place = array.dims.iter().zip(own).fold(0, |at, (&d, &i)| at * d + if d == 1 { 0 } else { i });
    array.floats().expect("floats")[place]
}
