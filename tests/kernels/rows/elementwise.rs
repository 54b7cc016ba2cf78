//! Element-wise ops.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::{Array, Attr, DType};

pub(super) const ROWS: &[Row] = &[
    ("Abs", |d| signed(d, Bound::Exact)),
    ("Ceil", |d| wild(d, Bound::Exact)),
    ("Cos", |d| wild(d, ROUNDED)),
    ("Erf", |d| wild(d, ROUNDED)),
    ("Exp", |d| wild(d, ROUNDED)),
    ("Floor", |d| wild(d, Bound::Exact)),
    ("Gelu", gelu),
    ("IsNaN", |d| wild(d, Bound::Exact)),
    ("LeakyRelu", |d| wild(d, ROUNDED).attr("alpha", Attr::Float(0.3))),
    ("Log", |d| wild(d, ROUNDED)),
    ("Neg", |d| signed(d, Bound::Exact)),
    ("Reciprocal", |d| wild(d, ROUNDED)),
    ("Relu", |d| wild(d, Bound::Exact)),
    ("Round", |d| wild(d, Bound::Exact)),
    ("Sigmoid", |d| wild(d, ROUNDED)),
    ("Sign", |d| wild(d, Bound::Exact)),
    ("Sin", |d| wild(d, ROUNDED)),
    ("Softplus", |d| wild(d, ROUNDED)),
    ("Sqrt", |d| wild(d, ROUNDED)),
    ("Tanh", |d| wild(d, ROUNDED)),
    ("graft.Gelu", |d| tame(d, SMOOTH)),
    ("graft.GeluTanh", |d| tame(d, SMOOTH)),
    ("graft.Silu", |d| wild(d, ROUNDED)),
    ("Clip", clip),
    ("Add", |d| pair(d, NUMBERS)),
    ("Sub", |d| pair(d, NUMBERS)),
    ("Mul", |d| pair(d, NUMBERS)),
    ("Div", quotient),
    ("Mod", remainder),
    ("Pow", power),
    ("Min", variadic),
    ("Max", variadic),
    ("Sum", variadic),
    ("graft.GeluGrad", gelu_grad),
    ("graft.GeluTanhGrad", gelu_grad),
    ("Equal", |d| pair(d, COMPARABLE)),
    ("Less", |d| pair(d, NUMBERS)),
    ("LessOrEqual", |d| pair(d, NUMBERS)),
    ("Greater", |d| pair(d, NUMBERS)),
    ("GreaterOrEqual", |d| pair(d, NUMBERS)),
    ("And", |d| pair(d, &[DType::Bool])),
    ("Or", |d| pair(d, &[DType::Bool])),
    ("Xor", |d| pair(d, &[DType::Bool])),
    ("Not", not),
    ("Where", choice),
    ("Cast", cast),
];

/// One rounding, of a function that is known to better than a tenth of that.
const ROUNDED: Bound = Bound::Own(1.1);

/// Functions that cancel far from zero; their constants are `float`, which costs a rounding each.
const SMOOTH: Bound = Bound::Terms(4.0);

const NUMBERS: &[DType] = &[DType::Float, DType::Double, DType::Int32, DType::Int64];
const COMPARABLE: &[DType] = &[DType::Float, DType::Double, DType::Int32, DType::Int64, DType::Bool];
const INTEGERS: &[DType] = &[DType::Int32, DType::Int64];

fn wild(d: &mut Draw, bound: Bound) -> Case {
    let dims = d.shape(4);
    Case::new(bound, [d.wild(&dims)])
}

fn tame(d: &mut Draw, bound: Bound) -> Case {
    let dims = d.shape(4);
    Case::new(bound, [d.floats(&dims, -12.0, 12.0)])
}

/// Numbers of a type that has a sign.
fn signed(d: &mut Draw, bound: Bound) -> Case {
    let dims = d.shape(4);
    if d.flip() { Case::new(bound, [d.wild(&dims)]) } else { Case::new(bound, [d.floats(&dims, -9.0, 9.0)]) }
}

/// Between bounds that are attributes before opset 11; either may be left out.
fn clip(d: &mut Draw) -> Case {
    let (low, high) = (d.uniform(-1.0, 0.5), d.uniform(0.0, 1.5));
    let case = wild(d, Bound::Exact);
    if d.one_in(4) {
        return case.opset(6).attr("min", Attr::Float(low as f32)).attr("max", Attr::Float(high as f32));
    }
    let mut bound = |value: f64| (!d.one_in(4)).then(|| Array::float(DType::Float, vec![], vec![value]));
    let (low, high) = (bound(low), bound(high));
    let mut case = case;
    case.operands.extend([low, high]);
    case
}

fn gelu(d: &mut Draw) -> Case {
    let approximate = d.pick(&["none", "tanh"]);
    tame(d, SMOOTH).opset(20).attr("approximate", Attr::Str(approximate.into()))
}

