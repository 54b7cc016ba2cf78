//! Ops that make tensors: constants, shapes as values, ranges, masks.
use super::layout;
use crate::{Array, Attr, Code, DType, Dim, Error, Eval, Fact, Infer, Node, OpDef, Result, Tensor, Vjp};
use crate::{infer, product};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    OpDef {
        name: "Constant",
        since: 1,
        infer: infer_constant,
        eval: Some(|ctx| Ok(vec![Array::from_tensor(&constant(ctx.node)?)?])),
        vjp: Vjp::Zero,
        doc: "y = value",
    },
    OpDef {
        name: "ConstantOfShape",
        since: 9,
        infer: infer_constant_of_shape,
        eval: Some(eval_constant_of_shape),
        vjp: Vjp::Zero,
        doc: "y[i] = value, of shape x",
    },
    OpDef {
        name: "EyeLike",
        since: 9,
        infer: infer_eye_like,
        eval: Some(eval_eye_like),
        vjp: Vjp::Zero,
        doc: "y[i,j] = 1 if j = i+k else 0",
    },
    OpDef {
        name: "Range",
        since: 11,
        infer: infer_range,
        eval: Some(eval_range),
        vjp: Vjp::Zero,
        doc: "y[i] = start + i·delta, below limit",
    },
    OpDef {
        name: "Shape",
        since: 1,
        infer: infer_shape,
        eval: Some(eval_shape),
        vjp: Vjp::Zero,
        doc: "y = sizes of x[start..end]",
    },
    OpDef {
        name: "Size",
        since: 1,
        infer: |ctx| {
            let size = ctx.shape(0).map(|dims| vec![product(dims)]);
            Ok(vec![Fact::new(DType::Int64, Vec::new()).with_known(size)])
        },
        eval: Some(|ctx| Ok(vec![Array::int(DType::Int64, Vec::new(), vec![ctx.input(0)?.len() as i64])])),
        vjp: Vjp::Zero,
        doc: "y = number of elements of x",
    },
];

/// The tensor of a `Constant` node, whichever of its attributes holds it.
pub fn constant(node: &Node) -> Result<Tensor> {
    let one = |node: &Node| -> Result<Option<Tensor>> {
        if let Some(tensor) = node.tensor("value")? {
            return Ok(Some(tensor.clone()));
        }
        if let Some(v) = node.int("value_int")? {
            return Ok(Some(Tensor::i64(&[], &[v])));
        }
        if let Some(v) = node.ints("value_ints")? {
            return Ok(Some(Tensor::i64(&[v.len()], v)));
        }
        if let Some(v) = node.float("value_float")? {
            return Ok(Some(Tensor::f32(&[], &[v])));
        }
        match node.attrs.get("value_floats") {
            Some(Attr::Floats(v)) => Ok(Some(Tensor::f32(&[v.len()], v))),
            _ => constant_strings(node),
        }
    };
    one(node)?.ok_or_else(|| {
        let given: Vec<&str> = node.attrs.keys().map(String::as_str).collect();
        Error::new(Code::ATTRIBUTE, format!("holds no dense tensor; its attributes are {given:?}"))
    })
}

fn constant_strings(node: &Node) -> Result<Option<Tensor>> {
    let (dims, strings) = match (node.str("value_string")?, node.attrs.get("value_strings")) {
        (Some(one), _) => (Vec::new(), vec![one]),
        (None, Some(Attr::Strs(many))) => (vec![many.len()], many.iter().map(String::as_str).collect()),
        _ => return Ok(None),
    };
    let mut data = Vec::new();
    for s in strings {
        data.extend((s.len() as u64).to_le_bytes());
        data.extend(s.as_bytes());
    }
    Tensor::new(DType::String, dims, data.into()).map(Some)
}

fn infer_constant(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    // A sparse constant is carried along; an attribute of an enclosing function is not known before it is called.
    if ctx.node.attrs.values().any(|a| matches!(a, Attr::Opaque(_) | Attr::Ref { .. })) {
        return Ok(vec![Fact::default()]);
    }
    let tensor = constant(ctx.node)?;
    let dims = tensor.dims().iter().map(|&n| n.into()).collect();
    Ok(vec![Fact::new(tensor.dtype(), dims).with_known(infer::known_elements(&tensor))])
}

/// The element that `ConstantOfShape` repeats: 0.0 unless its attribute says otherwise.
fn repeated(node: &Node) -> Result<Tensor> {
    let value = node.tensor("value")?.cloned().unwrap_or_else(|| Tensor::f32(&[1], &[0.0]));
    match value.len() {
        1 => Ok(value),
        n => Err(Error::new(Code::ATTRIBUTE, format!("attribute `value` has {n} elements, expected 1"))),
    }
}

fn infer_constant_of_shape(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let value = repeated(ctx.node)?;
    let Some(dims) = ctx.shape_in(0, 0) else { return Ok(vec![Fact::of_dtype(Some(value.dtype()))]) };
    refuse_negative(&dims)?;
    let known = infer::known_elements(&value).and_then(|v| infer::repeat(&v, &dims));
    Ok(vec![Fact::new(value.dtype(), dims).with_known(known)])
}

/// An error if a size is a negative number.
pub(super) fn refuse_negative(dims: &[Dim]) -> Result<()> {
    let numbers: Vec<i64> = dims.iter().filter_map(Dim::as_const).collect();
    layout::sizes(&numbers).map(drop)
}

fn eval_constant_of_shape(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let value = Array::from_tensor(&repeated(ctx.node)?)?;
    Ok(vec![layout::select(&value, layout::sizes(ctx.input(0)?.ints()?)?, |_| Ok(0))?])
}

