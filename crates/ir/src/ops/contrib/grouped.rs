//! `GroupQueryAttention`: several heads of queries share one of keys and values, positions may be turned within, and what
//! was kept of earlier calls lies in a buffer of which each row says how much is real.
use super::{attention::width, cut, is_set, operand, refuse};
use crate::{
    Attr, Builder, Code, DType, Dim, Error, Node, Result, Value,
    ops::attention::{attend, count_to, join_heads, rotary_embedding, split_heads},
};

/// Operands q (batch, length, heads · size) or q, k and v side by side, k, v, past k, past v, (batch) lengths with the
/// new keys minus one, the largest such length, cosines and sines (places, pairs), places (batch, length), bias of the
/// scores; results y, present k, present v.
pub(super) fn group_query(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    refuse_unknown(node)?;
    let past = match (node.input(3), node.input(4)) {
        (Some(k), Some(v)) if b.shape(k)?.get(2).and_then(Dim::as_const) != Some(0) => Some((k, v)),
        _ => None,
    };
    let [q, k, v] = operands(b, node)?;
    let call = Grouped { q, past, before: before(b, node, q)? };
    let (q, k) = match is_set(node, "do_rotary")? {
        true => {
            let places = call.places(b, node)?;
            (turned(b, node, q, places)?, turned(b, node, k, places)?)
        }
        false => (q, k),
    };
    let (y, k, v) = call.attend(b, node, [q, k, v])?;
    Ok(vec![join_heads(b, y)?, k, v])
}

/// Refuses, by name, what is not written out here.
fn refuse_unknown(node: &Node) -> Result<()> {
    let quantised = |attr: &str| Ok::<_, Error>(node.str(attr)?.is_some_and(|how| how != "NONE"));
    if quantised("k_quant_type")? || quantised("v_quant_type")? {
        return refuse("a quantised buffer of keys and values");
    }
    if is_set(node, "sliding_window_cache")? {
        return refuse("a buffer of a window of keys and values (sliding_window_cache)");
    }
    if node.input(11).is_some() || node.int("smooth_softmax")?.unwrap_or(-1) > 0 {
        return refuse("a term beside the keys in the softmax (head_sink, smooth_softmax)");
    }
    if node.input(14).is_some() || node.input(15).is_some() {
        return refuse("a norm of queries and keys within `GroupQueryAttention`");
    }
    if node.output(3).is_some() {
        return refuse("the scores as a result");
    }
    Ok(())
}

/// q, k and v (batch, heads, length, size).
fn operands(b: &mut Builder<'_>, node: &Node) -> Result<[Value; 3]> {
    let q = operand(node, 0)?;
    let [q, k, v] = match (node.input(1), node.input(2)) {
        (Some(k), Some(v)) => [q, k, v],
        _ => {
            let heads = |attr: &str| Ok::<_, Error>(node.int(attr)?.unwrap_or(0).max(1));
            let (n, shared) = (heads("num_heads")?, heads("kv_num_heads")?);
            let size = width(b, q)? / (n + 2 * shared);
            let parts = cut(b, q, &[n * size, shared * size, shared * size])?;
            [parts[0], parts[1], parts[2]]
        }
    };
    let (k, v) = (split_heads(b, node, k, "kv_num_heads")?, split_heads(b, node, v, "kv_num_heads")?);
    Ok([split_heads(b, node, q, "num_heads")?, k, v])
}

/// (batch) how many keys each row has from before: never less than none, whatever a row that is padded says.
fn before(b: &mut Builder<'_>, node: &Node, q: Value) -> Result<Value> {
    let last = b.cast(operand(node, 5)?, DType::Int64)?;
    let n = b.size_of(q, 2)?;
    let first = b.sub(last, n)?;
    let first = b.offset(first, 1.0)?;
    let none = b.scalar_like("none", 0.0, first)?;
    b.op("before", "Max", &[first, none])
}

/// `x` (batch, heads, length, size) turned by its places.
fn turned(b: &mut Builder<'_>, node: &Node, x: Value, places: Value) -> Result<Value> {
    let (cos, sin) = (operand(node, 7)?, operand(node, 8)?);
    let turned = 2 * width(b, cos)?;
    let call = Node::new("RotaryEmbedding", &[x, cos, sin, places], &[])
        .with("interleaved", Attr::Int(is_set(node, "rotary_interleaved")?.into()))
        .with("rotary_embedding_dim", Attr::Int(turned));
    let unfit = || Error::new(Code::TYPES, format!("cosines for {turned} elements of a smaller head"));
    if width(b, x)? < turned {
        return Err(unfit());
    }
    Ok(rotary_embedding(b, &call)?[0])
}

/// A call, with its operands by heads.
struct Grouped {
    q: Value,
    past: Option<(Value, Value)>,
    /// (batch) how many keys of the past are real.
    before: Value,
}

impl Grouped {
    /// (batch, length): the places that are given, or those that follow the past. Where there is none, ONNX Runtime
    /// counts from the first place given, for all rows.
    fn places(&self, b: &mut Builder<'_>, node: &Node) -> Result<Value> {
        let n = b.size_of(self.q, 2)?;
        let counted = count_to(b, n)?;
        let Some(given) = node.input(9) else {
            let before = b.unsqueeze(self.before, &[1])?;
            return b.add(before, counted);
        };
        let all = b.cast(operand(node, 6)?, DType::Int64)?;
        let is_first = b.op("is_first", "Equal", &[all, n])?;
        let flat = b.ints("flat", &[-1])?;
        let flat = b.op("flat", "Reshape", &[given, flat])?;
        let first = super::element(b, flat, 0, 0)?;
        let following = b.add(counted, first)?;
        b.op("places", "Where", &[is_first, following, given])
    }

