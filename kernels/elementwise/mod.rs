//! Ops that work element by element, with broadcasting.
mod cast;
pub(crate) mod chain;
mod cpu;
pub(crate) mod cuda;
pub(crate) mod epilogue;

use crate::{Call, Kernel, Operands, Run, cuda::Site, dtype, floats, math};
use cuda::{clip as clip_text, divided, fold, made, text};
use graft_ir::{DType, Node, Result, Type, infer::dtype_attr};

const fn unary(name: &'static str, run: Run) -> Kernel {
    Kernel::new(name, |_, t| floats(t, 1), run).strided(Operands::All).in_place(&[(0, 0)])
}

/// Operands of the same numeric type, at least one.
fn alike(_: &Node, types: &[Option<Type>]) -> bool {
    let numeric = |d: DType| matches!(d, DType::Float | DType::Double | DType::Int32 | DType::Int64);
    dtype(types, 0).is_some_and(numeric) && (1..types.len()).all(|i| dtype(types, i) == dtype(types, 0))
}

/// Two operands of the same numeric type.
fn numbers(node: &Node, types: &[Option<Type>]) -> bool {
    types.len() == 2 && alike(node, types)
}

/// Two operands of the same integer type.
fn integers(node: &Node, types: &[Option<Type>]) -> bool {
    numbers(node, types) && dtype(types, 0).is_some_and(DType::is_int)
}

/// Two operands of the same numeric type or bool.
fn comparable(node: &Node, types: &[Option<Type>]) -> bool {
    numbers(node, types) || booleans(node, types)
}

fn booleans(_: &Node, types: &[Option<Type>]) -> bool {
    types.iter().flatten().all(|t| t.dtype == DType::Bool) && !types.is_empty()
}

const fn arithmetic(name: &'static str, run: Run) -> Kernel {
    Kernel::new(name, numbers, run).strided(Operands::All).in_place(&[(0, 0), (1, 0)])
}

const fn variadic(name: &'static str, run: Run) -> Kernel {
    Kernel::new(name, alike, run).strided(Operands::All).in_place(&[(0, 0)]).flops(|_, operands, results| {
        let each = operands.len().saturating_sub(1);
        (each * results[0].iter().product::<usize>()) as u64
    })
}

const fn float_pair(name: &'static str, run: Run) -> Kernel {
    let supports = |_: &Node, types: &[Option<Type>]| types.len() == 2 && floats(types, 2);
    Kernel::new(name, supports, run).strided(Operands::All).in_place(&[(0, 0), (1, 0)])
}

const fn comparison(name: &'static str, run: Run) -> Kernel {
    Kernel::new(name, comparable, run).strided(Operands::All)
}

const fn logical(name: &'static str, run: Run) -> Kernel {
    Kernel::new(name, booleans, run).strided(Operands::All)
}

fn gelu(call: &mut Call<'_>) -> Result<()> {
    let tanh = call.node.str("approximate")? == Some("tanh");
    if tanh { cpu::map(call, math::gelu_tanh) } else { cpu::map(call, math::gelu) }
}

fn leaky_relu(call: &mut Call<'_>) -> Result<()> {
    let alpha = call.node.float("alpha")?.map_or(0.01, f64::from);
    cpu::map(call, move |x| if x < 0.0 { (alpha * f64::from(x)) as f32 } else { x })
}

/// `ln(1 + e^x)`, without overflow.
fn softplus(x: f32) -> f32 {
    let x = f64::from(x);
    (x.max(0.0) + (-x.abs()).exp().ln_1p()) as f32
}

/// The bounds are attributes before opset 11; NaN stays.
fn clip(call: &mut Call<'_>) -> Result<()> {
    let bound = |i: usize, attr: &str| match call.get(i) {
        Some(_) => call.scalar(i).map(Some),
        None => call.node.float(attr),
    };
    let (low, high) = (bound(1, "min")?, bound(2, "max")?);
    let (low, high) = (low.unwrap_or(f32::NEG_INFINITY), high.unwrap_or(f32::INFINITY));
    cpu::map(call, move |x| {
        let raised = if x < low { low } else { x };
        if raised > high { high } else { raised }
    })
}