/// Elements of `dtype`: integers with extremes, floating-point numbers with what is special.
fn numbers(d: &mut Draw, dtype: DType, dims: &[usize]) -> Array {
    match dtype {
        DType::Float => d.wild(dims),
        DType::Double => Array { dtype, ..d.wild(dims) },
        DType::Bool => d.elements(dtype, dims),
        _ if d.one_in(4) => {
            let near = d.ints(dtype, dims, 0, 3);
            let far = if dtype == DType::Int32 { i64::from(i32::MAX) } else { i64::MAX };
            let data = near.ints().unwrap_or_default().iter().map(|i| far - i).collect();
            Array::int(dtype, dims.to_vec(), data)
        }
        _ => d.ints(dtype, dims, -5, 5),
    }
}

/// Two shapes that broadcast together.
fn shapes(d: &mut Draw) -> [Vec<usize>; 2] {
    let dims = d.shape(4);
    let other = d.broadcast_of(&dims);
    if d.flip() { [dims, other] } else { [other, dims] }
}

fn pair(d: &mut Draw, types: &[DType]) -> Case {
    let (dtype, [a, b]) = (d.pick(types), shapes(d));
    Case::new(ROUNDED, [numbers(d, dtype, &a), numbers(d, dtype, &b)])
}

fn variadic(d: &mut Draw) -> Case {
    let (dtype, dims, n) = (d.pick(NUMBERS), d.shape(3), 1 + d.below(4));
    let whole = d.below(n);
    let operands: Vec<Array> = (0..n)
        .map(|i| {
            let dims = if i == whole { dims.clone() } else { d.broadcast_of(&dims) };
            // A sum whose terms cancel is judged by the terms, which must then be finite.
            if dtype.is_float() && n > 2 {
                Array { dtype, ..d.floats(&dims, -4.0, 4.0) }
            } else {
                numbers(d, dtype, &dims)
            }
        })
        .collect();
    let bound = if n > 2 { Bound::Terms(n as f64) } else { ROUNDED };
    Case::new(bound, operands)
}

/// Integers are divided by anything but 0.
fn divisor(d: &mut Draw, dtype: DType, dims: &[usize]) -> Array {
    let sign = if d.flip() { 1 } else { -1 };
    let data = d.ints(dtype, dims, 1, 5).ints().map(|v| v.iter().map(|i| i * sign).collect());
    Array::int(dtype, dims.to_vec(), data.unwrap_or_default())
}

fn quotient(d: &mut Draw) -> Case {
    let (dtype, [a, b]) = (d.pick(&[DType::Float, DType::Int32, DType::Int64]), shapes(d));
    let lhs = numbers(d, dtype, &a);
    let rhs = if dtype == DType::Float { d.wild(&b) } else { divisor(d, dtype, &b) };
    Case::new(ROUNDED, [lhs, rhs])
}

fn remainder(d: &mut Draw) -> Case {
    let (dtype, [a, b]) = (d.pick(INTEGERS), shapes(d));
    let fmod = d.flip();
    Case::new(Bound::Exact, [numbers(d, dtype, &a), divisor(d, dtype, &b)]).int("fmod", i64::from(fmod))
}

/// Positive bases to any power, any base to the powers 2 and 3.
fn power(d: &mut Draw) -> Case {
    let [a, b] = shapes(d);
    if d.flip() {
        return Case::new(ROUNDED, [d.floats(&a, 0.01, 4.0), d.floats(&b, -4.0, 4.0)]);
    }
    let exponent = f64::from(d.pick(&[2u8, 3]));
    Case::new(ROUNDED, [d.floats(&a, -4.0, 4.0), Array::float(DType::Float, vec![], vec![exponent])])
}

fn gelu_grad(d: &mut Draw) -> Case {
    let dims = d.shape(4);
    Case::new(SMOOTH, [d.floats(&dims, -4.0, 4.0), d.floats(&dims, -12.0, 12.0)])
}

fn not(d: &mut Draw) -> Case {
    let dims = d.shape(4);
    Case::new(Bound::Exact, [d.elements(DType::Bool, &dims)])
}

const SIZED: &[DType] = &[
    DType::Bool,
    DType::Uint8,
    DType::Float16,
    DType::Bfloat16,
    DType::Float,
    DType::Int32,
    DType::Int64,
    DType::Double,
];

fn choice(d: &mut Draw) -> Case {
    let (dtype, dims) = (d.pick(SIZED), d.shape(4));
    let mut shapes = [d.broadcast_of(&dims), d.broadcast_of(&dims), d.broadcast_of(&dims)];
    let whole = d.below(3);
    shapes[whole] = dims;
    let [c, a, b] = shapes;
    let condition = d.elements(DType::Bool, &c);
    Case::new(Bound::Exact, [condition, d.elements(dtype, &a), d.elements(dtype, &b)])
}

fn cast(d: &mut Draw) -> Case {
    let (from, to, dims) = (d.pick(SIZED), d.pick(SIZED), d.shape(4));
    let operand = match from {
        DType::Float | DType::Double if d.flip() => Array { dtype: from, ..d.wild(&dims) },
        DType::Float | DType::Double => Array { dtype: from, ..d.floats(&dims, -1000.0, 1000.0) },
        _ => d.elements(from, &dims),
    };
    Case::new(Bound::Own(1.0), [operand]).int("to", to as i64)
}
