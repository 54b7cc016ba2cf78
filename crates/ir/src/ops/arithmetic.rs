//! Arithmetic of numbers, integers included: `Add`, `Mul`, `Pow`, `Max`, …
use super::{
    broadcast::{broadcast_fact, combine, common_dtype, known_pairs, map, same_type, wide},
    composed::composed,
};
use crate::{
    Array, Backward, Code, Data, Dim, Error, Eval, EvalRule, Fact, Infer, OpDef, Result, Value, Vjp,
};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    binary("Add", 7, |c| arithmetic(c, |a, b| a + b, |a, b| Ok(a + b)), Vjp::Rule(sum_vjp), "y = a + b"),
    binary("Sub", 7, |c| arithmetic(c, |a, b| a - b, |a, b| Ok(a - b)), Vjp::Rule(sub_vjp), "y = a - b"),
    binary(
        "Mul",
        7,
        |c| arithmetic(c, |a, b| a * b, |a, b| Ok(a.wrapping_mul(b))),
        Vjp::Rule(mul_vjp),
        "y = a · b",
    ),
    binary(
        "Div",
        7,
        |c| arithmetic(c, |a, b| a / b, divide),
        Vjp::Rule(div_vjp),
        "y = a / b; integers are rounded towards 0",
    ),
    binary("Mod", 10, modulo, Vjp::Missing, "y = a mod b with the sign of b, or with fmod = 1 the sign of a"),
    OpDef {
        name: "Pow",
        since: 7,
        infer: |ctx| Ok(vec![broadcast_fact(ctx, 0..2, ctx.dtype(0))?]),
        eval: Some(power),
        vjp: Vjp::Rule(pow_vjp),
        doc: "y = a ^ b, in the type of a",
    },
    variadic("Min", |c| extremum(c, least, |a, b| Ok(a.min(b))), Vjp::Rule(extremum_vjp), "y = the least"),
    variadic("Max", |c| extremum(c, most, |a, b| Ok(a.max(b))), Vjp::Rule(extremum_vjp), "y = the largest"),
    variadic(
        "Sum",
        |c| extremum(c, |a, b| a + b, |a, b| Ok(a + b)),
        Vjp::Rule(sum_vjp),
        "y = the sum of all operands",
    ),
    composed(
        "Mean",
        8,
        |b, node| {
            let operands: Vec<Value> = node.reads().collect();
            let sum = b.op("sum", "Sum", &operands)?;
            Ok(vec![b.scale(sum, 1.0 / operands.len() as f64)?])
        },
        "y = the mean of all operands",
    ),
    unary(
        "Neg",
        |c| number(c, |x| -x, |x| -x),
        Vjp::Rule(|ctx| {
            let dy = ctx.dy()?;
            Ok(vec![Some(ctx.b.neg(dy)?)])
        }),
        "y = -x",
    ),
    unary("Abs", |c| number(c, f64::abs, i128::abs), Vjp::Rule(abs_vjp), "y = |x|"),
    OpDef {
        since: 9,
        ..unary("Sign", |c| number(c, sign, i128::signum), Vjp::Zero, "y = -1, 0 or 1; NaN for NaN")
    },
    OpDef {
        since: 11,
        ..unary(
            "Round",
            |c| map(c, f64::round_ties_even),
            Vjp::Zero,
            "y = the nearest integer, halves to even",
        )
    },
    unary("Floor", |c| map(c, f64::floor), Vjp::Zero, "y = the largest integer ≤ x"),
    unary("Ceil", |c| map(c, f64::ceil), Vjp::Zero, "y = the smallest integer ≥ x"),
];

const fn binary(name: &'static str, since: i64, eval: EvalRule, vjp: Vjp, doc: &'static str) -> OpDef {
    OpDef { name, since, infer: infer_binary, eval: Some(eval), vjp, doc }
}

const fn variadic(name: &'static str, eval: EvalRule, vjp: Vjp, doc: &'static str) -> OpDef {
    OpDef { name, since: 8, infer: infer_variadic, eval: Some(eval), vjp, doc }
}

const fn unary(name: &'static str, eval: EvalRule, vjp: Vjp, doc: &'static str) -> OpDef {
    OpDef { name, since: 6, infer: same_type, eval: Some(eval), vjp, doc }
}

fn infer_binary(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let known = ctx.known(0).zip(ctx.known(1)).and_then(|(a, b)| {
        known_pairs(&a, &b, |a, b| match ctx.node.op.as_str() {
            "Add" => Some(a.clone() + b.clone()),
            "Sub" => Some(a.clone() - b.clone()),
            "Mul" => Some(a.clone() * b.clone()),
            "Div" => known_quotient(a, b),
            _ => Some(Dim::from(known_number(remainder, a, b)?)),
        })
    });
    Ok(vec![broadcast_fact(ctx, 0..2, common_dtype(ctx, 0..2)?)?.with_known(known)])
}

