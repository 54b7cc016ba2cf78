//! Launch plans of reductions.
use super::cpu::Reduction;
use crate::{
    axis,
    cuda::{
        Argument, Buffer,
        Element::{self, F32},
        Launch, Module, Plan, Site, Source, THREADS, buffers, int, long, walk,
    },
    strides::Walk,
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("reduce.cu"),
    kernels: &["reduce_columns", "reduce_parts", "reduce_rows"],
    products: &[],
    modules: |module| vec![module.clone().element(Element::Bf16), module.element(F32)],
}];

const PATH: &str = "reduce/reduce.cu";

/// A slab has at least so many steps: below, starting its blocks costs more than it saves.
const LEAST_STEPS: usize = 256;

impl Reduction {
    /// What `with_kind` and `End` in `reduce.cu` call it.
    fn numbers(self) -> [usize; 2] {
        match self {
            Reduction::Sum => [0, 0],
            Reduction::Mean => [0, 1],
            Reduction::SumSquare => [1, 0],
            Reduction::L2 => [1, 2],
            Reduction::Max => [2, 0],
            Reduction::Min => [3, 0],
        }
    }
}

/// The launches of a reduction over the axes that an operand or attribute lists; over all where none is given.
pub(super) fn reduce(site: &Site<'_>, kind: Reduction) -> Option<Plan> {
    let rank = site.input(0)?.dims.len();
    let is_listed = site.input(1).is_some() || site.node.attrs.contains_key("axes");
    let axes = if is_listed { site.ints(1, "axes")? } else { Vec::new() };
    let keeps_all = axes.is_empty() && site.node.int("noop_with_empty_axes").ok()?.unwrap_or(0) != 0;
    let mut reduced = vec![axes.is_empty() && !keeps_all; rank];
    for a in axes {
        *reduced.get_mut(axis(a, rank).ok()?)? = true;
    }
    over(site, &reduced, kind)
}

/// The launches of a sum down to the sizes of the result, from which the operand was broadcast.
pub(super) fn reduce_to(site: &Site<'_>) -> Option<Plan> {
    let (x, to) = (site.input(0)?, site.output(0)?);
    let missing = x.dims.len().checked_sub(to.dims.len())?;
    let reduced: Vec<bool> = (0..x.dims.len()).map(|i| i < missing || to.dims[i - missing] == 1).collect();
    over(site, &reduced, Reduction::Sum)
}

/// How many steps of a reduction a slab has: all where the results alone fill the device.
fn per_slab(site: &Site<'_>, blocks: usize, count: usize) -> usize {
    let slabs =
        (2 * site.target.multiprocessors / blocks.max(1)).clamp(1, count.div_ceil(LEAST_STEPS).max(1));
    count.div_ceil(slabs).max(1)
}

fn over(site: &Site<'_>, reduced: &[bool], kind: Reduction) -> Option<Plan> {
    let (x, out, element) = (site.input(0)?, site.output(0)?, site.element(0)?);
    let select = |of: &[usize], which: bool| -> Vec<usize> {
        of.iter().zip(reduced).filter(|&(_, &r)| r == which).map(|(&d, _)| d).collect()
    };
    let [kept, gone] = [false, true].map(|which| (select(x.dims, which), select(x.strides, which)));
    let (n, count) = (out.len(), gone.0.iter().product::<usize>());
    let mut plan = Plan::default();
    if n == 0 {
        return Some(plan);
    }
    let side_by_side =
        Walk::new(&kept.0, [&kept.1]).inner() == [1] && Walk::new(&gone.0, [&gone.1]).inner() != [1];
    let blocks = if side_by_side { n.div_ceil(THREADS) } else { n };
    let steps = per_slab(site, blocks, count);
    let slabs = count.div_ceil(steps).max(1);
    let is_whole = slabs == 1;
    let parts = if is_whole { Buffer::Null } else { plan.reserve(8 * slabs * n) };
    let [kind, end] = kind.numbers().map(int);
    let mut arguments = buffers([Buffer::Operand(0), parts, Buffer::Result(0)]);
    arguments.extend([long(n), long(count), long(steps), kind, end]);
    arguments.extend(walk(&kept.0, [&kept.1])?.into_iter().chain(walk(&gone.0, [&gone.1])?));
    let module = Module::file(PATH).element(element);
    let mut launch = if side_by_side {
        Launch::elements("reduce_columns", module.clone(), (n, 1), arguments)
    } else {
        Launch::rows("reduce_rows", module.clone(), (n, steps), arguments)
    };
    launch.grid[1] = slabs;
    let stored = if is_whole { n * element.bytes() } else { 8 * slabs * n };
    plan.launches.push(launch.costs(n * count, n * count * element.bytes() + stored));
    if !is_whole {
        plan.launches.push(joined(module, [n, count, slabs], parts, [kind, end], element));
    }
    Some(plan)
}

/// The launch that joins the slabs' parts.
fn joined(
    module: Module,
    [n, count, slabs]: [usize; 3],
    parts: Buffer,
    [kind, end]: [Argument; 2],
    element: Element,
) -> Launch {
    let mut arguments = buffers([parts, Buffer::Result(0)]);
    arguments.extend([long(n), long(count), int(slabs), kind, end]);
    let moved = 8 * slabs * n + n * element.bytes();
    Launch::elements("reduce_parts", module, (n, 1), arguments).costs(n * slabs, moved)
}
