//! Cutting axes down, and padding them out.
use crate::ops::{generate::refuse_negative, index, layout};
use crate::{Array, Attr, Backward, Code, Data, Dim, Error, Eval, Fact, Infer, Node, Result, Value};

/// Bounds at or beyond this are how exporters write "to the end".
const ENDLESS: i64 = i32::MAX as i64;

/// The first index of `[start:end:step]` on an axis of `size`, and how many follow, by ONNX's rules of clamping.
fn cut(size: usize, start: i64, end: i64, step: i64) -> Result<(usize, usize)> {
    if step == 0 {
        return Err(Error::new(Code::VALUE, "a slice with a step of 0 has no end"));
    }
    if size == 0 {
        return Ok((0, 0));
    }
    let (n, step) = (size as i128, i128::from(step));
    let placed = |bound: i64| i128::from(bound) + if bound < 0 { n } else { 0 };
    let (first, span) = if step > 0 {
        let first = placed(start).clamp(0, n);
        (first, placed(end).clamp(0, n) - first)
    } else {
        let first = placed(start).clamp(0, n - 1);
        (first, first - placed(end).clamp(-1, n - 1))
    };
    let count = (span.max(0) + step.abs() - 1) / step.abs();
    Ok((first as usize, count as usize))
}

/// The length of `[start:end:step]` on an axis of symbolic size; `None` where it is no polynomial.
fn cut_size(size: &Dim, start: &Dim, end: &Dim, step: i64) -> Option<Dim> {
    let last = size.clone() - Dim::from(1i64);
    let clamped = |d: Dim, low: i64, high: &Dim| Dim::max(&Dim::from(low), &Dim::min(&d, high));
    let span = if step > 0 {
        clamped(placed(end, size)?, 0, size) - clamped(placed(start, size)?, 0, size)
    } else {
        // Only from the last element on: other starts are clamped differently where the axis is empty.
        start.as_const().filter(|&n| n == -1 || n >= ENDLESS)?;
        last.clone() - clamped(placed(end, size)?, -1, &last)
    };
    let span = Dim::max(&span, &Dim::default());
    if step.abs() == 1 { Some(span) } else { span.div_exact(&Dim::from(step.checked_abs()?)) }
}

/// Where a bound lies, counted from the start; `None` if its sign is not provable.
fn placed(bound: &Dim, size: &Dim) -> Option<Dim> {
    let minus_one = Dim::from(-1i64);
    match bound.as_const() {
        Some(n) if n >= ENDLESS => Some(size.clone()),
        Some(n) if n <= -ENDLESS => Some(minus_one),
        _ if bound.is_non_negative() => Some(bound.clone()),
        _ if (minus_one - bound.clone()).is_non_negative() => Some(size.clone() + bound.clone()),
        _ => None,
    }
}

/// What an operand or an attribute says about a slice.
fn bounds(ctx: &Infer<'_>, operand: usize, attr: &str) -> Result<Option<Vec<Dim>>> {
    match ctx.node.input(operand) {
        Some(_) => Ok(ctx.known(operand)),
        None => Ok(ctx.node.ints(attr)?.map(|v| v.iter().map(|&n| n.into()).collect())),
    }
}

pub(super) fn infer_slice(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let (Some(dtype), Some(dims)) = (ctx.dtype(0), ctx.shape(0)) else {
        return Ok(vec![Fact::of_dtype(ctx.dtype(0))]);
    };
    let (starts, ends) = (bounds(ctx, 1, "starts")?, bounds(ctx, 2, "ends")?);
    let n = starts.as_ref().or(ends.as_ref()).map(Vec::len);
    let n = n.or_else(|| ctx.shape(1).and_then(|s| s.first()?.as_size()));
    let given = ctx.ints_at(3, "axes")?;
    let axes = match (given, n) {
        (Some(axes), _) => Some(layout::axes(&axes, dims.len())?),
        (None, Some(n)) if ctx.node.input(3).is_none() && n <= dims.len() => Some((0..n).collect()),
        _ => None,
    };
    let steps =
        if ctx.node.input(4).is_some() { ctx.known_ints(4) } else { axes.as_ref().map(|a| vec![1; a.len()]) };
    let Some(axes) = axes else {
        let unknown = (0..dims.len()).map(|axis| ctx.unknown(0, axis)).collect();
        return Ok(vec![Fact::new(dtype, unknown)]);
    };
    let lengths = [starts.as_ref().map(Vec::len), ends.as_ref().map(Vec::len), steps.as_ref().map(Vec::len)];
    if let Some(n) = lengths.into_iter().flatten().find(|&n| n != axes.len()) {
        return Err(ctx.mismatch(format!("{n} bounds or steps for {} axes", axes.len())));
    }
    let mut result = dims.to_vec();
    for (i, &axis) in axes.iter().enumerate() {
        let size = match (&starts, &ends, &steps) {
            (Some(s), Some(e), Some(k)) => sliced_size(&dims[axis], &s[i], &e[i], k[i])?,
            _ => None,
        };
        result[axis] = size.unwrap_or_else(|| ctx.unknown(0, axis));
    }
    let known = ctx
        .known(0)
        .filter(|_| dims.len() == 1)
        .and_then(|all| known_cut(all, &axes, &starts?, &ends?, &steps?));
    Ok(vec![Fact::new(dtype, result).with_known(known)])
}

