//! Rectifiers and gates, written with other ops.
use super::composed::composed;
use crate::{Builder, Code, Error, Node, OpDef, Result, Value};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    composed("Celu", 12, celu, "y = max(x, 0) + min(α·(e^(x/α) - 1), 0)"),
    composed("Elu", 6, |b, n| elu(b, n, 1.0, 1.0), "y = x where x ≥ 0, α·(e^x - 1) elsewhere"),
    composed("HardSigmoid", 6, hard_sigmoid, "y = min(max(α·x + β, 0), 1)"),
    composed("HardSwish", 14, hard_swish, "y = x · min(max(x/6 + 1/2, 0), 1)"),
    composed("Mish", 18, mish, "y = x · tanh(ln(1 + e^x))"),
    composed("PRelu", 7, prelu, "y = x where x ≥ 0, slope · x elsewhere"),
    composed("Selu", 6, selu, "y = γ·x where x > 0, γ·α·(e^x - 1) elsewhere"),
    composed("Shrink", 9, shrink, "y = x - bias where x > λ, x + bias where x < -λ, 0 between"),
    composed("Softsign", 1, softsign, "y = x / (1 + |x|)"),
    composed("Swish", 24, swish, "y = x · σ(α·x)"),
    composed("ThresholdedRelu", 10, thresholded, "y = x where x > α, 0 elsewhere"),
];

fn x(node: &Node) -> Result<Value> {
    node.input(0).ok_or_else(|| Error::new(Code::TYPES, "operand 0 is missing"))
}

fn number(node: &Node, attr: &str, default: f64) -> Result<f64> {
    Ok(node.float(attr)?.map_or(default, f64::from))
}

/// `Where (x <op> bound, a, b)`.
fn choose(b: &mut Builder<'_>, op: &str, x: Value, bound: f64, yes: Value, no: Value) -> Result<Value> {
    let bound = b.scalar_like("bound", bound, x)?;
    let holds = b.op("holds", op, &[x, bound])?;
    b.op("chosen", "Where", &[holds, yes, no])
}

/// `e^min(x, 0) - 1`: without the bound its gradient would be NaN where it is not chosen.
fn decay(b: &mut Builder<'_>, x: Value) -> Result<Value> {
    let zero = b.scalar_like("zero", 0.0, x)?;
    let below = b.op("below", "Min", &[x, zero])?;
    let power = b.op("power", "Exp", &[below])?;
    b.offset(power, -1.0)
}

fn elu(b: &mut Builder<'_>, node: &Node, alpha: f64, gamma: f64) -> Result<Vec<Value>> {
    let (x, alpha, gamma) = (x(node)?, number(node, "alpha", alpha)?, number(node, "gamma", gamma)?);
    let decay = decay(b, x)?;
    let scaled = b.scale(decay, alpha)?;
    let y = choose(b, "Less", x, 0.0, scaled, x)?;
    Ok(vec![if gamma == 1.0 { y } else { b.scale(y, gamma)? }])
}

/// The defaults are those of ONNX, rounded to single precision there.
fn selu(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    elu(b, node, f64::from(1.673_263_2_f32), f64::from(1.050_701_f32))
}

fn celu(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let (x, alpha) = (x(node)?, number(node, "alpha", 1.0)?);
    let small = b.scale(x, 1.0 / alpha)?;
    let decay = decay(b, small)?;
    let scaled = b.scale(decay, alpha)?;
    Ok(vec![choose(b, "Less", x, 0.0, scaled, x)?])
}

/// `min(max(alpha · x + beta, 0), 1)`.
fn ramp(b: &mut Builder<'_>, x: Value, alpha: f64, beta: f64) -> Result<Value> {
    let (zero, one) = (b.scalar_like("zero", 0.0, x)?, b.scalar_like("one", 1.0, x)?);
    let line = b.scale(x, alpha)?;
    let line = b.offset(line, beta)?;
    b.op("ramp", "Clip", &[line, zero, one])
}

fn hard_sigmoid(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let (alpha, beta) = (number(node, "alpha", 0.2)?, number(node, "beta", 0.5)?);
    Ok(vec![ramp(b, x(node)?, alpha, beta)?])
}

fn hard_swish(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let x = x(node)?;
    let gate = ramp(b, x, 1.0 / 6.0, 0.5)?;
    Ok(vec![b.mul(x, gate)?])
}

fn mish(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let x = x(node)?;
    let softplus = b.op("softplus", "Softplus", &[x])?;
    let gate = b.op("gate", "Tanh", &[softplus])?;
    Ok(vec![b.mul(x, gate)?])
}

fn swish(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let x = x(node)?;
    let scaled = b.scale(x, number(node, "alpha", 1.0)?)?;
    let gate = b.op("gate", "Sigmoid", &[scaled])?;
    Ok(vec![b.mul(x, gate)?])
}

fn prelu(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let missing = || Error::new(Code::TYPES, "operand 1 is missing");
    let (x, slope) = (x(node)?, node.input(1).ok_or_else(missing)?);
    let scaled = b.mul(x, slope)?;
    Ok(vec![choose(b, "Less", x, 0.0, scaled, x)?])
}

fn shrink(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let (x, bias, lambda) = (x(node)?, number(node, "bias", 0.0)?, number(node, "lambd", 0.5)?);
    let (below, above) = (b.offset(x, bias)?, b.offset(x, -bias)?);
    let zero = b.scalar_like("zero", 0.0, x)?;
    let upper = choose(b, "Greater", x, lambda, above, zero)?;
    Ok(vec![choose(b, "Less", x, -lambda, below, upper)?])
}

fn softsign(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let x = x(node)?;
    let size = b.op("size", "Abs", &[x])?;
    let divisor = b.offset(size, 1.0)?;
    Ok(vec![b.div(x, divisor)?])
}

fn thresholded(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let x = x(node)?;
    let zero = b.scalar_like("zero", 0.0, x)?;
    Ok(vec![choose(b, "Greater", x, number(node, "alpha", 1.0)?, x, zero)?])
}
