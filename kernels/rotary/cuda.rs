//! Launch plans of the rotation of positions.
use crate::{
    cuda::{
        Argument::Float,
        Buffer::{Operand, Result},
        Element, Launch, Module, Plan, Site, Source, long, walk,
    },
    strides::repeated,
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("rotary.cu"),
    kernels: &["rotary"],
    products: &[],
    modules: |module| vec![module.clone().element(Element::Bf16), module.element(Element::F32)],
}];

const PATH: &str = "rotary/rotary.cu";

/// The launches of `graft.Rotary (x, cos, sin) => (y)`.
pub(super) fn rotary(site: &Site<'_>) -> Option<Plan> {
    turn(site, [0, 1, 2], 1.0)
}

/// The launches of `graft.RotaryGrad (dy, x, cos, sin) => (dx)`.
pub(super) fn rotary_grad(site: &Site<'_>) -> Option<Plan> {
    turn(site, [0, 2, 3], -1.0)
}

fn turn(site: &Site<'_>, [x, cos, sin]: [usize; 3], direction: f32) -> Option<Plan> {
    let (turned, angles, element) = (site.input(x)?, site.input(cos)?, site.element(x)?);
    site.output(0)?;
    if turned.is_empty() {
        return Some(Plan::default());
    }
    let lead = turned.dims.len() - 1;
    let of_angles = repeated(angles.dims, angles.strides, turned.dims);
    let (rows, half) = (turned.rows(), turned.cols() / 2);
    let mut arguments = vec![Operand(x).into(), long(turned.strides[lead]), Operand(cos).into()];
    arguments.extend([Operand(sin).into(), Result(0).into(), long(rows), long(half), Float(direction)]);
    arguments.extend(walk(&turned.dims[..lead], [&turned.strides[..lead], &of_angles[..lead]])?);
    let module = Module::file(PATH).element(element);
    let launch = Launch::elements("rotary", module, (rows * half, 1), arguments);
    let launch = launch.costs(6 * rows * half, (4 * rows * half + 2 * angles.len()) * element.bytes());
    Some(Plan { launches: vec![launch], workspace: 0 })
}
