//! Numbers stored as integers with a scale: `QuantizeLinear`, `DequantizeLinear`.
use super::{composed::composed, layout};
use crate::{
    Array, Builder, Code, DType, Dim, Error, Eval, Fact, Infer, Node, OpDef, Result, Type, Value, Vjp,
    infer::dtype_attr,
};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    composed("DequantizeLinear", 10, dequantize, "y = (x - zero_point) · scale, per tensor, axis or block"),
    OpDef {
        name: "QuantizeLinear",
        since: 10,
        infer: infer_quantize,
        eval: Some(quantize),
        vjp: Vjp::Missing,
        doc: "y = x / scale + zero_point, rounded half to even, within the range of the type",
    },
];

/// `v` as it broadcasts to `x`: one number, one for each place of `axis`, or one for each block along it.
fn spread(b: &mut Builder<'_>, node: &Node, v: Value, x: Value) -> Result<Value> {
    let (rank, dims) = (b.shape(x)?.len(), b.shape(v)?);
    if dims.is_empty() || rank == 0 {
        return Ok(v);
    }
    let axis = layout::axis(node.int("axis")?.unwrap_or(1), rank);
    let block = node.int("block_size")?.unwrap_or(0);
    if block == 0 {
        // A list of one number is one number, whatever the axis.
        if dims.len() == 1 && dims[0] == Dim::from(1i64) {
            return Ok(v);
        }
        return b.unsqueeze(v, &(1..(rank - axis?) as i64).collect::<Vec<_>>());
    }
    let axis = axis?;
    let apart = b.unsqueeze(v, &[axis as i64 + 1])?;
    let mut times = vec![1; rank + 1];
    times[axis + 1] = block;
    let times = b.ints("times", &times)?;
    let repeated = b.op("repeated", "Expand", &[apart, times])?;
    let mut kept = Vec::new();
    for i in 0..rank {
        kept.push(if i == axis { b.ints("all", &[-1])? } else { b.size_of(v, i)? });
    }
    let sizes = b.concat("sizes", &kept, 0)?;
    let joined = b.op("joined", "Reshape", &[repeated, sizes])?;
    // The last block may be shorter.
    let (from, to, axis) = (b.ints("from", &[0])?, b.size_of(x, axis)?, b.ints("axis", &[axis as i64])?);
    b.op("spread", "Slice", &[joined, from, to, axis])
}

fn dequantize(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let missing = |i: usize| Error::new(Code::TYPES, format!("operand {i} is missing"));
    let (x, scale) = (node.input(0).ok_or_else(|| missing(0))?, node.input(1).ok_or_else(|| missing(1))?);
    let mut levels = b.cast(x, DType::Float)?;
    if let Some(zero) = node.input(2) {
        let zero = b.cast(zero, DType::Float)?;
        let zero = spread(b, node, zero, x)?;
        levels = b.sub(levels, zero)?;
    }
    let wide = b.cast(scale, DType::Float)?;
    let factor = spread(b, node, wide, x)?;
    let y = b.mul(levels, factor)?;
    Ok(vec![match dtype_attr(node, "output_dtype").unwrap_or(None) {
        Some(dtype) => b.cast(y, dtype)?,
        None => b.cast_like(y, scale)?,
    }])
}

/// The type of the result: that of the zero point, or as the attribute says, or `uint8`.
fn quantized(node: &Node, zero_point: Option<DType>) -> Result<DType> {
    match zero_point {
        Some(dtype) => Ok(dtype),
        None if node.int("output_dtype")?.unwrap_or(0) == 0 => Ok(DType::Uint8),
        None => Ok(dtype_attr(node, "output_dtype")?.unwrap_or(DType::Uint8)),
    }
}

fn infer_quantize(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let dtype = match ctx.node.input(2) {
        Some(_) => ctx.dtype(2),
        None => Some(quantized(ctx.node, None)?),
    };
    let shape = ctx.shape(0).map(<[Dim]>::to_vec);
    Ok(vec![Fact { ty: dtype.map(|dtype| Type { dtype, shape }), known: None }])
}

/// The lowest and highest number of an integer type that a quantised tensor may have.
fn range(dtype: DType) -> Result<(f64, f64)> {
    Ok(match dtype {
        DType::Uint8 => (0.0, 255.0),
        DType::Int8 => (-128.0, 127.0),
        DType::Uint16 => (0.0, 65535.0),
        DType::Int16 => (-32768.0, 32767.0),
        other => {
            return Err(Error::new(Code::NO_EVAL, format!("quantising to {other} is not computed here")));
        }
    })
}

/// For each element of a tensor of sizes `dims` the index of its element in `v`, as [`spread`] has it.
fn places(node: &Node, dims: &[usize], v: &Array) -> Result<Vec<usize>> {
    let axis = layout::axis(node.int("axis")?.unwrap_or(1), dims.len());
    let block = usize::try_from(node.int("block_size")?.unwrap_or(0)).unwrap_or(0);
    let strides = layout::strides(&v.dims);
    let mut places = Vec::new();
    layout::each_position(dims, |p| {
        places.push(match (v.dims.len(), block) {
            _ if v.len() == 1 => 0,
            (1, 0) => p[axis.clone()?],
            (_, 0) => {
                return Err(Error::new(Code::TYPES, format!("scales of sizes {:?} without blocks", v.dims)));
            }
            _ => {
                let mut at = p.to_vec();
                at[axis.clone()?] /= block;
                layout::offset(&at, &strides)
            }
        });
        Ok(())
    })?;
    match places.iter().all(|&i| i < v.len()) {
        true => Ok(places),
        false => Err(Error::new(Code::TYPES, format!("scales of sizes {:?} do not fit {dims:?}", v.dims))),
    }
}

fn quantize(c: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, scale, zero) = (c.input(0)?, c.input(1)?, c.get(2));
    let dtype = quantized(c.node, zero.map(|z| z.dtype))?;
    let (low, high) = range(dtype)?;
    let (places, scales) = (places(c.node, &x.dims, scale)?, scale.floats()?);
    let zeros = zero.map(Array::ints).transpose()?;
    let wide: Vec<f64> = match &x.data {
        crate::Data::Float(v) => v.clone(),
        crate::Data::Int(v) => v.iter().map(|&x| x as f64).collect(),
    };
    let level = |(x, &at): (&f64, &usize)| {
        let zero = zeros.and_then(|z| z.get(at)).map_or(0.0, |&z| z as f64);
        // Rounded as the model's type says, which decides ties.
        let quotient = f64::from((x / scales[at]) as f32).round_ties_even();
        (quotient + zero).clamp(low, high) as i64
    };
    let levels = wide.iter().zip(&places).map(level).collect();
    Ok(vec![Array::int(dtype, x.dims.clone(), levels)])
}