    /// y by heads, and all keys and values.
    fn attend(
        self,
        b: &mut Builder<'_>,
        node: &Node,
        [q, k, v]: [Value; 3],
    ) -> Result<(Value, Value, Value)> {
        let mut mask = node.input(10);
        if mask.is_some() && self.past.is_some() {
            return refuse("a bias of the scores beside a past");
        }
        let (k, v, places) = match self.past {
            Some((past_k, past_v)) => {
                let buffer = Buffer::new(b, node, &self, past_k)?;
                (buffer.filled(b, past_k, k)?, buffer.filled(b, past_v, v)?, Some(buffer.places))
            }
            None => (k, v, None),
        };
        let window = node.int("local_window_size")?.filter(|&n| n > 0);
        let is_causal = node.int("causal")?.unwrap_or(1) != 0;
        let mut call = Node::new("Attention", &[q, k, v], &[]);
        for attr in ["scale", "softcap"] {
            if let Some(given) = node.float(attr)?.filter(|&x| x > 0.0) {
                call = call.with(attr, Attr::Float(given));
            }
        }
        if places.is_none() && is_causal && window.is_none() {
            call = call.with("is_causal", Attr::Int(1));
        } else {
            let seen = self.seen(b, node, places, is_causal, window)?;
            let (shown, hidden) =
                (b.scalar_like("shown", 0.0, q)?, b.scalar_like("hidden", f64::NEG_INFINITY, q)?);
            let hiding = b.op("mask", "Where", &[seen, shown, hidden])?;
            mask = Some(mask.map_or(Ok(hiding), |bias| b.add(hiding, bias))?);
        }
        call.inputs.push(mask);
        // A query sees its own key, or the first of a row that is padded.
        Ok((attend(b, &call, false)?[0], k, v))
    }

    /// (batch, 1, queries, keys): which keys a query sees, by its place and theirs, which are those of the queries where
    /// there is no buffer.
    fn seen(
        &self,
        b: &mut Builder<'_>,
        node: &Node,
        places: Option<Value>,
        is_causal: bool,
        window: Option<i64>,
    ) -> Result<Value> {
        let n = b.size_of(self.q, 2)?;
        let before = b.unsqueeze(self.before, &[1, 2, 3])?;
        let new = count_to(b, n)?;
        let new = b.add(before, new)?;
        let queries = b.transpose(new, &[0, 1, 3, 2])?;
        let keys = places.unwrap_or(new);
        let last = if is_causal {
            queries
        } else {
            let last = b.cast(operand(node, 5)?, DType::Int64)?;
            b.unsqueeze(last, &[1, 2, 3])?
        };
        let seen = b.op("seen", "LessOrEqual", &[keys, last])?;
        let Some(window) = window else { return Ok(seen) };
        let apart = b.sub(queries, keys)?;
        let window = b.scalar_like("window", window as f64, apart)?;
        let near = b.op("near", "Less", &[apart, window])?;
        b.op("seen", "And", &[seen, near])
    }
}

/// What keeps keys and values from call to call: in each row first the real ones of the past, then those of this call,
/// then zeros, as many places as the past has or as the longest row needs.
struct Buffer {
    /// (places): 0, 1, ….
    places: Value,
    /// (batch, places): where each comes from, in the past and the new ones behind it.
    from: Value,
    /// (batch, 1, places, 1): whether there is anything.
    is_real: Value,
}

impl Buffer {
    fn new(b: &mut Builder<'_>, node: &Node, call: &Grouped, past: Value) -> Result<Buffer> {
        let one = b.ints("one", &[1])?;
        let longest = b.op("longest", "Reshape", &[operand(node, 6)?, one])?;
        let longest = b.cast(longest, DType::Int64)?;
        let (room, n) = (b.size_of(past, 2)?, b.size_of(call.q, 2)?);
        let size = b.op("size", "Max", &[room, longest])?;
        let places = count_to(b, size)?;
        let before = b.unsqueeze(call.before, &[1])?;
        let end = b.add(before, n)?;
        let (is_past, is_real) =
            (b.op("is_past", "Less", &[places, before])?, b.op("is_real", "Less", &[places, end])?);
        let shift = b.sub(room, before)?;
        let moved = b.add(places, shift)?;
        let from = b.op("from", "Where", &[is_past, places, moved])?;
        // What is not real comes from anywhere.
        let zero = b.scalar_like("zero", 0.0, from)?;
        let from = b.op("from", "Where", &[is_real, from, zero])?;
        Ok(Buffer { places, from, is_real: b.unsqueeze(is_real, &[1, 3])? })
    }

    /// The buffer of keys or values: (batch, heads, places, size).
    fn filled(&self, b: &mut Builder<'_>, past: Value, new: Value) -> Result<Value> {
        let both = b.concat("both", &[past, new], 2)?;
        let from = b.unsqueeze(self.from, &[1, 3])?;
        let one = b.ints("one", &[1])?;
        let sizes = [one, b.size_of(new, 1)?, one, b.size_of(new, 3)?];
        let sizes = b.concat("sizes", &sizes, 0)?;
        let from = b.op("from", "Expand", &[from, sizes])?;
        let gather = Node::new("GatherElements", &[both, from], &[]).with("axis", Attr::Int(2));
        let gathered = b.push("kept", gather)?;
        b.keep_where(self.is_real, gathered)
    }
}
