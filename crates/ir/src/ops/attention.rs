//! Attention and the rotation of its positions, written with other ops.
use super::composed::composed;
use crate::{Attr, Builder, Code, DType, Error, Node, OpDef, Result, Value, infer::dtype_attr};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    composed("Attention", 23, attention, "y = softmax(scale · q · kᵀ + mask) · v, for each head"),
    composed(
        "RotaryEmbedding",
        23,
        rotary_embedding,
        "pairs (a, b) of x become (a·cos - b·sin, a·sin + b·cos)",
    ),
];

/// Operand `i`; an error if it is left out.
fn operand(node: &Node, i: usize) -> Result<Value> {
    node.input(i).ok_or_else(|| Error::new(Code::TYPES, format!("operand {i} is missing")))
}

/// A number of heads: the attribute, which operands of rank 3 need.
fn heads(node: &Node, attr: &str) -> Result<i64> {
    let missing = || {
        Error::new(Code::ATTRIBUTE, format!("attribute `{attr}` is missing, which operands of rank 3 need"))
    };
    node.int(attr)?.filter(|&n| n > 0).ok_or_else(missing)
}

/// `x` (batch, length, heads · size) as (batch, heads, length, size); nothing where it has rank 4 already.
pub(super) fn split_heads(b: &mut Builder<'_>, node: &Node, x: Value, attr: &str) -> Result<Value> {
    match b.shape(x)?.len() {
        4 => Ok(x),
        3 => {
            let sizes = b.ints("sizes", &[0, 0, heads(node, attr)?, -1])?;
            let split = b.op("split", "Reshape", &[x, sizes])?;
            b.transpose(split, &[0, 2, 1, 3])
        }
        rank => Err(Error::new(Code::TYPES, format!("expected an operand of rank 3 or 4, found {rank}"))),
    }
}

/// The inverse of [`split_heads`].
pub(super) fn join_heads(b: &mut Builder<'_>, x: Value) -> Result<Value> {
    let split = b.transpose(x, &[0, 2, 1, 3])?;
    let sizes = b.ints("sizes", &[0, 0, -1])?;
    b.op("joined", "Reshape", &[split, sizes])
}

/// Attention as ONNX defines it: results y, present key, present value, and the scores at the stage asked for.
fn attention(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    attend(b, node, true)
}

/// The same; where every query is known to see a key, nothing is spent on those that do not.
pub(super) fn attend(b: &mut Builder<'_>, node: &Node, may_be_blind: bool) -> Result<Vec<Value>> {
    let is_joined = b.shape(operand(node, 0)?)?.len() == 3;
    let q = split_heads(b, node, operand(node, 0)?, "q_num_heads")?;
    let key = split_heads(b, node, operand(node, 1)?, "kv_num_heads")?;
    let value = split_heads(b, node, operand(node, 2)?, "kv_num_heads")?;
    let (key, value) = (behind(b, node.input(4), key)?, behind(b, node.input(5), value)?);
    let (k, v) = (repeat_heads(b, key, q)?, repeat_heads(b, value, q)?);
    let scores = scores(b, node, q, k)?;
    let capped = capped(b, node, scores)?;
    let bias = bias(b, node, q, k)?;
    let biased = bias.map_or(Ok(capped), |bias| b.add(capped, bias))?;
    let share = shares(b, node, biased, bias.filter(|_| may_be_blind))?;
    let narrow = b.cast_like(share, q)?;
    let y = b.matmul(narrow, v)?;
    let y = if is_joined { join_heads(b, y)? } else { y };
    let stage = match node.int("qk_matmul_output_mode")?.unwrap_or(0) {
        0 => scores,
        1 => capped,
        2 => biased,
        _ => narrow,
    };
    Ok(vec![y, key, value, stage])
}

