//! What changes at most the element type.
use super::broadcast::wide;
use crate::{
    Array, Backward, Code, DType, Data, Dim, Error, Eval, Fact, Infer, OpDef, Result, Type, Value, Vjp,
    infer::dtype_attr,
};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    OpDef {
        name: "Identity",
        since: 1,
        infer: |ctx| Ok(vec![Fact { ty: ctx.ty(0).cloned(), known: ctx.known(0) }]),
        eval: Some(|ctx| Ok(vec![ctx.input(0)?.clone()])),
        vjp: Vjp::Rule(|ctx| Ok(vec![Some(ctx.dy()?)])),
        doc: "y = x",
    },
    OpDef {
        name: "Cast",
        since: 6,
        infer: |ctx| Ok(vec![cast_fact(ctx, dtype_attr(ctx.node, "to")?)]),
        eval: Some(|c| {
            let missing = || Error::new(Code::ATTRIBUTE, "attribute `to` is missing");
            cast(c, dtype_attr(c.node, "to")?.ok_or_else(missing)?)
        }),
        vjp: Vjp::Rule(cast_vjp),
        doc: "y = x in another element type: to an integer towards 0 and within its range, to bool as x ≠ 0",
    },
    OpDef {
        name: "CastLike",
        since: 15,
        infer: |ctx| Ok(vec![cast_fact(ctx, ctx.dtype(1))]),
        eval: Some(|c| cast(c, c.input(1)?.dtype)),
        vjp: Vjp::Rule(cast_vjp),
        doc: "y = x in the element type of another tensor",
    },
];

fn cast_fact(ctx: &Infer<'_>, to: Option<DType>) -> Fact {
    let known = match to {
        Some(DType::Int64 | DType::Int32) => ctx.known(0),
        Some(DType::Bool) => ctx.known(0).and_then(|k| k.iter().map(truth).collect()),
        _ => None,
    };
    let shape = ctx.shape(0).map(<[Dim]>::to_vec);
    Fact { ty: to.map(|dtype| Type { dtype, shape }), known }
}

fn truth(d: &Dim) -> Option<Dim> {
    let zero = Dim::default();
    if d.never_equals(&zero) { Some(Dim::from(1i64)) } else { (*d == zero).then_some(zero) }
}

fn cast(c: &Eval<'_>, to: DType) -> Result<Vec<Array>> {
    let x = c.input(0)?;
    let data = match (&x.data, to) {
        (Data::Float(v), DType::Bool) => Data::Int(v.iter().map(|&x| i64::from(x != 0.0)).collect()),
        (Data::Int(v), DType::Bool) => Data::Int(v.iter().map(|&x| i64::from(x != 0)).collect()),
        (Data::Float(v), _) if to.is_int() => Data::Int(v.iter().map(|&x| saturate(x, to)).collect()),
        // Wraps when it is settled.
        (Data::Int(v), _) if to.is_int() => Data::Int(v.clone()),
        (Data::Float(v), _) if to.is_float() => Data::Float(v.clone()),
        (Data::Int(_), _) if to.is_float() => Data::Float(wide(x)?.into_iter().map(|x| x as f64).collect()),
        _ => return Err(Error::new(Code::NO_EVAL, format!("{} cannot be converted to {to} here", x.dtype))),
    };
    Ok(vec![Array { dtype: to, dims: x.dims.clone(), data }])
}

/// ONNX leaves what is out of range open; here it becomes the nearest number of the type, and NaN becomes 0.
fn saturate(x: f64, to: DType) -> i64 {
    match to {
        DType::Int8 => (x as i8).into(),
        DType::Uint8 => (x as u8).into(),
        DType::Int16 => (x as i16).into(),
        DType::Uint16 => (x as u16).into(),
        DType::Int32 => (x as i32).into(),
        DType::Uint32 => (x as u32).into(),
        DType::Uint64 => (x as u64) as i64,
        _ => x as i64,
    }
}

fn cast_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let x = ctx.input(0)?;
    let from_float = ctx.b.graph.dtype(x).is_none_or(DType::is_float);
    let gradient = match ctx.dy.first().copied().flatten() {
        Some(dy) if from_float => Some(ctx.b.cast_like(dy, x)?),
        _ => None,
    };
    Ok(vec![gradient])
}
