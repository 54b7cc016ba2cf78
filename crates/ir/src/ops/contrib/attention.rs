//! Attention, and the rotation of its positions: masks and operands brought into the form of ONNX's own `Attention`.
use super::{cut, element, is_set, operand, plus, refuse};
use crate::{
    Attr, Builder, Code, Error, Node, Result, Value,
    ops::attention::{attend, count_to, rotary_embedding},
};

/// What is added to the scores of keys that a mask hides, where the node does not say.
const HIDDEN: f64 = -10_000.0;

/// The number of heads, which must be given.
fn n_heads(node: &Node, attr: &str) -> Result<i64> {
    let missing = || Error::new(Code::ATTRIBUTE, format!("attribute `{attr}` is missing"));
    node.int(attr)?.filter(|&n| n > 0).ok_or_else(missing)
}

/// The size of the last axis, which must be a number.
pub(super) fn width(b: &Builder<'_>, x: Value) -> Result<i64> {
    let unknown =
        || Error::new(Code::TYPES, format!("the last size of `{}` must be a number", b.graph.name(x)));
    b.shape(x)?.last().and_then(crate::Dim::as_const).ok_or_else(unknown)
}

/// Operands x (batch, length, in), w (in, q + k + v), bias, mask, past, bias of the scores; results y and present.
pub(super) fn packed(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    if is_set(node, "do_rotary")? {
        return refuse("rotation within `Attention` (do_rotary)");
    }
    if node.input(6).is_some() || is_set(node, "past_present_share_buffer")? {
        return refuse("a past in a buffer of fixed size");
    }
    let (x, w) = (operand(node, 0)?, operand(node, 1)?);
    let product = b.matmul(x, w)?;
    let product = plus(b, product, node.input(2))?;
    let sizes = match node.ints("qkv_hidden_sizes")? {
        Some(sizes) => sizes.to_vec(),
        None => vec![width(b, w)? / 3; 3],
    };
    let parts = cut(b, product, &sizes)?;
    let [q, k, v] = parts[..] else { return refuse("other than three parts of a projection") };
    let past = match node.input(4) {
        Some(past) => Some((element(b, past, 0, 0)?, element(b, past, 0, 1)?)),
        None => None,
    };
    let call = Heads { q, k, v, past, mask: node.input(3), bias: node.input(5) };
    let results = call.attend(b, node)?;
    if node.output(1).is_none() {
        return Ok(results[..1].to_vec());
    }
    let (k, v) = (b.unsqueeze(results[1], &[0])?, b.unsqueeze(results[2], &[0])?);
    Ok(vec![results[0], b.concat("present", &[k, v], 0)?])
}

/// Operands q (batch, length, width), k and v, bias of all three, mask of keys, bias of the scores, past k, past v;
/// results y, present k, present v.
pub(super) fn multi_head(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let (q, k, v) = unpacked(b, node)?;
    if node.input(8).is_some() || node.input(9).is_some() {
        return refuse("a past in a buffer of fixed size");
    }
    if node.output(3).is_some() {
        return refuse("the scores as a result");
    }
    let (q, k, v) = match node.input(3) {
        Some(bias) => biased(b, bias, q, k, v)?,
        None => (q, k, v),
    };
    let past = node.input(6).zip(node.input(7));
    let call = Heads { q, k, v, past, mask: node.input(4), bias: node.input(5) };
    Ok(call.attend(b, node)?[..3].to_vec())
}

/// q, k and v, of which the last two, or all, may be parts of one operand (batch, length, heads, parts, size).
fn unpacked(b: &mut Builder<'_>, node: &Node) -> Result<(Value, Value, Value)> {
    let q = operand(node, 0)?;
    let mut part = |of: Value, at: i64| {
        let part = element(b, of, 3, at)?;
        let sizes = b.ints("sizes", &[0, 0, -1])?;
        b.op("unpacked", "Reshape", &[part, sizes])
    };
    match (node.input(1), node.input(2)) {
        (Some(k), Some(v)) => Ok((q, k, v)),
        (Some(both), None) => Ok((q, part(both, 0)?, part(both, 1)?)),
        (None, None) => Ok((part(q, 0)?, part(q, 1)?, part(q, 2)?)),
        (None, Some(_)) => refuse("values without keys"),
    }
}

/// q, k and v with their parts of the bias; keys and values that have an axis for the heads come from elsewhere and
/// have theirs.
fn biased(b: &mut Builder<'_>, bias: Value, q: Value, k: Value, v: Value) -> Result<(Value, Value, Value)> {
    let hidden = width(b, q)?;
    let rest = width(b, bias)? - 2 * hidden;
    let parts = cut(b, bias, &[hidden, hidden, rest])?;
    let mut add = |x: Value, part: Value| if b.shape(x)?.len() == 3 { b.add(x, part) } else { Ok(x) };
    Ok((add(q, parts[0])?, add(k, parts[1])?, add(v, parts[2])?))
}

/// What attention is of, each as ONNX's `Attention` takes it, and the mask as ONNX Runtime's ops do.
struct Heads {
    q: Value,
    k: Value,
    v: Value,
    past: Option<(Value, Value)>,
    /// Numbers of keys (batch), or which keys are seen: (batch, keys), (batch, queries, keys) or, of queries from the
    /// first on and at least as many keys as there are, (batch, 1, most, most).
    mask: Option<Value>,
    /// What is added to the scores.
    bias: Option<Value>,
}