/// `x` behind what was kept of earlier calls, along the axis of positions.
fn behind(b: &mut Builder<'_>, past: Option<Value>, x: Value) -> Result<Value> {
    past.map_or(Ok(x), |past| b.concat("present", &[past, x], 2))
}

/// Heads of `x` repeated, each beside itself, until there are as many as in `q`.
fn repeat_heads(b: &mut Builder<'_>, x: Value, q: Value) -> Result<Value> {
    let (from, to) = (b.shape(x)?[1].clone(), b.shape(q)?[1].clone());
    if from == to {
        return Ok(x);
    }
    let unfit = || Error::new(Code::TYPES, format!("{to} heads of queries for {from} of keys and values"));
    let times = to.div_exact(&from).and_then(|n| n.as_const()).ok_or_else(unfit)?;
    let apart = b.unsqueeze(x, &[2])?;
    let factors = b.ints("times", &[1, 1, times, 1, 1])?;
    let repeated = b.op("repeated", "Expand", &[apart, factors])?;
    let kept = [b.size_of(x, 0)?, b.size_of(q, 1)?, b.size_of(x, 2)?, b.size_of(x, 3)?];
    let sizes = b.concat("sizes", &kept, 0)?;
    b.reshape(repeated, sizes)
}

/// `(q · √scale) · (k · √scale)ᵀ`: with the scale shared out, half precision overflows later.
fn scores(b: &mut Builder<'_>, node: &Node, q: Value, k: Value) -> Result<Value> {
    let root = match node.float("scale")? {
        Some(scale) => b.scalar_like("scale", f64::from(scale).sqrt(), q)?,
        None => {
            let size = b.size_of(q, 3)?;
            let size = b.cast(size, DType::Double)?;
            let exponent = b.scalar_like("exponent", -0.25, size)?;
            let root = b.op("scale", "Pow", &[size, exponent])?;
            b.cast_like(root, q)?
        }
    };
    let (q, k) = (b.mul(q, root)?, b.mul(k, root)?);
    let transposed = b.transpose(k, &[0, 1, 3, 2])?;
    b.matmul(q, transposed)
}

/// `cap · tanh(scores / cap)`, if there is a cap.
fn capped(b: &mut Builder<'_>, node: &Node, scores: Value) -> Result<Value> {
    let Some(cap) = node.float("softcap")?.map(f64::from).filter(|&cap| cap > 0.0) else { return Ok(scores) };
    let cap = b.scalar_like("cap", cap, scores)?;
    let small = b.div(scores, cap)?;
    let bent = b.op("bent", "Tanh", &[small])?;
    b.mul(bent, cap)
}

/// What is added to the scores: -∞ where a query must not see a key. `None` where every query sees every key.
fn bias(b: &mut Builder<'_>, node: &Node, q: Value, k: Value) -> Result<Option<Value>> {
    let mut parts = Vec::new();
    if let Some(mask) = node.input(3) {
        let additive = if b.graph.dtype(mask) == Some(DType::Bool) { open(b, mask, q)? } else { mask };
        parts.push(pad_mask(b, additive, k)?);
    }
    let (n_queries, n_keys) = (b.size_of(q, 2)?, b.size_of(k, 2)?);
    let places = count_to(b, n_keys)?;
    if node.int("is_causal")?.unwrap_or(0) != 0 {
        let queries = count_to(b, n_queries)?;
        let queries = b.unsqueeze(queries, &[1])?;
        let offset = match (node.input(4), node.input(6)) {
            (Some(past), _) => Some(b.size_of(past, 2)?),
            (None, Some(lengths)) => {
                let offset = b.sub(lengths, n_queries)?;
                Some(b.unsqueeze(offset, &[1, 2, 3])?)
            }
            (None, None) => None,
        };
        let last = offset.map_or(Ok(queries), |offset| b.add(queries, offset))?;
        let sees = b.op("sees", "LessOrEqual", &[places, last])?;
        parts.push(open(b, sees, q)?);
    }
    if let Some(lengths) = node.input(6) {
        let lengths = b.unsqueeze(lengths, &[1, 2, 3])?;
        let is_there = b.op("is_there", "Less", &[places, lengths])?;
        parts.push(open(b, is_there, q)?);
    }
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else { return Ok(None) };
    parts.try_fold(first, |sum, part| b.add(sum, part)).map(Some)
}

