//! Ops that work element by element, with broadcasting.
mod cast;
mod cpu;

use crate::{Call, Kernel, Operands, Run, dtype, floats, math};
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
    unary("Abs", |c| cpu::map(c, f32::abs)),
    unary("Ceil", |c| cpu::map(c, f32::ceil)),
    unary("Cos", |c| cpu::map(c, |x| f64::from(x).cos() as f32)),
    unary("Erf", |c| cpu::map(c, math::erf)),
    unary("Exp", |c| cpu::map(c, math::exp)),
    unary("Floor", |c| cpu::map(c, f32::floor)),
    unary("Gelu", gelu),
    Kernel::new("IsNaN", |_, t| floats(t, 1), |c| cpu::unary(c, |x: f32| u8::from(x.is_nan())))
        .strided(Operands::All),
    unary("LeakyRelu", leaky_relu),
    unary("Log", |c| cpu::map(c, |x| f64::from(x).ln() as f32)),
    unary("Neg", |c| cpu::map(c, |x| -x)),
    unary("Reciprocal", |c| cpu::map(c, |x| 1.0 / x)),
    unary("Relu", |c| cpu::map(c, |x| if x < 0.0 { 0.0 } else { x })),
    unary("Round", |c| cpu::map(c, f32::round_ties_even)),
    unary("Sigmoid", |c| cpu::map(c, math::sigmoid)),
    unary("Sign", |c| cpu::map(c, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() })),
    unary("Sin", |c| cpu::map(c, |x| f64::from(x).sin() as f32)),
    unary("Softplus", |c| cpu::map(c, softplus)),
    unary("Sqrt", |c| cpu::map(c, f32::sqrt)),
    unary("Tanh", |c| cpu::map(c, math::tanh)),
    unary("graft.Gelu", |c| cpu::map(c, math::gelu)),
    unary("graft.GeluTanh", |c| cpu::map(c, math::gelu_tanh)),
    unary("graft.Silu", |c| cpu::map(c, math::silu)),
    Kernel::new("Clip", bounded, clip).strided(Operands::Only(&[0])).in_place(&[(0, 0)]),
    arithmetic("Add", |c| cpu::arithmetic(c, cpu::Arithmetic::Add)),
    arithmetic("Sub", |c| cpu::arithmetic(c, cpu::Arithmetic::Sub)),
    arithmetic("Mul", |c| cpu::arithmetic(c, cpu::Arithmetic::Mul)),
    arithmetic("Div", cpu::divide),
    Kernel::new("Mod", integers, cpu::modulo).strided(Operands::All).in_place(&[(0, 0), (1, 0)]),
    variadic("Max", |c| cpu::variadic(c, cpu::Arithmetic::Max)),
    variadic("Min", |c| cpu::variadic(c, cpu::Arithmetic::Min)),
    variadic("Sum", |c| cpu::variadic(c, cpu::Arithmetic::Add)),
    float_pair("Pow", cpu::pow),
    float_pair("graft.GeluGrad", |c| cpu::zip(c, math::gelu_grad)),
    float_pair("graft.GeluTanhGrad", |c| cpu::zip(c, math::gelu_tanh_grad)),
    comparison("Equal", |c| cpu::compare(c, cpu::Comparison::Equal)),
    comparison("Less", |c| cpu::compare(c, cpu::Comparison::Less)),
    comparison("LessOrEqual", |c| cpu::compare(c, cpu::Comparison::LessOrEqual)),
    comparison("Greater", |c| cpu::compare(c, cpu::Comparison::Greater)),
    comparison("GreaterOrEqual", |c| cpu::compare(c, cpu::Comparison::GreaterOrEqual)),
    logical("And", |c| cpu::logic(c, |a, b| a & b)),
    logical("Or", |c| cpu::logic(c, |a, b| a | b)),
    logical("Xor", |c| cpu::logic(c, |a, b| a ^ b)),
    logical("Not", cpu::not),
    Kernel::new("Where", selectable, cpu::select).strided(Operands::All),
    Kernel::new("Cast", castable, cast::cast).strided(Operands::All),
];

/// A condition, and two operands of the same type whose elements have a whole number of bytes.
fn selectable(_: &Node, types: &[Option<Type>]) -> bool {
    let sized = dtype(types, 1).is_some_and(|d| matches!(d.bits(), 8 | 16 | 32 | 64));
    dtype(types, 0) == Some(DType::Bool) && sized && dtype(types, 1) == dtype(types, 2)
}

fn castable(node: &Node, types: &[Option<Type>]) -> bool {
    let to = dtype_attr(node, "to").ok().flatten();
    to.is_some_and(cast::serves) && dtype(types, 0).is_some_and(cast::serves)
}
