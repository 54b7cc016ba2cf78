//! Changes of the element type.
use super::{Case, case};
use crate::draw::Draw;
use graft_ir::DType;

pub(crate) const CASES: &[Case] = &[
    case("Identity", |d| d.unary(Draw::any)),
    case("Cast", |d| {
        let to = d.one_of(&[DType::Double, DType::Float, DType::Float16]);
        d.unary(Draw::any).int("to", to as i64)
    }),
    case("CastLike", |d| {
        let like = d.any(&[1]);
        d.unary(Draw::any).fed(like)
    }),
];