/// 0 where the boolean `mask` is true, -∞ elsewhere, in the type of `like`.
fn open(b: &mut Builder<'_>, mask: Value, like: Value) -> Result<Value> {
    let zero = b.scalar_like("zero", 0.0, like)?;
    let never = b.scalar_like("never", f64::NEG_INFINITY, like)?;
    b.op("open", "Where", &[mask, zero, never])
}

/// 0, 1, … up to below `n`, which has one element.
pub(super) fn count_to(b: &mut Builder<'_>, n: Value) -> Result<Value> {
    let n = b.squeeze(n, &[0])?;
    let (zero, one) = (b.scalar_like("zero", 0.0, n)?, b.scalar_like("one", 1.0, n)?);
    b.op("places", "Range", &[zero, n, one])
}

/// A mask that ends before the keys do hides the rest.
fn pad_mask(b: &mut Builder<'_>, mask: Value, k: Value) -> Result<Value> {
    let (dims, keys) = (b.shape(mask)?, b.shape(k)?[2].clone());
    let Some(axis) = dims.len().checked_sub(1) else { return Ok(mask) };
    if dims[axis] == keys {
        return Ok(mask);
    }
    let (has, wants) = (b.size_of(mask, axis)?, b.size_of(k, 2)?);
    let missing = b.sub(wants, has)?;
    let (before, after) = (b.ints("before", &vec![0; dims.len()])?, b.ints("after", &vec![0; axis])?);
    let pads = b.concat("pads", &[before, after, missing], 0)?;
    let never = b.scalar_like("never", f64::NEG_INFINITY, mask)?;
    b.op("padded", "Pad", &[mask, pads, never])
}

/// The softmax of the scores; a query that sees no key has 0 everywhere.
fn shares(b: &mut Builder<'_>, node: &Node, scores: Value, bias: Option<Value>) -> Result<Value> {
    let precision = dtype_attr(node, "softmax_precision")?;
    let wide = precision.map_or(Ok(scores), |dtype| b.cast(scores, dtype))?;
    let softmax = Node::new("Softmax", &[], &[]).with("axis", Attr::Int(-1));
    let apply = |b: &mut Builder<'_>, x| b.push("share", Node { inputs: vec![Some(x)], ..softmax });
    let Some(bias) = bias else { return apply(b, wide) };
    let most = b.reduce("ReduceMax", bias, &[-1], true)?;
    let never = b.scalar_like("never", f64::NEG_INFINITY, bias)?;
    let blind = b.op("blind", "Equal", &[most, never])?;
    let zero = b.scalar_like("zero", 0.0, wide)?;
    // Before the softmax too, or its gradient would be NaN there.
    let safe = b.op("safe", "Where", &[blind, zero, wide])?;
    let share = apply(b, safe)?;
    b.op("seen", "Where", &[blind, zero, share])
}

/// The part `from..to` of the last axis, in steps.
pub(super) fn part(b: &mut Builder<'_>, x: Value, from: i64, to: i64, step: i64) -> Result<Value> {
    let bounds =
        [b.ints("from", &[from])?, b.ints("to", &[to])?, b.ints("axis", &[-1])?, b.ints("step", &[step])?];
    b.op("part", "Slice", &[&[x], &bounds[..]].concat())
}

/// How a `RotaryEmbedding` turns the pairs of a head.
struct Turn {
    /// How many elements of each head are turned, counted from the front.
    turned: i64,
    /// Whether a pair lies side by side, or half of the turned elements apart.
    interleaved: bool,
    cos: Value,
    sin: Value,
}