fn sliced_size(size: &Dim, start: &Dim, end: &Dim, step: i64) -> Result<Option<Dim>> {
    match (size.as_size(), start.as_const(), end.as_const()) {
        (Some(size), Some(start), Some(end)) => Ok(Some(cut(size, start, end, step)?.1.into())),
        _ if step == 0 => cut(1, 0, 0, 0).map(|_| None),
        _ => Ok(cut_size(size, start, end, step)),
    }
}

fn known_cut(all: Vec<Dim>, axes: &[usize], starts: &[Dim], ends: &[Dim], steps: &[i64]) -> Option<Vec<Dim>> {
    if axes.is_empty() {
        return Some(all);
    }
    let (start, end, step) = (starts.first()?.as_const()?, ends.first()?.as_const()?, *steps.first()?);
    let (first, n) = cut(all.len(), start, end, step).ok()?;
    (0..n as i64).map(|i| all.get(usize::try_from(first as i64 + i * step).ok()?).cloned()).collect()
}

pub(super) fn eval_slice(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let x = ctx.input(0)?;
    let missing = || Error::new(Code::TYPES, "the bounds of the slice are missing");
    let starts = ctx.ints_at(1, "starts")?.ok_or_else(missing)?;
    let ends = ctx.ints_at(2, "ends")?.ok_or_else(missing)?;
    let axes = ctx.ints_at(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = ctx.get(4).map(|a| a.ints().map(<[i64]>::to_vec)).transpose()?;
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(Error::new(Code::TYPES, "starts, ends, axes and steps differ in length"));
    }
    let (mut dims, mut first) = (x.dims.clone(), vec![0; x.dims.len()]);
    let mut step = vec![1; x.dims.len()];
    for (i, axis) in layout::axes(&axes, x.dims.len())?.into_iter().enumerate() {
        (first[axis], dims[axis]) = cut(x.dims[axis], starts[i], ends[i], steps[i])?;
        step[axis] = steps[i];
    }
    let strides = layout::strides(&x.dims);
    let source = |position: &[usize]| {
        let along =
            |axis: usize| first[axis].wrapping_add_signed(position[axis] as isize * step[axis] as isize);
        Ok((0..position.len()).map(|axis| along(axis) * strides[axis]).sum())
    };
    Ok(vec![layout::select(x, dims, source)?])
}

/// Zeros around `dy` where the slice has no steps and begins where that is known, else `dy` scattered to the positions
/// that the slice of a tensor of positions holds.
pub(super) fn vjp_slice(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, x) = (ctx.dy()?, ctx.input(0)?);
    if let Some(before) = zeros_before(ctx, x)? {
        return Ok(vec![Some(pad_to(ctx, dy, x, &before)?)]);
    }
    let slice = Node { outputs: Vec::new(), ..ctx.node.clone() };
    let dx = index::scatter_back(ctx.b, dy, x, |b, positions| {
        let mut slice = slice;
        slice.inputs[0] = Some(positions);
        b.push("positions", slice)
    })?;
    Ok(vec![Some(dx)])
}

/// For each axis of `x` how many elements a slice of step 1 leaves out before it begins; `None` if that is not known.
fn zeros_before(ctx: &Backward<'_, '_>, x: Value) -> Result<Option<Vec<i64>>> {
    let dims = ctx.b.shape(x)?;
    let Some(starts) = ctx.ints_at(1, "starts")? else { return Ok(None) };
    let given = ctx.ints_at(3, "axes")?;
    let steps = ctx.ints_at(4, "steps")?;
    let hidden = |i: usize, value: &Option<Vec<i64>>| value.is_none() && ctx.node.input(i).is_some();
    if hidden(3, &given) || hidden(4, &steps) || steps.is_some_and(|s| s.iter().any(|&k| k != 1)) {
        return Ok(None);
    }
    let axes = given.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let mut before = vec![0; dims.len()];
    for (axis, &start) in layout::axes(&axes, dims.len())?.into_iter().zip(&starts) {
        before[axis] = match dims[axis].as_size() {
            Some(size) => cut(size, start, i64::MAX, 1)?.0 as i64,
            None if start == 0 => 0,
            None => return Ok(None),
        };
    }
    Ok(Some(before))
}

