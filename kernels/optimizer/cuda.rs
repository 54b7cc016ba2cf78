//! Launch plans of optimiser steps.
use crate::cuda::{
    Argument::{self, Float},
    Buffer::{Operand, Result},
    Element, Launch, Module, PER_THREAD, Plan, Site, Source, buffers, long,
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("optimizer.cu"),
    kernels: &["adamw", "sgd"],
    products: &[],
    modules: |module| vec![module],
}];

const PATH: &str = "optimizer/optimizer.cu";

/// An attribute as an argument.
fn attr(site: &Site<'_>, name: &str, default: f32) -> Option<Argument> {
    Some(Float(site.node.float(name).ok()?.unwrap_or(default)))
}

/// A plan of one launch over `n` elements of f32, of which each moves so many bytes.
fn plan(kernel: &'static str, n: usize, arguments: Vec<Argument>, [flops, bytes]: [usize; 2]) -> Plan {
    if n == 0 {
        return Plan::default();
    }
    let launch = Launch::elements(kernel, Module::file(PATH), (n, PER_THREAD), arguments);
    Plan { launches: vec![launch.costs(flops * n, bytes * n)], workspace: 0 }
}

/// The launches of `graft.AdamW (p, g, m, v, lr, step) => (p', m', v')`.
pub(super) fn adamw(site: &Site<'_>) -> Option<Plan> {
    let (p, steps) = (site.input(0)?, site.input(5)?);
    let is_f32 = (0..5).all(|i| site.element(i) == Some(Element::F32));
    let all = (0..3).all(|i| site.wants(i));
    let mut arguments = buffers([0, 1, 2, 3, 4, 5].map(Operand));
    arguments.extend([0, 1, 2].map(|i| Argument::Buffer(Result(i))));
    arguments.extend([long(p.len()), long(usize::from(steps.len() != 1))]);
    for (name, default) in [("beta1", 0.9), ("beta2", 0.999), ("epsilon", 1e-8), ("weight_decay", 0.01)] {
        arguments.push(attr(site, name, default)?);
    }
    (is_f32 && all).then(|| plan("adamw", p.len(), arguments, [16, 28]))
}

/// The launches of `graft.Sgd (p, g, lr) => (p')`.
pub(super) fn sgd(site: &Site<'_>) -> Option<Plan> {
    let n = site.input(0)?.len();
    let mut arguments = buffers([Operand(0), Operand(1), Operand(2), Result(0)]);
    arguments.extend([long(n), attr(site, "weight_decay", 0.0)?]);
    let is_f32 = (0..3).all(|i| site.element(i) == Some(Element::F32));
    is_f32.then(|| plan("sgd", n, arguments, [4, 12]))
}
