//! Functions of one number.
use super::{Case, case};
use crate::draw::Draw;

pub(crate) const CASES: &[Case] = &[
    case("Sqrt", |d| d.unary(|d, dims| d.floats(dims, 0.3, 2.0))),
    case("Reciprocal", |d| d.unary(|d, dims| d.floats(dims, 0.3, 2.0))),
    case("Exp", |d| d.unary(Draw::any)),
    case("Log", |d| d.unary(|d, dims| d.floats(dims, 0.3, 2.0))),
    case("Erf", |d| d.unary(Draw::any)),
    case("Sin", |d| d.unary(Draw::any)),
    case("Cos", |d| d.unary(Draw::any)),
    case("Tan", |d| d.unary(|d, dims| d.floats(dims, -1.0, 1.0))),
    case("Asin", |d| d.unary(|d, dims| d.floats(dims, -0.8, 0.8))),
    case("Acos", |d| d.unary(|d, dims| d.floats(dims, -0.8, 0.8))),
    case("Atan", |d| d.unary(Draw::any)),
    case("Sinh", |d| d.unary(Draw::any)),
    case("Cosh", |d| d.unary(Draw::any)),
    case("Asinh", |d| d.unary(Draw::any)),
    case("Acosh", |d| d.unary(|d, dims| d.floats(dims, 1.5, 3.0))),
    case("Atanh", |d| d.unary(|d, dims| d.floats(dims, -0.8, 0.8))),
];
