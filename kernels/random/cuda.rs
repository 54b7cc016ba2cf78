//! Launch plans of draws and dropout.
use crate::cuda::{
    Argument::{Float, Long},
    Buffer::{Operand, Result},
    Element, Launch, Module, Plan, Site, Source, buffers, long,
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("random.cu"),
    kernels: &["dropout", "uniform"],
    products: &[],
    modules: |module| vec![module.clone().element(Element::Bf16), module.element(Element::F32)],
}];

const PATH: &str = "random/random.cu";

/// The launches of `graft.Uniform (seed, step, tensor, shape) => (u)`.
pub(super) fn uniform(site: &Site<'_>) -> Option<Plan> {
    let u = site.output(0)?;
    let element = Element::of(u.dtype)?;
    if u.is_empty() {
        return Some(Plan::default());
    }
    let mut arguments = buffers([Operand(0), Operand(1), Operand(2), Result(0)]);
    arguments.push(long(u.len()));
    let launch = Launch::elements("uniform", Module::file(PATH).element(element), (u.len(), 1), arguments);
    let launch = launch.costs(12 * u.len(), u.len() * element.bytes());
    Some(Plan { launches: vec![launch], workspace: 0 })
}

/// The launches of `graft.Dropout (x, seed, step, tensor) => (y)`.
pub(super) fn dropout(site: &Site<'_>) -> Option<Plan> {
    let (x, element) = (site.input(0)?, site.element(0)?);
    let (threshold, scale) = (site.node.int("threshold").ok()??, site.node.float("scale").ok()??);
    if x.is_empty() {
        return Some(Plan::default());
    }
    let mut arguments = buffers([Operand(0), Operand(1), Operand(2), Operand(3), Result(0)]);
    arguments.extend([long(x.len()), Long(threshold), Float(scale)]);
    let launch = Launch::elements("dropout", Module::file(PATH).element(element), (x.len(), 1), arguments);
    let launch = launch.costs(12 * x.len(), 2 * x.len() * element.bytes());
    Some(Plan { launches: vec![launch], workspace: 0 })
}
