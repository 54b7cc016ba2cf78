//! Arithmetic.
use super::{Case, case};
use crate::{draw::Draw, example::Example};
use graft_ir::Array;

pub(crate) const CASES: &[Case] = &[
    case("Add", |d| d.binary(Draw::any, Draw::any)),
    case("Sub", |d| d.binary(Draw::any, Draw::any)),
    case("Mul", |d| d.binary(Draw::any, Draw::any)),
    case("Div", |d| d.binary(Draw::any, Draw::nonzero)),
    case("Pow", |d| d.binary(positive, Draw::any)),
    case("Pow", |d| {
        let exponent = d.one_of(&[2.0, 3.0, 0.5, -1.0, 0.0]);
        let example = d.unary(positive);
        example.constant(Array::float(graft_ir::DType::Float, vec![], vec![exponent]))
    }),
    case("Min", extremum),
    case("Max", extremum),
    case("Sum", extremum),
    case("Mean", extremum),
    case("Neg", |d| d.unary(Draw::any)),
    case("Abs", |d| d.unary(Draw::nonzero)),
];

fn positive(d: &mut Draw, dims: &[usize]) -> Array {
    d.floats(dims, 0.3, 2.0)
}

/// One to three operands whose elements are never equal.
fn extremum(d: &mut Draw) -> Example {
    let dims = d.dims(0, 3);
    let n = 1 + d.below(3);
    (0..n).fold(d.node(), |example, lane| {
        let dims = d.narrowed(&dims);
        example.x(d.distinct(&dims, lane))
    })
}
