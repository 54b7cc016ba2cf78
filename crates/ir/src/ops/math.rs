//! Functions of one floating-point number: roots, exponentials, trigonometry.
use super::broadcast::{map, same_type};
use crate::{Backward, EvalRule, OpDef, Result, Value, Vjp};
use std::f64::consts::PI;

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    unary("Sqrt", 6, |c| map(c, f64::sqrt), sqrt_vjp, "y = √x"),
    unary("Reciprocal", 6, |c| map(c, f64::recip), reciprocal_vjp, "y = 1 / x"),
    unary("Exp", 6, |c| map(c, f64::exp), |ctx| slope(ctx, |ctx| ctx.output(0)), "y = e^x"),
    unary("Log", 6, |c| map(c, f64::ln), log_vjp, "y = ln x"),
    unary("Erf", 9, |c| map(c, libm::erf), |ctx| slope(ctx, erf_slope), "y = 2/√π ∫₀ˣ e^(-t²) dt"),
    unary("Sin", 7, |c| map(c, f64::sin), |ctx| slope(ctx, |ctx| function(ctx, "Cos")), "y = sin x"),
    unary("Cos", 7, |c| map(c, f64::cos), |ctx| slope(ctx, cos_slope), "y = cos x"),
    unary("Tan", 7, |c| map(c, f64::tan), |ctx| slope(ctx, tan_slope), "y = tan x"),
    unary(
        "Asin",
        7,
        |c| map(c, f64::asin),
        |ctx| slope(ctx, |ctx| root_slope(ctx, -1.0, 1.0)),
        "y = arcsin x",
    ),
    unary("Acos", 7, |c| map(c, f64::acos), acos_vjp, "y = arccos x"),
    unary("Atan", 7, |c| map(c, f64::atan), |ctx| slope(ctx, |ctx| square_slope(ctx, 1.0)), "y = arctan x"),
    unary("Sinh", 9, |c| map(c, f64::sinh), |ctx| slope(ctx, |ctx| function(ctx, "Cosh")), "y = sinh x"),
    unary("Cosh", 9, |c| map(c, f64::cosh), |ctx| slope(ctx, |ctx| function(ctx, "Sinh")), "y = cosh x"),
    unary(
        "Asinh",
        9,
        |c| map(c, f64::asinh),
        |ctx| slope(ctx, |ctx| root_slope(ctx, 1.0, 1.0)),
        "y = arsinh x",
    ),
    unary(
        "Acosh",
        9,
        |c| map(c, f64::acosh),
        |ctx| slope(ctx, |ctx| root_slope(ctx, 1.0, -1.0)),
        "y = arcosh x",
    ),
    unary(
        "Atanh",
        9,
        |c| map(c, f64::atanh),
        |ctx| slope(ctx, |ctx| square_slope(ctx, -1.0)),
        "y = artanh x",
    ),
];

const fn unary(
    name: &'static str,
    since: i64,
    eval: EvalRule,
    rule: fn(&mut Backward<'_, '_>) -> Result<Vec<Option<Value>>>,
    doc: &'static str,
) -> OpDef {
    OpDef { name, since, infer: same_type, eval: Some(eval), vjp: Vjp::Rule(rule), doc }
}

/// `dx = dy · slope`, with the slope as `write` writes it.
pub(super) fn slope(
    ctx: &mut Backward<'_, '_>,
    write: fn(&mut Backward<'_, '_>) -> Result<Value>,
) -> Result<Vec<Option<Value>>> {
    let dy = ctx.dy()?;
    let slope = write(ctx)?;
    Ok(vec![Some(ctx.b.mul(dy, slope)?)])
}

/// `op (x)` of the node's first operand.
fn function(ctx: &mut Backward<'_, '_>, op: &str) -> Result<Value> {
    let x = ctx.input(0)?;
    ctx.b.op("slope", op, &[x])
}

/// `dx = dy / (2y)`.
fn sqrt_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, y) = (ctx.dy()?, ctx.output(0)?);
    let half = ctx.b.scale(dy, 0.5)?;
    Ok(vec![Some(ctx.b.div(half, y)?)])
}

/// `dx = -dy · y²`.
fn reciprocal_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    slope(ctx, |ctx| {
        let y = ctx.output(0)?;
        let square = ctx.b.mul(y, y)?;
        ctx.b.neg(square)
    })
}

/// `dx = dy / x`.
fn log_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, x) = (ctx.dy()?, ctx.input(0)?);
    Ok(vec![Some(ctx.b.div(dy, x)?)])
}

/// `2/√π · e^(-x²)`.
fn erf_slope(ctx: &mut Backward<'_, '_>) -> Result<Value> {
    let x = ctx.input(0)?;
    let square = ctx.b.mul(x, x)?;
    let exponent = ctx.b.neg(square)?;
    let bell = ctx.b.op("bell", "Exp", &[exponent])?;
    ctx.b.scale(bell, 2.0 / PI.sqrt())
}

/// `-sin x`.
fn cos_slope(ctx: &mut Backward<'_, '_>) -> Result<Value> {
    let sin = function(ctx, "Sin")?;
    ctx.b.neg(sin)
}

/// `1 + y²`.
fn tan_slope(ctx: &mut Backward<'_, '_>) -> Result<Value> {
    let y = ctx.output(0)?;
    let square = ctx.b.mul(y, y)?;
    ctx.b.offset(square, 1.0)
}

/// `1 / (1 + sign · x²)`.
fn square_slope(ctx: &mut Backward<'_, '_>, sign: f64) -> Result<Value> {
    let x = ctx.input(0)?;
    let square = ctx.b.mul(x, x)?;
    let signed = ctx.b.scale(square, sign)?;
    let sum = ctx.b.offset(signed, 1.0)?;
    ctx.b.op("slope", "Reciprocal", &[sum])
}

/// `1 / √(sign · x² + term)`.
fn root_slope(ctx: &mut Backward<'_, '_>, sign: f64, term: f64) -> Result<Value> {
    let x = ctx.input(0)?;
    let square = ctx.b.mul(x, x)?;
    let signed = ctx.b.scale(square, sign)?;
    let sum = ctx.b.offset(signed, term)?;
    let root = ctx.b.op("root", "Sqrt", &[sum])?;
    ctx.b.op("slope", "Reciprocal", &[root])
}

fn acos_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    slope(ctx, |ctx| {
        let rising = root_slope(ctx, -1.0, 1.0)?;
        ctx.b.neg(rising)
    })
}