/// `dy` with `before` zeros in front of each axis and as many behind as give it the shape of `x`.
fn pad_to(ctx: &mut Backward<'_, '_>, dy: Value, x: Value, before: &[i64]) -> Result<Value> {
    let numbers = |v: Value, b: &crate::Builder<'_>| -> Option<Vec<i64>> {
        b.graph.shape(v)?.iter().map(Dim::as_const).collect()
    };
    if let (Some(from), Some(to)) = (numbers(dy, ctx.b), numbers(x, ctx.b)) {
        let after = to.iter().zip(&from).zip(before).map(|((to, from), before)| to - from - before);
        let pads: Vec<i64> = before.iter().copied().chain(after).collect();
        if pads.iter().all(|&n| n == 0) {
            return Ok(dy);
        }
        if ctx.b.opset() < 11 {
            return ctx.b.push("padded", Node::new("Pad", &[dy], &[]).with("pads", Attr::Ints(pads)));
        }
        let pads = ctx.b.ints("pads", &pads)?;
        return ctx.b.op("padded", "Pad", &[dy, pads]);
    }
    if ctx.b.opset() < 11 {
        return Err(Error::new(
            Code::OPSET,
            "its gradient pads by sizes known at run time, which needs opset 11",
        ));
    }
    let (to, from) = (ctx.b.shape_of(x)?, ctx.b.shape_of(dy)?);
    let before = ctx.b.ints("before", before)?;
    let missing = ctx.b.sub(to, from)?;
    let after = ctx.b.sub(missing, before)?;
    let pads = ctx.b.concat("pads", &[before, after], 0)?;
    ctx.b.op("padded", "Pad", &[dy, pads])
}

/// How much is added before and after each axis: `pads` holds all the befores and then all the afters.
fn padding<T: Clone>(pads: &[T], axes: Option<&[i64]>, rank: usize, zero: T) -> Result<Vec<(T, T)>> {
    let axes = axes.map_or_else(|| Ok((0..rank).collect()), |axes| layout::axes(axes, rank))?;
    if pads.len() != 2 * axes.len() {
        return Err(Error::new(
            Code::TYPES,
            format!("{} pads for {} axes, expected twice as many", pads.len(), axes.len()),
        ));
    }
    let (before, after) = pads.split_at(axes.len());
    let mut padding = vec![(zero.clone(), zero); rank];
    for (i, axis) in axes.into_iter().enumerate() {
        padding[axis] = (before[i].clone(), after[i].clone());
    }
    Ok(padding)
}

pub(super) fn infer_pad(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let (Some(dtype), Some(dims)) = (ctx.dtype(0), ctx.shape(0)) else {
        return Ok(vec![Fact::of_dtype(ctx.dtype(0))]);
    };
    let axes = ctx.known_ints(3);
    let pads = bounds(ctx, 1, "pads")?.filter(|_| axes.is_some() || ctx.node.input(3).is_none());
    let Some(pads) = pads else {
        let unknown = (0..dims.len()).map(|axis| ctx.unknown(0, axis)).collect();
        return Ok(vec![Fact::new(dtype, unknown)]);
    };
    let padding =
        padding(&pads, axes.as_deref(), dims.len(), Dim::default()).map_err(|e| ctx.mismatch(e.message))?;
    let dims: Vec<Dim> =
        dims.iter().zip(padding).map(|(d, (before, after))| d.clone() + before + after).collect();
    refuse_negative(&dims)?;
    Ok(vec![Fact::new(dtype, dims)])
}

/// What stands in the elements that are added.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Padding {
    Constant,
    /// The nearest element.
    Edge,
    /// The axis mirrored at its first and last element.
    Reflect,
    /// The axis again.
    Wrap,
}

