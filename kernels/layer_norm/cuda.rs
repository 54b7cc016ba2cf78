//! Launch plans of normalisations, with a mean and without.
use crate::{
    axis,
    cuda::{
        Argument::Float,
        Buffer::{self, Null, Operand, Result},
        Element, Launch, Module, Plan, Site, Slabs, Source, THREADS, buffers, int, long,
    },
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("layer_norm.cu"),
    kernels: &["normalise", "normalise_columns", "normalise_columns_sum", "normalise_grad"],
    products: &[],
    modules: |_| vec![module(Element::Bf16, true), module(Element::F32, true), module(Element::F32, false)],
}];

const PATH: &str = "layer_norm/layer_norm.cu";

fn module(element: Element, is_centred: bool) -> Module {
    Module::file(PATH).element(element).define("GRAFT_CENTRED", u8::from(is_centred))
}

/// Rows and their length, where the axes from `axis` on are normalised.
fn rows(site: &Site<'_>, x: usize) -> Option<(usize, usize)> {
    let (dims, at) = (site.input(x)?.dims, site.node.int("axis").ok()?.unwrap_or(-1));
    let at = axis(at, dims.len()).ok()?;
    Some((dims[..at].iter().product(), dims[at..].iter().product()))
}

/// The launches of a layer norm (x, scale, bias) => (y, mean, inv_std).
pub(super) fn layer_norm(site: &Site<'_>) -> Option<Plan> {
    let bias = site.input(2).map_or(Null, |_| Operand(2));
    forward(site, true, bias, [Some(1), Some(2)], 1e-5)
}

/// The launches of `graft.RmsNorm (x, scale) => (y, inv_rms)`.
pub(crate) fn rms_norm(site: &Site<'_>) -> Option<Plan> {
    forward(site, false, Null, [None, Some(1)], 1e-6)
}

fn forward(
    site: &Site<'_>,
    is_centred: bool,
    bias: Buffer,
    moments: [Option<usize>; 2],
    epsilon: f32,
) -> Option<Plan> {
    let (element, (rows, n)) = (site.element(0)?, rows(site, 0)?);
    if rows * n == 0 {
        // Rows of nothing have moments that are no numbers, which the host knows.
        return None;
    }
    let epsilon = site.node.float("epsilon").ok()?.unwrap_or(epsilon);
    let [mean, inverse] = moments.map(|i| i.filter(|&i| site.wants(i)).map_or(Null, Result));
    let mut plan = Plan::default();
    let y = plan.result(site.wants(0), 0, rows * n * element.bytes());
    let mut arguments = buffers([Operand(0), Operand(1), bias, y, mean, inverse]);
    arguments.extend([long(rows), long(n), Float(epsilon)]);
    let launch = Launch::rows("normalise", module(element, is_centred), (rows, n), arguments);
    plan.launches.push(launch.costs(8 * rows * n, 2 * rows * n * element.bytes()));
    Some(plan)
}

/// The launches of `graft.LayerNormGrad (dy, x, scale, bias, mean, inv_std) => (dx, dscale, dbias)`.
pub(super) fn layer_norm_grad(site: &Site<'_>) -> Option<Plan> {
    backward(site, true, [Operand(4), Operand(5)])
}

/// The launches of `graft.RmsNormGrad (dy, x, scale, inv_rms) => (dx, dscale)`.
pub(crate) fn rms_norm_grad(site: &Site<'_>) -> Option<Plan> {
    backward(site, false, [Null, Operand(3)])
}

fn backward(site: &Site<'_>, is_centred: bool, moments: [Buffer; 2]) -> Option<Plan> {
    let (element, (rows, n)) = (site.element(0)?, rows(site, 1)?);
    if rows * n == 0 {
        return None;
    }
    let (module, [means, inverses]) = (module(element, is_centred), moments);
    let mut plan = Plan::default();
    // The sums over rows come first: dx may lie where dy does.
    if site.wants(1) || site.wants(2) {
        columns(&mut plan, site, &module, [rows, n], element, moments);
    }
    if site.wants(0) {
        let mut arguments = buffers([Operand(0), Operand(1), Operand(2), means, inverses, Result(0)]);
        arguments.extend([long(rows), long(n)]);
        let launch = Launch::rows("normalise_grad", module, (rows, n), arguments);
        plan.launches.push(launch.costs(12 * rows * n, 3 * rows * n * element.bytes()));
    }
    Some(plan)
}

/// The sums over all rows, cut into slabs.
fn columns(
    plan: &mut Plan,
    site: &Site<'_>,
    module: &Module,
    [rows, n]: [usize; 2],
    element: Element,
    [means, inverses]: [Buffer; 2],
) {
    let slabs = Slabs::cut(rows);
    let parts = [1, 2].map(|i| if site.wants(i) { plan.reserve(8 * slabs.n * n) } else { Null });
    let mut arguments = buffers([Operand(0), Operand(1), means, inverses, parts[0], parts[1]]);
    arguments.extend([long(rows), long(n), long(slabs.steps_per_slab)]);
    let grid = [n.div_ceil(THREADS), slabs.n, 1];
    let launch = Launch::new("normalise_columns", module.clone(), grid, arguments);
    plan.launches.push(launch.costs(5 * rows * n, 2 * rows * n * element.bytes() + 16 * slabs.n * n));
    for (i, part) in parts.into_iter().enumerate().filter(|(_, part)| *part != Null) {
        let mut arguments = buffers([part, Result(i + 1)]);
        arguments.extend([long(n), int(slabs.n)]);
        let launch = Launch::elements("normalise_columns_sum", module.clone(), (n, 1), arguments);
        plan.launches.push(launch.costs(slabs.n * n, 8 * slabs.n * n));
    }
}
