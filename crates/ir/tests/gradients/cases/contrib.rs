//! Ops of ONNX Runtime's optimiser.
use super::{Case, case};
use crate::{draw::Draw, example::Example};
use graft_ir::{Array, Attr, DType};

pub(crate) const CASES: &[Case] = &[
    case("com.microsoft.Attention", packed),
    case("com.microsoft.BiasGelu", |d| biased(d, true)),
    case("com.microsoft.EmbedLayerNormalization", embedding),
    case("com.microsoft.FastGelu", |d| {
        let given = d.coin();
        biased(d, given)
    }),
    case("com.microsoft.FusedGemm", |d| {
        let (m, k, n) = (d.positive(), d.positive(), d.positive());
        let example = d.node().x(d.any(&[m, k])).x(d.any(&[n, k])).x(d.any(&[n])).int("transB", 1);
        let name = d.one_of(&["Tanh", "Sigmoid", "Softplus"]);
        example.with("activation", Attr::Str(name.into()))
    }),
    case("com.microsoft.FusedMatMul", fused_matmul),
    case("com.microsoft.Gelu", |d| d.unary(Draw::any)),
    case("com.microsoft.GroupQueryAttention", group_query),
    case("com.microsoft.MultiHeadAttention", multi_head),
    case("com.microsoft.QuickGelu", |d| d.unary(Draw::any).with("alpha", Attr::Float(0.75))),
    case("com.microsoft.RotaryEmbedding", rotary),
    case("com.microsoft.SkipLayerNormalization", |d| skip(d, 2)),
    case("com.microsoft.SkipSimplifiedLayerNormalization", |d| skip(d, 1)),
    case("SimplifiedLayerNormalization", |d| {
        let (mut dims, width) = (d.dims(0, 2), 1 + d.positive());
        dims.push(width);
        d.node().x(d.any(&dims)).x(d.any(&[width])).with("epsilon", Attr::Float(0.125))
    }),
];

/// x, and a bias of its last axis.
fn biased(d: &mut Draw, given: bool) -> Example {
    let mut dims = d.dims(0, 2);
    dims.push(d.positive());
    let (x, bias) = (d.any(&dims), d.any(&dims[dims.len() - 1..]));
    if given { d.node().x(x).x(bias) } else { d.node().x(x) }
}

/// Matrices with or without batch axes, each turned so that the product fits.
fn fused_matmul(d: &mut Draw) -> Example {
    let (m, k, n) = (d.positive(), d.positive(), d.positive());
    let batch: Vec<usize> = (0..d.below(3)).map(|_| d.positive()).collect();
    let operand = |d: &mut Draw, rows: usize, columns: usize| {
        let (last, front) = (d.coin(), d.coin());
        let mut dims = batch.clone();
        dims.extend(if last { [columns, rows] } else { [rows, columns] });
        if front && dims.len() > 2 {
            let end = dims.len() - 1;
            dims[..end].rotate_right(1);
        }
        (d.any(&dims), i64::from(last), i64::from(front))
    };
    let (a, trans_a, batch_a) = operand(d, m, k);
    let (b, trans_b, batch_b) = operand(d, k, n);
    let example = d.node().x(a).x(b).with("alpha", Attr::Float(0.5));
    let turned = example.int("transA", trans_a).int("transB", trans_b);
    turned.int("transBatchA", batch_a).int("transBatchB", batch_b)
}

/// A sum and its norm, with `n` optional biases; the sum is read too now and then.
fn skip(d: &mut Draw, n: usize) -> Example {
    let (mut dims, width) = (vec![d.positive(), d.positive()], 2 + d.below(3));
    dims.push(width);
    let mut example = d.node().x(d.any(&dims)).x(d.any(&dims)).x(d.any(&[width]));
    for _ in 0..n {
        example = if d.coin() { example.x(d.any(&[width])) } else { example.absent() };
    }
    let reads_sum = d.coin();
    example.with("epsilon", Attr::Float(0.125)).results(&[true, false, false, reads_sum])
}

/// Tables of embeddings; ids are no numbers to differentiate by.
fn embedding(d: &mut Draw) -> Example {
    let (dims, width) = ([d.positive(), d.positive()], 2 + d.below(3));
    let (ids, segments) = (d.ints(&dims, 0, 4), d.ints(&dims, 0, 2));
    let example = d.with_known_sizes().node().fed(ids).fed(segments);
    let [words, places, types] = [4, 5, 2].map(|n| d.any(&[n, width]));
    let example = example.x(words).x(places).x(types).x(d.any(&[width])).x(d.any(&[width]));
    example.with("epsilon", Attr::Float(0.125)).results(&[true, false])
}

