//! Activation functions, and what bounds or drops elements.
use super::{
    broadcast::{map, same_type},
    math::slope,
};
use crate::{
    Array, Backward, Code, DType, Data, Error, Eval, Fact, Infer, Node, OpDef, Result, Type, Value, Vjp,
};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    OpDef {
        name: "Relu",
        since: 6,
        infer: same_type,
        eval: Some(|c| {
            let x = c.input(0)?;
            match &x.data {
                Data::Float(_) => map(c, |x| if x < 0.0 { 0.0 } else { x }),
                Data::Int(v) => {
                    let data = Data::Int(v.iter().map(|&x| x.max(0)).collect());
                    Ok(vec![Array { data, ..x.clone() }])
                }
            }
        }),
        vjp: Vjp::Rule(relu_vjp),
        doc: "y = max(x, 0)",
    },
    OpDef {
        name: "LeakyRelu",
        since: 6,
        infer: same_type,
        eval: Some(|c| {
            let alpha = leak(c.node)?;
            map(c, |x| if x < 0.0 { alpha * x } else { x })
        }),
        vjp: Vjp::Rule(leaky_relu_vjp),
        doc: "y = x where x ≥ 0, alpha · x elsewhere",
    },
    OpDef {
        name: "Sigmoid",
        since: 6,
        infer: same_type,
        eval: Some(|c| map(c, |x| 1.0 / (1.0 + (-x).exp()))),
        vjp: Vjp::Rule(|ctx| slope(ctx, sigmoid_slope)),
        doc: "y = 1 / (1 + e^-x)",
    },
    OpDef {
        name: "Tanh",
        since: 6,
        infer: same_type,
        eval: Some(|c| map(c, f64::tanh)),
        vjp: Vjp::Rule(|ctx| slope(ctx, tanh_slope)),
        doc: "y = tanh x",
    },
    OpDef {
        name: "Softplus",
        since: 1,
        infer: same_type,
        eval: Some(|c| map(c, |x| x.max(0.0) + (-x.abs()).exp().ln_1p())),
        vjp: Vjp::Rule(|ctx| {
            slope(ctx, |ctx| {
                let x = ctx.input(0)?;
                ctx.b.op("slope", "Sigmoid", &[x])
            })
        }),
        doc: "y = ln(1 + e^x)",
    },
    OpDef {
        name: "Gelu",
        since: 20,
        infer: same_type,
        eval: Some(|c| if by_tanh(c.node)? { map(c, gelu_tanh) } else { map(c, gelu) }),
        vjp: Vjp::Rule(gelu_vjp),
        doc: "y = x/2 · (1 + erf(x/√2)), or by tanh(√(2/π)·(x + 0.044715·x³)) with approximate = tanh",
    },
    OpDef {
        name: "Clip",
        since: 6,
        infer: |ctx| Ok(vec![Fact { ty: ctx.ty(0).cloned(), known: None }]),
        eval: Some(clip),
        vjp: Vjp::Rule(clip_vjp),
        doc: "y = min(max(x, min), max)",
    },
    OpDef {
        name: "Dropout",
        since: 7,
        infer: infer_dropout,
        eval: Some(dropout),
        vjp: Vjp::Rule(dropout_vjp),
        doc: "y = x: the form for inference; drawing is done by functions of this project",
    },
];

fn leak(node: &Node) -> Result<f64> {
    Ok(node.float("alpha")?.map_or(0.01, f64::from))
}

/// Whether a `Gelu` is the approximation by tanh.
fn by_tanh(node: &Node) -> Result<bool> {
    match node.str("approximate")? {
        None | Some("none") => Ok(false),
        Some("tanh") => Ok(true),
        Some(other) => {
            let message = format!("attribute `approximate` is `{other}`, expected `none` or `tanh`");
            Err(Error::new(Code::ATTRIBUTE, message))
        }
    }
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2))
}

fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
}

fn gelu_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let op = if by_tanh(ctx.node)? { "graft.GeluTanhGrad" } else { "graft.GeluGrad" };
    let call = Node::new(op, &[ctx.dy()?, ctx.input(0)?], &[]);
    Ok(vec![Some(ctx.b.call("dx", call, 1)?[0])])
}

fn relu_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, x) = (ctx.dy()?, ctx.input(0)?);
    let zero = ctx.b.scalar_like("zero", 0.0, x)?;
    let positive = ctx.b.op("positive", "Greater", &[x, zero])?;
    Ok(vec![Some(ctx.b.op("dx", "Where", &[positive, dy, zero])?)])
}

fn leaky_relu_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, x, alpha) = (ctx.dy()?, ctx.input(0)?, leak(ctx.node)?);
    let zero = ctx.b.scalar_like("zero", 0.0, x)?;
    let positive = ctx.b.op("positive", "Greater", &[x, zero])?;
    let leaked = ctx.b.scale(dy, alpha)?;
    Ok(vec![Some(ctx.b.op("dx", "Where", &[positive, dy, leaked])?)])
}