fn infer_variadic(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let operands = 0..ctx.node.inputs.len();
    let known = || {
        let mut all = operands.clone().map(|i| ctx.known(i));
        let first = all.next()??;
        all.try_fold(first, |a, b| match ctx.node.op.as_str() {
            "Sum" => known_pairs(&a, &b?, |a, b| Some(a.clone() + b.clone())),
            "Min" => known_pairs(&a, &b?, |a, b| Some(Dim::min(a, b))),
            _ => known_pairs(&a, &b?, |a, b| Some(Dim::max(a, b))),
        })
    };
    let fact = broadcast_fact(ctx, operands.clone(), common_dtype(ctx, operands.clone())?)?;
    Ok(vec![fact.with_known(known())])
}

fn known_quotient(a: &Dim, b: &Dim) -> Option<Dim> {
    known_number(divide, a, b).map(Dim::from).or_else(|| a.div_exact(b))
}

fn known_number(f: fn(i128, i128) -> Result<i128>, a: &Dim, b: &Dim) -> Option<i64> {
    f(a.as_const()?.into(), b.as_const()?.into()).ok()?.try_into().ok()
}

fn arithmetic(
    c: &Eval<'_>,
    float: fn(f64, f64) -> f64,
    int: fn(i128, i128) -> Result<i128>,
) -> Result<Vec<Array>> {
    Ok(vec![combine(c.input(0)?, c.input(1)?, float, int)?])
}

fn extremum(
    c: &Eval<'_>,
    float: fn(f64, f64) -> f64,
    int: fn(i128, i128) -> Result<i128>,
) -> Result<Vec<Array>> {
    let rest = c.inputs().skip(1);
    Ok(vec![rest.into_iter().try_fold(c.input(0)?.clone(), |a, b| combine(&a, b, float, int))?])
}

fn number(c: &Eval<'_>, float: fn(f64) -> f64, int: fn(i128) -> i128) -> Result<Vec<Array>> {
    let x = c.input(0)?;
    let data = match &x.data {
        Data::Float(v) => Data::Float(v.iter().map(|&x| float(x)).collect()),
        Data::Int(_) => Data::Int(wide(x)?.into_iter().map(|x| int(x) as i64).collect()),
    };
    Ok(vec![Array { data, ..x.clone() }])
}

/// NaN, if either is.
fn least(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

/// NaN, if either is.
fn most(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn sign(x: f64) -> f64 {
    if x == 0.0 || x.is_nan() { x } else { x.signum() }
}

fn divide(a: i128, b: i128) -> Result<i128> {
    a.checked_div(b).ok_or_else(|| Error::new(Code::VALUE, format!("integer division of {a} by {b}")))
}

/// The remainder with the sign of the divisor.
fn remainder(a: i128, b: i128) -> Result<i128> {
    let r = truncated(a, b)?;
    Ok(if r != 0 && (r < 0) != (b < 0) { r + b } else { r })
}

/// The remainder with the sign of the dividend.
fn truncated(a: i128, b: i128) -> Result<i128> {
    a.checked_rem(b).ok_or_else(|| Error::new(Code::VALUE, format!("integer remainder of {a} by {b}")))
}

fn modulo(c: &Eval<'_>) -> Result<Vec<Array>> {
    let fmod = c.node.int("fmod")?.unwrap_or(0) != 0;
    if fmod { arithmetic(c, |a, b| a % b, truncated) } else { arithmetic(c, float_remainder, remainder) }
}

/// The remainder with the sign of the divisor.
fn float_remainder(a: f64, b: f64) -> f64 {
    let r = a % b;
    if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
}

/// The result has the base's type; the exponent may have any numeric type.
fn power(c: &Eval<'_>) -> Result<Vec<Array>> {
    let (a, b) = (c.input(0)?, c.input(1)?);
    if let (Data::Int(_), Data::Int(_)) = (&a.data, &b.data) {
        let float = |a: f64, b: f64| a.powf(b);
        return Ok(vec![combine(a, b, float, |a, b| Ok(integer_power(a, b)))?]);
    }
    let (x, y) = (as_floats(a)?, as_floats(b)?);
    let result = combine(&x, &y, f64::powf, |a, _| Ok(a))?;
    if a.dtype.is_float() {
        return Ok(vec![result]);
    }
    let whole = result.floats()?.iter().map(|&x| x as i64).collect();
    Ok(vec![Array::int(a.dtype, result.dims, whole)])
}

fn as_floats(a: &Array) -> Result<Array> {
    match &a.data {
        Data::Float(_) => Ok(a.clone()),
        Data::Int(_) => {
            let floats = wide(a)?.into_iter().map(|x| x as f64).collect();
            Ok(Array::float(crate::DType::Double, a.dims.clone(), floats))
        }
    }
}

/// By squaring, wrapping; a negative exponent gives what is left of the fraction.
fn integer_power(base: i128, exponent: i128) -> i128 {
    if exponent < 0 {
        return match base {
            1 => 1,
            -1 => 1 - 2 * (exponent & 1),
            _ => 0,
        };
    }
    let (mut power, mut square, mut rest) = (1i128, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            power = power.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        rest >>= 1;
    }
    power
}

fn sum_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let dy = ctx.dy()?;
    ctx.each(|ctx, _, x| ctx.b.reduce_to(dy, x))
}

fn sub_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let dy = ctx.dy()?;
    ctx.each(|ctx, i, x| {
        // Reduced first: there is less to negate.
        let sum = ctx.b.reduce_to(dy, x)?;
        if i == 0 { Ok(sum) } else { ctx.b.neg(sum) }
    })
}

