//! Launch plans of softmax and its gradient.
use crate::{
    axis,
    cuda::{
        Argument,
        Buffer::{self, Operand, Result},
        Element, Launch, Module, Plan, Site, Source, buffers, int, long,
    },
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("softmax.cu"),
    kernels: &["softmax", "softmax_grad"],
    products: &[],
    modules: |module| vec![module.clone().element(Element::Bf16), module.element(Element::F32)],
}];

const PATH: &str = "softmax/softmax.cu";

/// How sizes split around the axis: outer, its own, inner. Before opset 13 all axes from it on are one, if `coerced`.
fn split(site: &Site<'_>, dims: &[usize], coerced: bool) -> Option<[usize; 3]> {
    let at = axis(site.node.int("axis").ok()?.unwrap_or(if coerced { 1 } else { -1 }), dims.len()).ok()?;
    let at = at.min(dims.len());
    let (outer, rest) = (dims[..at].iter().product(), &dims[at..]);
    match rest {
        [n, inner @ ..] if !coerced => Some([outer, *n, inner.iter().product()]),
        _ => Some([outer, rest.iter().product(), 1]),
    }
}

/// The launches of a `Softmax`, or of a `LogSoftmax`.
pub(super) fn softmax(site: &Site<'_>, is_log: bool) -> Option<Plan> {
    let sizes = split(site, site.input(0)?.dims, site.opset < 13)?;
    let last = [int(usize::from(is_log))];
    rows(site, "softmax", sizes, (&buffers([Operand(0), Result(0)]), &last))
}

/// The launches of `graft.SoftmaxGrad (dy, y) => (dx)`.
pub(super) fn softmax_grad(site: &Site<'_>) -> Option<Plan> {
    let sizes = split(site, site.input(1)?.dims, false)?;
    rows(site, "softmax_grad", sizes, (&buffers([Operand(0), Operand(1), Result(0)]), &[]))
}

/// A launch of a team for each row.
fn rows(
    site: &Site<'_>,
    kernel: &'static str,
    [outer, n, inner]: [usize; 3],
    (pointers, last): (&[Argument], &[Argument]),
) -> Option<Plan> {
    let (element, rows) = (site.element(0)?, outer * inner);
    if rows * n == 0 {
        return Some(Plan::default());
    }
    let arguments = [pointers, &[rows, n, inner].map(long), last].concat();
    let launch = Launch::rows(kernel, Module::file(PATH).element(element), (rows, n), arguments);
    let moved = pointers.iter().filter(|p| matches!(p, Argument::Buffer(b) if *b != Buffer::Null)).count();
    let launch = launch.costs(5 * rows * n, moved * rows * n * element.bytes());
    Some(Plan { launches: vec![launch], workspace: 0 })
}