fn infer_eye_like(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    if let Some(rank) = ctx.rank(0).filter(|&rank| rank != 2) {
        return Err(ctx.mismatch(format!("expected a matrix, found rank {rank}")));
    }
    let dtype = infer::dtype_attr(ctx.node, "dtype")?.or(ctx.dtype(0));
    Ok(vec![match (dtype, ctx.shape(0)) {
        (Some(dtype), Some(dims)) => Fact::new(dtype, dims.to_vec()),
        (dtype, _) => Fact::of_dtype(dtype),
    }])
}

fn eval_eye_like(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let x = ctx.input(0)?;
    let &[rows, columns] = &x.dims[..] else {
        return Err(Error::new(Code::TYPES, format!("expected a matrix, found sizes {:?}", x.dims)));
    };
    let k = ctx.node.int("k")?.unwrap_or(0);
    let dtype = infer::dtype_attr(ctx.node, "dtype")?.unwrap_or(x.dtype);
    let on = |i: usize| (i / columns) as i128 + i128::from(k) == (i % columns) as i128;
    let elements = (0..rows * columns).map(|i| i64::from(on(i)));
    Ok(vec![if dtype.is_float() {
        Array::float(dtype, x.dims.clone(), elements.map(|v| v as f64).collect())
    } else {
        Array::int(dtype, x.dims.clone(), elements.collect())
    }])
}

fn infer_range(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let scalar = |i: usize| ctx.known(i).and_then(|v| v.into_iter().next());
    let length = match (scalar(0), scalar(1), scalar(2).and_then(|d| d.as_const())) {
        (_, _, Some(0)) => return Err(zero_delta()),
        (Some(start), Some(limit), Some(delta)) => range_length(start, limit, delta),
        _ => None,
    };
    let Some(dtype) = ctx.dtype(0) else { return Ok(vec![Fact::default()]) };
    let known = || {
        let (start, delta, n) = (scalar(0)?, scalar(2)?, length.as_ref()?.as_const()?);
        let elements = |n: i64| (0..n).map(|i| start.clone() + Dim::from(i) * delta.clone()).collect();
        (n <= infer::MAX_KNOWN as i64).then(|| elements(n))
    };
    let known = known();
    Ok(vec![Fact::new(dtype, vec![length.unwrap_or_else(|| ctx.unknown(0, 0))]).with_known(known)])
}

/// `max(ceil((limit - start) / delta), 0)`, where that is a polynomial.
fn range_length(start: Dim, limit: Dim, delta: i64) -> Option<Dim> {
    let span = if delta > 0 { limit - start } else { start - limit };
    let step = delta.checked_abs()?;
    let steps = match span.as_const() {
        Some(n) => Dim::from(n.max(0).checked_add(step - 1)? / step),
        None => span.div_exact(&Dim::from(step))?,
    };
    Some(Dim::max(&steps, &Dim::default()))
}

fn zero_delta() -> Error {
    Error::new(Code::VALUE, "a range with a step of 0 has no end")
}

fn eval_range(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (start, limit, delta) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    if start.dtype.is_float() {
        return Ok(vec![float_range(
            start.dtype,
            [scalar(start.floats()?)?, scalar(limit.floats()?)?, scalar(delta.floats()?)?],
        )?]);
    }
    let [from, to, by] = [start, limit, delta].map(|a| a.ints().and_then(scalar));
    let (from, to, by) = (i128::from(from?), i128::from(to?), i128::from(by?));
    if by == 0 {
        return Err(zero_delta());
    }
    let span = if by > 0 { to - from } else { from - to };
    let n = usize::try_from((span.max(0) + by.abs() - 1) / by.abs()).unwrap_or(usize::MAX);
    let n = layout::element_count(&[n])?;
    let elements = (0..n as i128).map(|i| (from + i * by) as i64).collect();
    Ok(vec![Array::int(start.dtype, vec![n], elements)])
}

fn float_range(dtype: DType, [start, limit, delta]: [f64; 3]) -> Result<Array> {
    if delta == 0.0 {
        return Err(zero_delta());
    }
    // NaN casts to 0 and infinity to the greatest size, which is refused.
    let n = layout::element_count(&[((limit - start) / delta).ceil().max(0.0) as usize])?;
    Ok(Array::float(dtype, vec![n], (0..n).map(|i| start + i as f64 * delta).collect()))
}

fn scalar<T: Copy>(elements: &[T]) -> Result<T> {
    match elements {
        [one] => Ok(*one),
        _ => Err(Error::new(Code::TYPES, format!("expected a scalar, found {} elements", elements.len()))),
    }
}

/// The part of the axes of a tensor of rank `rank` that a `Shape` node asks for.
fn shape_range(node: &Node, rank: usize) -> Result<std::ops::Range<usize>> {
    let rank = i64::try_from(rank).unwrap_or(i64::MAX);
    let bound = |n: i64| (if n < 0 { n.saturating_add(rank) } else { n }).clamp(0, rank) as usize;
    let (start, end) = (bound(node.int("start")?.unwrap_or(0)), bound(node.int("end")?.unwrap_or(rank)));
    Ok(start..end.max(start))
}

fn infer_shape(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let Some(dims) = ctx.shape(0) else { return Ok(vec![Fact::new(DType::Int64, vec![ctx.unknown(0, 0)])]) };
    let dims = dims[shape_range(ctx.node, dims.len())?].to_vec();
    Ok(vec![Fact::new(DType::Int64, vec![dims.len().into()]).with_known(Some(dims))])
}

fn eval_shape(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let dims = &ctx.input(0)?.dims;
    let dims: Vec<i64> = dims[shape_range(ctx.node, dims.len())?].iter().map(|&n| n as i64).collect();
    Ok(vec![Array::int(DType::Int64, vec![dims.len()], dims)])
}
