//! Ops that work element by element, with broadcasting.
use crate::{Fact, OpDef, Vjp};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[OpDef {
    name: "Identity",
    since: 1,
    infer: |ctx| Ok(vec![Fact { ty: ctx.ty(0).cloned(), known: ctx.known(0) }]),
    eval: Some(|ctx| Ok(vec![ctx.input(0)?.clone()])),
    vjp: Vjp::Rule(|ctx| Ok(vec![Some(ctx.dy()?)])),
    doc: "y = x",
}];