/// Numbers with bounds of the same type, where these are operands.
fn bounded(node: &Node, types: &[Option<Type>]) -> bool {
    let fits = |i: usize| node.input(i).is_none() || dtype(types, i) == Some(DType::Float);
    floats(types, 1) && fits(1) && fits(2)
}

pub(crate) const KERNELS: &[Kernel] = &[
    unary("Abs", |c| cpu::map(c, f32::abs)).device(text("magnitude({0})")),
    unary("Ceil", |c| cpu::map(c, f32::ceil)).device(text("round_up({0})")),
    unary("Cos", |c| cpu::map(c, |x| f64::from(x).cos() as f32)).device(text("cos({0})")),
    unary("Erf", |c| cpu::map(c, math::erf)).device(text("erf({0})")),
    unary("Exp", |c| cpu::map(c, math::exp)).device(text("exp({0})")),
    unary("Floor", |c| cpu::map(c, f32::floor)).device(text("round_down({0})")),
    unary("Gelu", gelu).device(made(gelu_text)),
    Kernel::new("IsNaN", |_, t| floats(t, 1), |c| cpu::unary(c, |x: f32| u8::from(x.is_nan())))
        .strided(Operands::All)
        .device(text("{0} != {0}")),
    unary("LeakyRelu", leaky_relu).device(made(leaky_relu_text)),
    unary("Log", |c| cpu::map(c, |x| f64::from(x).ln() as f32)).device(text("log({0})")),
    unary("Neg", |c| cpu::map(c, |x| -x)).device(text("-{0}")),
    unary("Reciprocal", |c| cpu::map(c, |x| 1.0 / x)).device(text("1.f / {0}")),
    unary("Relu", |c| cpu::map(c, |x| if x < 0.0 { 0.0 } else { x })).device(text("{0} < 0.f ? 0.f : {0}")),
    unary("Round", |c| cpu::map(c, f32::round_ties_even)).device(text("round_even({0})")),
    unary("Sigmoid", |c| cpu::map(c, math::sigmoid)).device(text("sigmoid({0})")),
    unary("Sign", |c| cpu::map(c, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() }))
        .device(text("sign({0})")),
    unary("Sin", |c| cpu::map(c, |x| f64::from(x).sin() as f32)).device(text("sin({0})")),
    unary("Softplus", |c| cpu::map(c, softplus)).device(text("softplus({0})")),
    unary("Sqrt", |c| cpu::map(c, f32::sqrt)).device(text("sqrt({0})")),
    unary("Tanh", |c| cpu::map(c, math::tanh)).device(text("tanh({0})")),
    unary("graft.Gelu", |c| cpu::map(c, math::gelu)).device(text("gelu({0})")),
    unary("graft.GeluTanh", |c| cpu::map(c, math::gelu_tanh)).device(text("gelu_tanh({0})")),
    unary("graft.Silu", |c| cpu::map(c, math::silu)).device(text("silu({0})")),
    Kernel::new("Clip", bounded, clip)
        .strided(Operands::Only(&[0]))
        .in_place(&[(0, 0)])
        .device(made(clip_text)),
    arithmetic("Add", |c| cpu::arithmetic(c, cpu::Arithmetic::Add)).device(text("plus({0}, {1})")),
    arithmetic("Sub", |c| cpu::arithmetic(c, cpu::Arithmetic::Sub)).device(text("minus({0}, {1})")),
    arithmetic("Mul", |c| cpu::arithmetic(c, cpu::Arithmetic::Mul)).device(text("times({0}, {1})")),
    arithmetic("Div", cpu::divide).device(made(|site| divided(site, "{0} / {1}", "{0} / {1}"))),
    Kernel::new("Mod", integers, cpu::modulo)
        .strided(Operands::All)
        .in_place(&[(0, 0), (1, 0)])
        .device(made(modulo_text)),
    variadic("Max", |c| cpu::variadic(c, cpu::Arithmetic::Max)).device(made(|site| fold(site, "maximum"))),
    variadic("Min", |c| cpu::variadic(c, cpu::Arithmetic::Min)).device(made(|site| fold(site, "minimum"))),
    variadic("Sum", |c| cpu::variadic(c, cpu::Arithmetic::Add)).device(made(|site| fold(site, "plus"))),
    float_pair("Pow", cpu::pow).device(text("pow({0}, {1})")),
    float_pair("graft.GeluGrad", |c| cpu::zip(c, math::gelu_grad)).device(text("gelu_grad({0}, {1})")),
    float_pair("graft.GeluTanhGrad", |c| cpu::zip(c, math::gelu_tanh_grad))
        .device(text("gelu_tanh_grad({0}, {1})")),
    comparison("Equal", |c| cpu::compare(c, cpu::Comparison::Equal)).device(text("{0} == {1}")),
    comparison("Less", |c| cpu::compare(c, cpu::Comparison::Less)).device(text("{0} < {1}")),
    comparison("LessOrEqual", |c| cpu::compare(c, cpu::Comparison::LessOrEqual)).device(text("{0} <= {1}")),
    comparison("Greater", |c| cpu::compare(c, cpu::Comparison::Greater)).device(text("{0} > {1}")),
    comparison("GreaterOrEqual", |c| cpu::compare(c, cpu::Comparison::GreaterOrEqual))
        .device(text("{0} >= {1}")),
    logical("And", |c| cpu::logic(c, |a, b| a & b)).device(text("{0} && {1}")),
    logical("Or", |c| cpu::logic(c, |a, b| a | b)).device(text("{0} || {1}")),
    logical("Xor", |c| cpu::logic(c, |a, b| a ^ b)).device(text("{0} != {1}")),
    logical("Not", cpu::not).device(text("!{0}")),
    Kernel::new("Where", selectable, cpu::select).strided(Operands::All).device(text("{0} ? {1} : {2}")),
    Kernel::new("Cast", castable, cast::cast).strided(Operands::All).device(made(cuda::cast)),
];