impl Heads {
    /// y, present k and present v.
    fn attend(self, b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
        let hidden = node.float("mask_filter_value")?.map_or(HIDDEN, f64::from);
        let mask = self.mask.map(|mask| self.additive(b, mask, hidden)).transpose()?;
        let bias = match (mask, self.bias) {
            (Some(mask), Some(bias)) => Some(b.add(mask, bias)?),
            (mask, bias) => mask.or(bias),
        };
        let heads = n_heads(node, "num_heads")?;
        let mut call = Node::new("Attention", &[self.q, self.k, self.v], &[])
            .with("q_num_heads", Attr::Int(heads))
            .with("kv_num_heads", Attr::Int(heads));
        let past = self.past.map_or([None, None], |(k, v)| [Some(k), Some(v)]);
        call.inputs.extend([bias, past[0], past[1]]);
        if let Some(scale) = node.float("scale")?.filter(|&scale| scale != 0.0) {
            call = call.with("scale", Attr::Float(scale));
        }
        if is_set(node, "unidirectional")? {
            call = call.with("is_causal", Attr::Int(1));
        }
        // A mask hides keys by a finite number, and from causality alone the first key is never hidden.
        attend(b, &call, false)
    }

    /// 0 for keys that the mask shows and `hidden` for the others: (batch, 1, queries or 1, keys).
    fn additive(&self, b: &mut Builder<'_>, mask: Value, hidden: f64) -> Result<Value> {
        let set = |b: &mut Builder<'_>, mask: Value| {
            let zero = b.scalar_like("zero", 0.0, mask)?;
            b.op("seen", "Greater", &[mask, zero])
        };
        let seen = match b.shape(mask)?.len() {
            1 => self.below_length(b, mask)?,
            rank @ (2 | 3) => {
                let seen = set(b, mask)?;
                b.unsqueeze(seen, if rank == 2 { &[1, 2] } else { &[1] })?
            }
            4 => {
                let own = self.of_own_places(b, mask)?;
                set(b, own)?
            }
            rank => return refuse(&format!("a mask of rank {rank}")),
        };
        let (shown, hidden) =
            (b.scalar_like("shown", 0.0, self.q)?, b.scalar_like("hidden", hidden, self.q)?);
        b.op("mask", "Where", &[seen, shown, hidden])
    }

    /// The number of keys before those of this call, if there are any, and with them.
    fn n_keys(&self, b: &mut Builder<'_>) -> Result<(Option<Value>, Value)> {
        let axis = if b.shape(self.k)?.len() == 3 { 1 } else { 2 };
        let n = b.size_of(self.k, axis)?;
        let Some((past, _)) = self.past else { return Ok((None, n)) };
        let before = b.size_of(past, 2)?;
        Ok((Some(before), b.add(before, n)?))
    }

    /// Which keys come before each row's length.
    fn below_length(&self, b: &mut Builder<'_>, lengths: Value) -> Result<Value> {
        if b.shape(lengths)?[0].never_equals(&b.shape(self.q)?[0]) {
            return refuse("a mask of first and last places");
        }
        let (_, n) = self.n_keys(b)?;
        let places = count_to(b, n)?;
        let places = b.cast_like(places, lengths)?;
        let lengths = b.unsqueeze(lengths, &[1, 2, 3])?;
        b.op("seen", "Less", &[places, lengths])
    }

    /// The part of a mask of all places that is of the queries, whose places follow the past, and the keys.
    fn of_own_places(&self, b: &mut Builder<'_>, mask: Value) -> Result<Value> {
        let (before, n) = self.n_keys(b)?;
        let zero = b.ints("first", &[0])?;
        let (first, axes) = (before.unwrap_or(zero), b.ints("axes", &[2, 3])?);
        let (from, to) = (b.concat("from", &[first, zero], 0)?, b.concat("to", &[n, n], 0)?);
        b.op("own", "Slice", &[mask, from, to, axes])
    }
}

/// Operands x, places (the first one, or (batch, length)), cosines and sines (places, pairs).
pub(super) fn rotary(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    if is_set(node, "is_packed_batching")? {
        return refuse("a packed batch");
    }
    if node.float("scale")?.is_some_and(|scale| scale != 1.0) {
        return refuse("a factor of the rotation");
    }
    let (x, places, cos) = (operand(node, 0)?, operand(node, 1)?, operand(node, 2)?);
    let is_joined = b.shape(x)?.len() == 3;
    let places = if b.shape(places)?.len() == 1 {
        let n = b.size_of(x, if is_joined { 1 } else { 2 })?;
        let counted = count_to(b, n)?;
        let places = b.add(counted, places)?;
        let places = b.unsqueeze(places, &[0])?;
        for_each_row(b, places, x)?
    } else {
        places
    };
    let mut call = Node::new("RotaryEmbedding", &[x, cos, operand(node, 3)?, places], &[])
        .with("interleaved", Attr::Int(is_set(node, "interleaved")?.into()));
    let turned = node.int("rotary_embedding_dim")?.unwrap_or(0);
    if turned > 0 {
        call = call.with("rotary_embedding_dim", Attr::Int(turned));
    }
    if is_joined {
        let heads = match node.int("num_heads")?.filter(|&n| n > 0) {
            Some(heads) => heads,
            None => width(b, x)? / (2 * width(b, cos)?).max(1),
        };
        call = call.with("num_heads", Attr::Int(heads));
    }
    rotary_embedding(b, &call)
}

/// `places` (1, length) for each row of the batch of `x`.
fn for_each_row(b: &mut Builder<'_>, places: Value, x: Value) -> Result<Value> {
    let (batch, one) = (b.size_of(x, 0)?, b.ints("one", &[1])?);
    let sizes = b.concat("sizes", &[batch, one], 0)?;
    b.op("places", "Expand", &[places, sizes])
}