impl Padding {
    fn of(node: &Node) -> Result<Padding> {
        Ok(match node.str("mode")?.unwrap_or("constant") {
            "constant" => Padding::Constant,
            "edge" => Padding::Edge,
            "reflect" => Padding::Reflect,
            "wrap" => Padding::Wrap,
            other => {
                let message = format!(
                    "attribute `mode` is `{other}`, expected `constant`, `edge`, `reflect` or `wrap`"
                );
                return Err(Error::new(Code::ATTRIBUTE, message));
            }
        })
    }
    /// Which of the `n` elements of an axis stands at `p`, which may lie outside; `None` for the constant.
    fn source(self, p: i64, n: usize) -> Option<usize> {
        let size = i64::try_from(n).ok()?;
        if size == 0 || (0..size).contains(&p) {
            return usize::try_from(p).ok().filter(|&p| p < n);
        }
        usize::try_from(match self {
            Padding::Constant => return None,
            Padding::Edge => p.clamp(0, size - 1),
            Padding::Wrap => p.rem_euclid(size),
            Padding::Reflect => {
                let period = (2 * (size - 1)).max(1);
                let at = p.rem_euclid(period);
                at.min(period - at).min(size - 1)
            }
        })
        .ok()
    }
}

pub(super) fn eval_pad(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, mode) = (ctx.input(0)?, Padding::of(ctx.node)?);
    let pads = ctx.ints_at(1, "pads")?.ok_or_else(|| Error::new(Code::TYPES, "the pads are missing"))?;
    let axes = ctx.get(3).map(Array::ints).transpose()?;
    let padding = padding(&pads, axes, x.dims.len(), 0)?;
    let grown = |(&n, &(before, after)): (&usize, &(i64, i64))| {
        let size = n as i128 + i128::from(before) + i128::from(after);
        layout::sizes(&[i64::try_from(size).unwrap_or(i64::MAX)]).map(|s| s[0])
    };
    let dims = x.dims.iter().zip(&padding).map(grown).collect::<Result<Vec<usize>>>()?;
    let strides = layout::strides(&x.dims);
    let mut padded = filler(ctx, x)?;
    // One element behind the last one of `x` stands for the constant.
    let constant = x.len();
    let source = |position: &[usize]| {
        let mut offset = 0;
        for (axis, &p) in position.iter().enumerate() {
            match mode.source(p as i64 - padding[axis].0, x.dims[axis]) {
                Some(p) => offset += p * strides[axis],
                None => return Ok(constant),
            }
        }
        Ok(offset)
    };
    padded = layout::select(&padded, dims, source)?;
    Ok(vec![padded])
}

/// The elements of `x` as a list, and after them the constant that pads.
fn filler(ctx: &Eval<'_>, x: &Array) -> Result<Array> {
    let mut list = Array { dims: vec![x.len() + 1], ..x.clone() };
    match (&mut list.data, ctx.get(2)) {
        (Data::Float(v), Some(c)) => v.extend(c.floats()?.first()),
        (Data::Float(v), None) => v.push(f64::from(ctx.node.float("value")?.unwrap_or(0.0))),
        (Data::Int(v), Some(c)) => v.extend(c.ints()?.first()),
        (Data::Int(v), None) => v.push(0),
    }
    let data = match &list.data {
        Data::Float(v) => v.len(),
        Data::Int(v) => v.len(),
    };
    if data == x.len() + 1 {
        Ok(list)
    } else {
        Err(Error::new(Code::TYPES, "the constant that pads is empty"))
    }
}

/// What was added is taken away, and what was taken away comes back as zeros.
pub(super) fn vjp_pad(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    if Padding::of(ctx.node)? != Padding::Constant || ctx.needs(2) {
        let message = "`Pad` has a gradient for its first operand and constant padding only";
        return Err(Error::new(Code::NO_GRADIENT, message));
    }
    let dy = ctx.dy()?;
    let mut node = Node { attrs: ctx.node.attrs.clone(), ..Node::new("Pad", &[dy], &[]) };
    if let Some(pads) = ctx.node.ints("pads")? {
        node.attrs.insert("pads".into(), Attr::Ints(pads.iter().map(|n| n.saturating_neg()).collect()));
        node.attrs.insert("value".into(), Attr::Float(0.0));
    } else {
        let pads = ctx.input(1)?;
        node.inputs.push(Some(match ctx.ints_at(1, "pads")? {
            Some(pads) => ctx.b.ints("pads", &pads.iter().map(|n| n.saturating_neg()).collect::<Vec<_>>())?,
            None => ctx.b.neg(pads)?,
        }));
        if let Some(axes) = ctx.node.input(3) {
            node.inputs.extend([None, Some(axes)]);
        }
    }
    Ok(vec![Some(ctx.b.push("unpadded", node)?), None, None])
}
