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
];
