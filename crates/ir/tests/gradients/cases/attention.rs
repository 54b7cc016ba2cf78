//! Attention and the rotation of its positions.
use super::{Case, case};
use crate::{draw::Draw, example::Example};
use graft_ir::{Array, Attr, DType};

pub(crate) const CASES: &[Case] = &[
    case("Attention", |d| attention(d, true)),
    case("Attention", |d| attention(d, false)),
    case("RotaryEmbedding", rotary_embedding),
    case("graft.Rotary", |d| {
        let (mut dims, half) = (d.dims(0, 3), d.positive());
        dims.push(2 * half);
        let x = d.any(&dims);
        let mut angles = d.narrowed(&dims);
        angles.pop();
        angles.push(2 * half);
        let (cos, sin) = (d.any(&angles), d.any(&angles));
        d.node().x(x).x(cos).x(sin).with("half", Attr::Ints(vec![half as i64]))
    }),
];

/// With or without heads of their own axis, shared keys, masks of both kinds, a past, a cap, and causality.
fn attention(d: &mut Draw, is_joined: bool) -> Example {
    let (batch, kv_heads, times) = (d.positive().min(2), 1 + d.below(2), 1 + d.below(2));
    let (queries, keys, size) = (d.positive().min(3), d.positive().min(3), 1 + d.below(2));
    let shape = |heads: usize, n: usize| match is_joined {
        true => vec![batch, n, heads * size],
        false => vec![batch, heads, n, size],
    };
    let [q, k, v] =
        [(kv_heads * times, queries), (kv_heads, keys), (kv_heads, keys)].map(|(h, n)| d.any(&shape(h, n)));
    let past = if d.coin() { 1 + d.below(2) } else { 0 };
    let mask = [queries, keys + past];
    let mut example = d.with_known_sizes().node().x(q).x(k).x(v);
    example = match d.below(3) {
        0 => example.absent(),
        1 => example.x(d.any(&mask)),
        _ => example.fed(d.bools(&mask)),
    };
    if past > 0 {
        let dims = [batch, kv_heads, past, size];
        example = example.x(d.any(&dims)).x(d.any(&dims));
    }
    if is_joined {
        example = example.int("q_num_heads", (kv_heads * times) as i64).int("kv_num_heads", kv_heads as i64);
    }
    if d.coin() {
        example = example.int("is_causal", 1);
    }
    if d.coin() {
        example = example.with("softcap", Attr::Float(1.5)).with("scale", Attr::Float(0.75));
    }
    example
}

/// The whole head or its beginning, in halves or interleaved, with angles of each place or of a table.
fn rotary_embedding(d: &mut Draw) -> Example {
    let (batch, heads, n) = (d.positive().min(2), 1 + d.below(2), d.positive().min(3));
    let (pairs, rest) = (1 + d.below(2), 2 * d.below(2));
    let size = 2 * pairs + rest;
    let is_joined = d.coin();
    let x = d.any(&if is_joined { vec![batch, n, heads * size] } else { vec![batch, heads, n, size] });
    let from_table = d.coin();
    let angles = if from_table { vec![5, pairs] } else { vec![batch, n, pairs] };
    let (cos, sin) = (d.any(&angles), d.any(&angles));
    let mut example = d.with_known_sizes().node().x(x).x(cos).x(sin);
    if from_table {
        let places: Array = d.ints(&[batch, n], 0, 5);
        example = example.fed(Array { dtype: DType::Int64, ..places });
    }
    if rest > 0 {
        example = example.int("rotary_embedding_dim", 2 * pairs as i64);
    }
    if is_joined {
        example = example.int("num_heads", heads as i64);
    }
    let interleaved = d.coin();
    example.int("interleaved", interleaved.into())
}