fn gelu_text(site: &Site<'_>) -> Option<String> {
    let is_tanh = site.node.str("approximate").ok()? == Some("tanh");
    Some(if is_tanh { "gelu_tanh({0})".into() } else { "gelu({0})".into() })
}

fn leaky_relu_text(site: &Site<'_>) -> Option<String> {
    let alpha = site.node.float("alpha").ok()?.map_or(0.01f64, f64::from);
    let alpha = format!("as_double({:#x}ull)", alpha.to_bits());
    Some(format!("{{0}} < 0.f ? static_cast<float>({alpha} * static_cast<double>({{0}})) : {{0}}"))
}

fn modulo_text(site: &Site<'_>) -> Option<String> {
    let is_truncated = site.node.int("fmod").ok()?.unwrap_or(0) != 0;
    divided(site, "", if is_truncated { "{0} % {1}" } else { "modulo({0}, {1})" })
}

/// A condition, and two operands of the same type whose elements have a whole number of bytes.
fn selectable(_: &Node, types: &[Option<Type>]) -> bool {
    let sized = dtype(types, 1).is_some_and(|d| matches!(d.bits(), 8 | 16 | 32 | 64));
    dtype(types, 0) == Some(DType::Bool) && sized && dtype(types, 1) == dtype(types, 2)
}

fn castable(node: &Node, types: &[Option<Type>]) -> bool {
    let to = dtype_attr(node, "to").ok().flatten();
    to.is_some_and(cast::serves) && dtype(types, 0).is_some_and(cast::serves)
}
