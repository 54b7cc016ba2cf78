//! Element-wise ops in CUDA C++: the texts of the table, of which chains (`chain.rs`) make kernels.
use super::chain::{Chain, Source, kind};
use crate::{
    Device, Operands,
    cuda::{Plan, Site},
    device::Work,
};
use graft_ir::{DType, infer::dtype_attr};

/// The text of an op in CUDA C++, with `{0}`, `{1}`, … for the elements of its operands.
#[derive(Clone, Copy)]
pub enum Expression {
    /// The same for every type that the kernel serves.
    Text(&'static str),
    /// Made for the node; `None` where it cannot be.
    Made(fn(&Site<'_>) -> Option<String>),
}

/// A device's column for an op with this text.
pub(super) const fn text(text: &'static str) -> Device {
    map(Expression::Text(text))
}

/// A device's column for an op whose text depends on the node.
pub(super) const fn made(make: fn(&Site<'_>) -> Option<String>) -> Device {
    map(Expression::Made(make))
}

const fn map(expression: Expression) -> Device {
    Device { work: Work::Map(expression), ..Device::NONE }.strided(Operands::All).in_place(&[
        (0, 0),
        (1, 0),
        (2, 0),
    ])
}

impl Expression {
    /// The text for the node at `site`; `None` where there is none.
    pub fn text(self, site: &Site<'_>) -> Option<String> {
        match self {
            Expression::Text(text) => Some(text.into()),
            Expression::Made(make) => make(site),
        }
    }
}

/// The launch of one op by itself.
pub(crate) fn plan(expression: Expression, site: &Site<'_>) -> Option<Plan> {
    let result = site.output(0)?;
    let mut chain = Chain::new(result.dims);
    let mut operands = Vec::new();
    for (i, shape) in site.inputs.iter().enumerate() {
        // One that is left out has no place in a text.
        operands.push(Source::Input(shape.map_or(usize::MAX, |shape| chain.input(shape, i))));
    }
    let op = chain.op(&expression.text(site)?, &operands, result.dtype);
    chain.plan(&[op], site.target)
}

/// `a op b op c …` by a function of two.
pub(super) fn fold(site: &Site<'_>, function: &str) -> Option<String> {
    let rest = 1..site.inputs.len();
    Some(rest.fold("{0}".into(), |sum: String, i| format!("{function}({sum}, {{{i}}})")))
}

/// Integer division is refused unless no divisor can be 0, which would have to be reported.
pub(super) fn divided(site: &Site<'_>, floats: &str, integers: &str) -> Option<String> {
    let dtype = site.input(0)?.dtype;
    if !dtype.is_int() {
        return Some(floats.into());
    }
    let divisors = site.input(1)?.ints()?;
    divisors.iter().all(|&n| n != 0 && n != -1).then(|| integers.into())
}

/// Casts, but for those that would be rounded twice.
pub(super) fn cast(site: &Site<'_>) -> Option<String> {
    let (from, to) = (site.input(0)?.dtype, dtype_attr(site.node, "to").ok()??);
    let is_half = |d: DType| matches!(d, DType::Bfloat16 | DType::Float16);
    let is_short = |d: DType| matches!(d, DType::Float | DType::Bool | DType::Uint8) || is_half(d);
    if is_half(to) {
        return is_short(from).then(|| "convert<float>({0})".into());
    }
    kind(to).map(|to| format!("convert<{to}>({{0}})"))
}

/// Bounds are operands, or attributes before opset 11.
pub(super) fn clip(site: &Site<'_>) -> Option<String> {
    let bound = |i: usize, attr: &str| -> Option<Option<String>> {
        match site.input(i) {
            Some(bound) if bound.len() == 1 => Some(Some(format!("{{{i}}}"))),
            Some(_) => None,
            None => Some(site.node.float(attr).ok()?.map(number)),
        }
    };
    let (low, high) = (bound(1, "min")?, bound(2, "max")?);
    let raised = low.map_or("{0}".into(), |low| format!("({{0}} < {low} ? {low} : {{0}})"));
    Some(high.map_or(raised.clone(), |high| format!("({raised} > {high} ? {high} : {raised})")))
}

/// A float as C++ text, bit by bit.
fn number(x: f32) -> String {
    format!("as_float({:#x}u)", x.to_bits())
}