fn mul_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, operands) = (ctx.dy()?, [ctx.input(0)?, ctx.input(1)?]);
    ctx.each(|ctx, i, x| {
        let product = ctx.b.mul(dy, operands[1 - i])?;
        ctx.b.reduce_to(product, x)
    })
}

/// `da = dy/b`, `db = -y·dy/b`.
fn div_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, b, y) = (ctx.dy()?, ctx.input(1)?, ctx.output(0)?);
    let quotient = ctx.b.div(dy, b)?;
    ctx.each(|ctx, i, x| {
        if i == 0 {
            return ctx.b.reduce_to(quotient, x);
        }
        let product = ctx.b.mul(quotient, y)?;
        let sum = ctx.b.reduce_to(product, x)?;
        ctx.b.neg(sum)
    })
}

/// `da = dy · b · a^(b-1)`, 0 where b is 0; `db = dy · y · ln a`, 0 where a is 0.
fn pow_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, a, b) = (ctx.dy()?, ctx.input(0)?, ctx.input(1)?);
    ctx.each(|ctx, i, x| {
        let slope = if i == 0 { pow_slope(ctx, a, b)? } else { exponent_slope(ctx, a)? };
        let product = ctx.b.mul(dy, slope)?;
        ctx.b.reduce_to(product, x)
    })
}

/// `b · a^(b-1)`; short where the exponent is a constant number, as in the variance of a norm.
fn pow_slope(ctx: &mut Backward<'_, '_>, a: Value, b: Value) -> Result<Value> {
    let number = ctx.constant(1).filter(|t| t.len() == 1).and_then(|t| t.to_f64());
    if let Some(&[exponent]) = number.as_deref()
        && exponent != 0.0
    {
        let power = match exponent {
            2.0 => a,
            _ => {
                let less = ctx.b.scalar_like("exponent", exponent - 1.0, a)?;
                ctx.b.op("power", "Pow", &[a, less])?
            }
        };
        return ctx.b.scale(power, exponent);
    }
    let b = ctx.b.cast_like(b, a)?;
    let less = ctx.b.offset(b, -1.0)?;
    let power = ctx.b.op("power", "Pow", &[a, less])?;
    let slope = ctx.b.mul(b, power)?;
    let zero = ctx.b.scalar_like("zero", 0.0, a)?;
    let constant = ctx.b.op("is_constant", "Equal", &[b, zero])?;
    ctx.b.op("slope", "Where", &[constant, zero, slope])
}

/// `a^b · ln a`, where a is not 0.
fn exponent_slope(ctx: &mut Backward<'_, '_>, a: Value) -> Result<Value> {
    let y = ctx.output(0)?;
    let zero = ctx.b.scalar_like("zero", 0.0, a)?;
    let one = ctx.b.scalar_like("one", 1.0, a)?;
    let at_zero = ctx.b.op("at_zero", "Equal", &[a, zero])?;
    let safe = ctx.b.op("safe", "Where", &[at_zero, one, a])?;
    let log = ctx.b.op("log", "Log", &[safe])?;
    ctx.b.mul(y, log)
}

/// The gradient goes to the first operand that attains the extremum.
fn extremum_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (mut rest, y) = (ctx.dy()?, ctx.output(0)?);
    let operands: Vec<Value> = ctx.node.inputs.iter().copied().flatten().collect();
    let zero = ctx.b.scalar_like("zero", 0.0, rest)?;
    let mut gradients = Vec::new();
    for (i, &x) in operands.iter().enumerate() {
        let attained = ctx.b.op("attained", "Equal", &[x, y])?;
        gradients.push(None);
        if ctx.needs(i) {
            let kept = ctx.b.op("kept", "Where", &[attained, rest, zero])?;
            gradients[i] = Some(ctx.b.reduce_to(kept, x)?);
        }
        if i + 1 < operands.len() {
            rest = ctx.b.op("rest", "Where", &[attained, zero, rest])?;
        }
    }
    Ok(gradients)
}

fn abs_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, x) = (ctx.dy()?, ctx.input(0)?);
    let sign = ctx.b.op("sign", "Sign", &[x])?;
    Ok(vec![Some(ctx.b.mul(dy, sign)?)])
}
