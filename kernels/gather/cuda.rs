//! Launch plans of `Gather` and its gradient.
use crate::{
    axis,
    cuda::{
        Argument::Int,
        Buffer::{Null, Operand, Result},
        Element, Launch, Module, Plan, Shape, Site, Source, buffers, long,
    },
    movement::cuda::{fill, unit},
};
use graft_ir::DType;

pub(crate) const SOURCES: &[Source] = &[
    Source {
        path: GATHER,
        text: include_str!("gather.cu"),
        kernels: &["gather"],
        products: &[],
        modules: |module| vec![module.define("GRAFT_UNIT", "u32")],
    },
    Source {
        path: GRADIENT,
        text: include_str!("gather_grad.cu"),
        kernels: &["gather_grad"],
        products: &[],
        modules: |module| vec![module.clone().element(Element::Bf16), module.element(Element::F32)],
    },
];

const GATHER: &str = "gather/gather.cu";
const GRADIENT: &str = "gather/gather_grad.cu";

/// Elements that a thread of `gather` moves.
const PER_THREAD: usize = 4;

/// The most blocks along the second axis of a grid.
const LONGEST_GRID: usize = 65_535;

/// How sizes split around the axis: outer, size, inner.
fn split(site: &Site<'_>, dims: &[usize]) -> Option<[usize; 3]> {
    let at = axis(site.node.int("axis").ok()?.unwrap_or(0), dims.len()).ok()?;
    Some([dims[..at].iter().product(), dims[at], dims[at + 1..].iter().product()])
}

/// Whether numbers have 8 bytes.
pub(crate) fn is_wide(index: &Shape<'_>) -> i32 {
    i32::from(index.dtype == DType::Int64)
}

/// The launches of a `Gather`.
pub(super) fn gather(site: &Site<'_>) -> Option<Plan> {
    let (x, index, y) = (site.input(0)?, site.input(1)?, site.output(0)?);
    let ([_, size, inner], total) = (split(site, x.dims)?, y.len());
    if total == 0 {
        return Some(Plan::default());
    }
    let bytes = x.dtype.bits() / 8;
    let module = Module::file(GATHER).define("GRAFT_UNIT", unit(bytes)?);
    let mut arguments = buffers([Operand(0), Operand(1)]);
    arguments.extend([Int(is_wide(&index)), Result(0).into()]);
    arguments.extend([total, size, index.len(), inner].map(long));
    let launch = Launch::elements("gather", module, (total, PER_THREAD), arguments);
    Some(Plan { launches: vec![launch.costs(0, 2 * total * bytes)], workspace: 0 })
}

/// The launches of `graft.GatherGrad (dy, indices, shape) => (dx)`.
pub(super) fn gather_grad(site: &Site<'_>) -> Option<Plan> {
    let (dy, index, dx) = (site.input(0)?, site.input(1)?, site.output(0)?);
    let (element, [outer, size, inner]) = (site.element(0)?, split(site, dx.dims)?);
    if dx.is_empty() {
        return Some(Plan::default());
    }
    let mut launches = vec![fill(element.bytes(), dx.len(), Result(0), 0, Null)?];
    if !dy.is_empty() {
        let mut arguments = buffers([Operand(0), Operand(1)]);
        arguments.extend([Int(is_wide(&index)), Result(0).into()]);
        arguments.extend([size, index.len(), inner].map(long));
        let module = Module::file(GRADIENT).element(element);
        let mut launch = Launch::new("gather_grad", module, [index.len(), outer, 1], arguments);
        // Behind what the warps exchange, a byte for each thread.
        launch.shared += launch.block;
        launches.push(launch.costs(dy.len(), (dy.len() + dx.len()) * element.bytes()));
    }
    (outer <= LONGEST_GRID).then_some(Plan { launches, workspace: 0 })
}