/// A projection and the attention behind it.
fn packed(d: &mut Draw) -> Example {
    let (batch, n, heads, size) = (d.positive().min(2), d.positive().min(3), 1 + d.below(2), 1 + d.below(2));
    let width = heads * size;
    let (x, w, bias) = (d.any(&[batch, n, 3]), d.any(&[3, 3 * width]), d.any(&[3 * width]));
    let mut example = d.with_known_sizes().node().x(x).x(w).x(bias);
    example = match d.below(3) {
        0 => example.absent(),
        1 => example.fed(narrow(d.ints(&[batch, n], 0, 2))),
        _ => example.fed(narrow(d.ints(&[batch], 1, 1 + n as i64))),
    };
    if d.coin() {
        example = example.absent().x(d.any(&[batch, heads, n, n]));
    }
    example = example.int("num_heads", heads as i64).with("mask_filter_value", Attr::Float(-2.0));
    if d.coin() { example.int("unidirectional", 1) } else { example }
}

/// Queries, keys and values with a bias, a mask of keys, a bias of scores and a past, or without.
fn multi_head(d: &mut Draw) -> Example {
    let (batch, heads, size) = (d.positive().min(2), 1 + d.below(2), 1 + d.below(2));
    let (queries, keys, width) = (d.positive().min(3), d.positive().min(3), heads * size);
    let [q, k, v] = [queries, keys, keys].map(|n| d.any(&[batch, n, width]));
    let past = if d.coin() { 1 + d.below(2) } else { 0 };
    let mut example = d.with_known_sizes().node().x(q).x(k).x(v);
    example = if d.coin() { example.x(d.any(&[3 * width])) } else { example.absent() };
    example = match d.below(3) {
        0 => example.absent(),
        1 => example.fed(narrow(d.ints(&[batch, keys + past], 0, 2))),
        _ => example.fed(narrow(d.ints(&[batch, queries, keys + past], 0, 2))),
    };
    example =
        if d.coin() { example.x(d.any(&[batch, heads, queries, keys + past])) } else { example.absent() };
    if past > 0 {
        let dims = [batch, heads, past, size];
        example = example.x(d.any(&dims)).x(d.any(&dims));
    }
    example = example.int("num_heads", heads as i64).with("mask_filter_value", Attr::Float(-2.0));
    if d.coin() { example.int("unidirectional", 1) } else { example.with("scale", Attr::Float(0.75)) }
}

/// Two heads of queries for each of keys and values, side by side or not, turned or not, with a past or without.
fn group_query(d: &mut Draw) -> Example {
    let (batch, n, shared, size) = (d.positive().min(2), d.positive().min(3), 1 + d.below(2), 2);
    let (of_q, of_k) = (2 * shared * size, shared * size);
    let (is_packed, room, is_turned) = (d.coin(), if d.coin() { 3 } else { 0 }, d.coin());
    let q = d.any(&[batch, n, if is_packed { of_q + 2 * of_k } else { of_q }]);
    let mut example = d.with_known_sizes().node().x(q);
    for _ in 0..2 {
        example = if is_packed { example.absent() } else { example.x(d.any(&[batch, n, of_k])) };
    }
    for _ in 0..2 {
        example = if room > 0 { example.x(d.any(&[batch, shared, room, size])) } else { example.absent() };
    }
    let most = n + room;
    let lengths = narrow(d.ints(&[batch], n as i64 - 1, most as i64));
    example = example.fed(lengths).fed(narrow(Array::int(DType::Int64, vec![], vec![most as i64])));
    for _ in 0..2 {
        example = if is_turned { example.x(d.any(&[8, size / 2])) } else { example.absent() };
    }
    example = example.int("num_heads", 2 * shared as i64).int("kv_num_heads", shared as i64);
    example = example.int("do_rotary", is_turned.into());
    match d.below(3) {
        0 => example.int("local_window_size", 2),
        1 => example.with("softcap", Attr::Float(0.75)),
        _ => example.with("scale", Attr::Float(0.75)),
    }
}

/// Places are `int32` in these ops.
fn narrow(ints: Array) -> Array {
    Array { dtype: DType::Int32, ..ints }
}

/// Heads with or without an axis of their own, from a first place on or at places.
fn rotary(d: &mut Draw) -> Example {
    let (batch, heads, n) = (d.positive().min(2), 1 + d.below(2), d.positive().min(3));
    let pairs = 1 + d.below(2);
    let is_joined = d.coin();
    let x =
        d.any(&if is_joined { vec![batch, n, 2 * pairs * heads] } else { vec![batch, heads, n, 2 * pairs] });
    let places = if d.coin() { d.ints(&[1], 0, 3) } else { d.ints(&[batch, n], 0, 5) };
    let (cos, sin) = (d.any(&[8, pairs]), d.any(&[8, pairs]));
    let interleaved = d.coin();
    d.with_known_sizes().node().x(x).fed(places).x(cos).x(sin).int("interleaved", interleaved.into())
}