/// Rotates pairs of each head of x (batch, heads, length, size), or (batch, length, heads · size); cos and sin are
/// (length, pairs) of all positions with `position_ids`, else (batch, length, pairs).
pub(super) fn rotary_embedding(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let x = operand(node, 0)?;
    let is_joined = b.shape(x)?.len() == 3;
    let split = split_heads(b, node, x, "num_heads")?;
    let size = b.shape(split)?[3].as_const();
    let unknown = || Error::new(Code::TYPES, "the size of a head must be a number");
    let turned = match node.int("rotary_embedding_dim")?.unwrap_or(0) {
        0 => size.ok_or_else(unknown)?,
        turned => turned,
    };
    let interleaved = node.int("interleaved")?.unwrap_or(0) != 0;
    let (cos, sin) = (angles(b, node, 1)?, angles(b, node, 2)?);
    let mut y = turn(b, split, &Turn { turned, interleaved, cos, sin })?;
    if size != Some(turned) {
        let rest = part(b, split, turned, i64::MAX, 1)?;
        y = b.concat("y", &[y, rest], -1)?;
    }
    Ok(vec![if is_joined { join_heads(b, y)? } else { y }])
}

/// Operand `i`, cosines or sines, for each place, with an axis for the heads.
fn angles(b: &mut Builder<'_>, node: &Node, i: usize) -> Result<Value> {
    let table = operand(node, i)?;
    let of_place = match node.input(3) {
        Some(places) => {
            let gather = Node::new("Gather", &[table, places], &[]).with("axis", Attr::Int(0));
            b.push("angles", gather)?
        }
        None => table,
    };
    b.unsqueeze(of_place, &[1])
}

/// The elements of `x` that are turned, turned.
fn turn(b: &mut Builder<'_>, x: Value, turn: &Turn) -> Result<Value> {
    if turn.interleaved { turn_pairs(b, x, turn) } else { turn_halves(b, x, turn) }
}

/// `x · cos + [-second half | first half] · sin`, as those write it who rotate halves.
fn turn_halves(b: &mut Builder<'_>, x: Value, &Turn { turned, cos, sin, .. }: &Turn) -> Result<Value> {
    let is_all = b.shape(x)?.last().and_then(crate::Dim::as_const) == Some(turned);
    let x = if is_all { x } else { part(b, x, 0, turned, 1)? };
    let (cos, sin) = (b.concat("cos", &[cos, cos], -1)?, b.concat("sin", &[sin, sin], -1)?);
    let straight = b.mul(x, cos)?;
    let (first, second) = (part(b, x, 0, turned / 2, 1)?, part(b, x, turned / 2, i64::MAX, 1)?);
    let negative = b.neg(second)?;
    let across = b.concat("across", &[negative, first], -1)?;
    let crossed = b.mul(across, sin)?;
    b.add(straight, crossed)
}

/// The same for pairs that lie side by side.
fn turn_pairs(b: &mut Builder<'_>, x: Value, &Turn { turned, cos, sin, .. }: &Turn) -> Result<Value> {
    let (first, second) = (part(b, x, 0, turned, 2)?, part(b, x, 1, turned, 2)?);
    let mut combine = |with: Value, by: Value, op: &str| -> Result<Value> {
        let (one, other) = (b.mul(first, with)?, b.mul(second, by)?);
        b.op("turned", op, &[one, other])
    };
    let (real, imaginary) = (combine(cos, sin, "Sub")?, combine(sin, cos, "Add")?);
    let (real, imaginary) = (b.unsqueeze(real, &[-1])?, b.unsqueeze(imaginary, &[-1])?);
    let pairs = b.concat("pairs", &[real, imaginary], -1)?;
    let sizes = b.ints("sizes", &[0, 0, 0, turned])?;
    b.op("turned", "Reshape", &[pairs, sizes])
}
