//! Rectifiers and gates.
use super::{Case, case};
use crate::draw::Draw;
use graft_ir::Attr;

pub(crate) const CASES: &[Case] = &[
    case("Celu", |d| d.unary(Draw::nonzero).with("alpha", Attr::Float(0.75))),
    case("Elu", |d| d.unary(Draw::nonzero).with("alpha", Attr::Float(0.75))),
    case("HardSigmoid", |d| {
        d.unary(Draw::any).with("alpha", Attr::Float(0.125)).with("beta", Attr::Float(0.5))
    }),
    case("HardSwish", |d| d.unary(Draw::any)),
    case("Mish", |d| d.unary(Draw::any)),
    case("PRelu", |d| {
        let dims = d.dims(0, 3);
        let slope = d.narrowed(&dims);
        let (x, slope) = (d.nonzero(&dims), d.any(&slope));
        d.node().x(x).x(slope)
    }),
    case("Selu", |d| d.unary(Draw::nonzero)),
    case("Shrink", |d| {
        d.unary(|d, dims| d.distinct(dims, 0))
            .with("lambd", Attr::Float(0.25))
            .with("bias", Attr::Float(0.125))
    }),
    case("Softsign", |d| d.unary(Draw::nonzero)),
    case("Swish", |d| d.unary(Draw::any).with("alpha", Attr::Float(1.5))),
    case("ThresholdedRelu", |d| d.unary(|d, dims| d.distinct(dims, 0)).with("alpha", Attr::Float(0.25))),
];