/// `y · (1 - y)`.
fn sigmoid_slope(ctx: &mut Backward<'_, '_>) -> Result<Value> {
    let y = ctx.output(0)?;
    let one = ctx.b.scalar_like("one", 1.0, y)?;
    let rest = ctx.b.sub(one, y)?;
    ctx.b.mul(y, rest)
}

/// `1 - y²`.
fn tanh_slope(ctx: &mut Backward<'_, '_>) -> Result<Value> {
    let y = ctx.output(0)?;
    let square = ctx.b.mul(y, y)?;
    let one = ctx.b.scalar_like("one", 1.0, y)?;
    ctx.b.sub(one, square)
}

/// The bounds are attributes before opset 11 and operands from then on.
fn clip(c: &Eval<'_>) -> Result<Vec<Array>> {
    let x = c.input(0)?;
    let bound = |i: usize, attr: &str| -> Result<Option<Array>> {
        match c.get(i) {
            Some(bound) if bound.len() != 1 => {
                Err(Error::new(Code::TYPES, format!("`{attr}` has {} elements, expected 1", bound.len())))
            }
            Some(bound) => Ok(Some(bound.clone())),
            None => Ok(c.node.float(attr)?.map(|v| Array::float(x.dtype, Vec::new(), vec![v.into()]))),
        }
    };
    let (low, high) = (bound(1, "min")?, bound(2, "max")?);
    let data = match &x.data {
        Data::Float(v) => {
            let read = |b: &Option<Array>| b.as_ref().map(|b| b.floats().map(|v| v[0])).transpose();
            let (low, high) = (read(&low)?, read(&high)?);
            let raise = |x: f64| low.map_or(x, |low| if x < low { low } else { x });
            let lower = |x: f64| high.map_or(x, |high| if x > high { high } else { x });
            Data::Float(v.iter().map(|&x| lower(raise(x))).collect())
        }
        Data::Int(_) => {
            let read =
                |b: &Option<Array>| b.as_ref().map(|b| super::broadcast::wide(b).map(|v| v[0])).transpose();
            let (low, high) = (read(&low)?, read(&high)?);
            let raise = |x: i128| low.map_or(x, |low| x.max(low));
            let lower = |x: i128| high.map_or(x, |high| x.min(high));
            Data::Int(super::broadcast::wide(x)?.into_iter().map(|x| lower(raise(x)) as i64).collect())
        }
    };
    Ok(vec![Array { data, ..x.clone() }])
}

/// The gradient passes where the element passed.
fn clip_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    if ctx.needs(1) || ctx.needs(2) {
        return Err(Error::new(Code::NO_GRADIENT, "the bounds of `Clip` have no gradient"));
    }
    let (dy, x, y) = (ctx.dy()?, ctx.input(0)?, ctx.output(0)?);
    let passed = ctx.b.op("passed", "Equal", &[x, y])?;
    Ok(vec![Some(ctx.b.keep_where(passed, dy)?), None, None])
}

fn infer_dropout(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let ty = ctx.ty(0).cloned();
    // Before opset 10 the mask has the type of the data.
    let dtype = |x: DType| if ctx.opset < 10 { x } else { DType::Bool };
    let mask = ty.as_ref().map(|t| Type { dtype: dtype(t.dtype), shape: t.shape.clone() });
    Ok(vec![Fact { ty, known: None }, Fact { ty: mask, known: None }])
}

fn dropout(c: &Eval<'_>) -> Result<Vec<Array>> {
    let x = c.input(0)?;
    let training = c.get(2).map(|t| t.ints().map(|t| t.first() == Some(&1))).transpose()?.unwrap_or(false);
    let ratio = c.get(1).map(|r| r.floats().map(|r| r.first().copied())).transpose()?.flatten();
    if training && ratio.unwrap_or(0.5) > 0.0 {
        return Err(training_dropout());
    }
    let mask = match c.opset {
        ..10 => Array::float(x.dtype, x.dims.clone(), vec![1.0; x.len()]),
        _ => Array::int(DType::Bool, x.dims.clone(), vec![1; x.len()]),
    };
    Ok(vec![x.clone(), mask])
}

fn dropout_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let zero = |t: &crate::Tensor| t.to_f64().is_some_and(|v| v.iter().all(|&x| x == 0.0));
    let off = |ctx: &Backward<'_, '_>, i: usize| ctx.constant(i).as_ref().is_some_and(zero);
    let inference =
        ctx.node.input(2).is_none() || off(ctx, 2) || (ctx.node.input(1).is_some() && off(ctx, 1));
    if !inference {
        return Err(training_dropout());
    }
    Ok(vec![Some(ctx.dy()?), None, None])
}

fn training_dropout() -> Error {
    Error::new(Code::NO_EVAL, "`Dropout` in training mode draws random numbers that no two runtimes agree on")
        .help("export the model for inference; an adapter brings its own dropout")
}
