//! Activation functions.
use super::{Case, case};
use crate::draw::Draw;
use graft_ir::{Array, Attr, DType};

pub(crate) const CASES: &[Case] = &[
    case("Relu", |d| d.unary(Draw::nonzero)),
    case("LeakyRelu", |d| d.unary(Draw::nonzero).with("alpha", Attr::Float(0.25))),
    case("Sigmoid", |d| d.unary(Draw::any)),
    case("Tanh", |d| d.unary(Draw::any)),
    case("Softplus", |d| d.unary(Draw::any)),
    case("Clip", |d| {
        let bound = |v| Array::float(DType::Float, vec![], vec![v]);
        let example = d.unary(|d, dims| d.distinct(dims, 0));
        match d.below(3) {
            0 => example.constant(bound(-0.11)).constant(bound(0.12)),
            1 => example.absent().constant(bound(0.12)),
            _ => example,
        }
    }),
    case("Dropout", |d| d.unary(Draw::any)),
    case("Gelu", |d| {
        let form = d.one_of(&["none", "tanh"]);
        d.unary(Draw::any).with("approximate", Attr::Str(form.into()))
    }),
    case("graft.Gelu", |d| d.unary(Draw::any)),
    case("graft.GeluTanh", |d| d.unary(Draw::any)),
    case("graft.Silu", |d| d.unary(Draw::any)),
];
