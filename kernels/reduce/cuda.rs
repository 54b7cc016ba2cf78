//! Launch plans of reductions and running sums.
pub(crate) use super::cpu::Reduction;
use crate::{
    axis,
    cuda::{
        Argument, Buffer,
        Element::{self, F32},
        Launch, Module, Plan, Site, Source, THREADS, Target, buffers, int, long, walk,
    },
    strides::Walk,
};
use graft_ir::DType;

pub(crate) const SOURCES: &[Source] = &[
    Source {
        path: PATH,
        text: include_str!("reduce.cu"),
        kernels: &["reduce_columns", "reduce_parts", "reduce_rows"],
        products: &[],
        modules: |module| vec![module.clone().element(Element::Bf16), module.element(F32)],
    },
    Source {
        path: SCAN,
        text: include_str!("scan.cu"),
        kernels: &["running_sums"],
        products: &[],
        modules: |module| vec![module.clone().define(NUMBER, "float"), module.define(NUMBER, "i64")],
    },
];

const PATH: &str = "reduce/reduce.cu";
const SCAN: &str = "reduce/scan.cu";

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

fn over(site: &Site<'_>, reduced: &[bool], kind: Reduction) -> Option<Plan> {
    let (x, out) = (site.input(0)?, site.output(0)?);
    let select = |of: &[usize], which: bool| -> Vec<usize> {
        of.iter().zip(reduced).filter(|&(_, &r)| r == which).map(|(&d, _)| d).collect()
    };
    let axes = |which: bool| Axes { sizes: select(x.dims, which), strides: select(x.strides, which) };
    let fold = Fold {
        kind,
        element: site.element(0)?,
        from: Buffer::Operand(0),
        kept: axes(false),
        gone: axes(true),
        to: Buffer::Result(0),
    };
    let mut plan = Plan::default();
    if !out.is_empty() {
        fold.push(site.target, &mut plan)?;
    }
    Some(plan)
}

/// Some axes of a tensor.
pub(crate) struct Axes {
    pub(crate) sizes: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

impl Axes {
    fn len(&self) -> usize {
        self.sizes.iter().product()
    }
    fn inner(&self) -> usize {
        Walk::new(&self.sizes, [&self.strides]).inner()[0]
    }
    fn arguments(&self) -> Option<Vec<Argument>> {
        walk(&self.sizes, [&self.strides])
    }
}

/// A reduction of what lies somewhere, over the axes that go, to somewhere else, row-major.
pub(crate) struct Fold {
    pub(crate) kind: Reduction,
    pub(crate) element: Element,
    pub(crate) from: Buffer,
    pub(crate) kept: Axes,
    pub(crate) gone: Axes,
    pub(crate) to: Buffer,
}

impl Fold {
    /// How many steps a slab has: all where the results alone fill the device.
    fn steps(&self, target: Target, blocks: usize) -> usize {
        let (count, most) = (self.gone.len(), 2 * target.multiprocessors / blocks.max(1));
        let slabs = most.clamp(1, count.div_ceil(LEAST_STEPS).max(1));
        count.div_ceil(slabs).max(1)
    }
    /// Appends its launches.
    pub(crate) fn push(&self, target: Target, plan: &mut Plan) -> Option<()> {
        let (n, count, bytes) = (self.kept.len(), self.gone.len(), self.element.bytes());
        let side_by_side = self.kept.inner() == 1 && self.gone.inner() != 1;
        let steps = self.steps(target, if side_by_side { n.div_ceil(THREADS) } else { n });
        let slabs = count.div_ceil(steps).max(1);
        let is_whole = slabs == 1;
        let parts = if is_whole { Buffer::Null } else { plan.reserve(8 * slabs * n) };
        let mut arguments = buffers([self.from, parts, self.to]);
        arguments.extend([n, count, steps].map(long));
        arguments.extend(self.kind.numbers().map(int));
        arguments.extend(self.kept.arguments()?.into_iter().chain(self.gone.arguments()?));
        let module = Module::file(PATH).element(self.element);
        let mut launch = if side_by_side {
            Launch::elements("reduce_columns", module, (n, 1), arguments)
        } else {
            Launch::rows("reduce_rows", module, (n, steps), arguments)
        };
        launch.grid[1] = slabs;
        let stored = if is_whole { 4 * n } else { 8 * slabs * n };
        plan.launches.push(launch.costs(n * count, n * count * bytes + stored));
        if !is_whole {
            plan.launches.push(self.joined(parts, slabs));
        }
        Some(())
    }
    /// The launch that joins the slabs' parts.
    fn joined(&self, parts: Buffer, slabs: usize) -> Launch {
        let n = self.kept.len();
        let mut arguments = buffers([parts, self.to]);
        arguments.extend([long(n), long(self.gone.len()), int(slabs)]);
        arguments.extend(self.kind.numbers().map(int));
        let module = Module::file(PATH).element(self.element);
        let moved = 8 * slabs * n + 4 * n;
        Launch::elements("reduce_parts", module, (n, 1), arguments).costs(n * slabs, moved)
    }
}

/// The macro that stands for the type of the elements.
const NUMBER: &str = "GRAFT_NUMBER";

/// The launches of a `CumSum` along an axis that is known beforehand.
pub(super) fn cumsum(site: &Site<'_>) -> Option<Plan> {
    let (x, axes) = (site.input(0)?, site.input(1)?);
    let number = match x.dtype {
        DType::Float => "float",
        DType::Int32 => "int",
        DType::Int64 => "i64",
        _ => return None,
    };
    let at = match axes.dtype {
        DType::Int32 => i64::from(i32::from_ne_bytes(axes.known?.try_into().ok()?)),
        _ => i64::from_ne_bytes(axes.known?.try_into().ok()?),
    };
    let at = axis(at, x.dims.len()).ok()?;
    let flag = |name: &str| Some(int(usize::from(site.node.int(name).ok()?.unwrap_or(0) != 0)));
    let (n, inner) = (*x.dims.get(at)?, x.dims[at + 1..].iter().product::<usize>());
    if x.is_empty() {
        return Some(Plan::default());
    }
    let mut arguments = buffers([Buffer::Operand(0), Buffer::Result(0)]);
    arguments.extend([x.len() / n, n, inner].map(long));
    arguments.extend([flag("exclusive")?, flag("reverse")?]);
    let module = Module::file(SCAN).define(NUMBER, number);
    let launch = Launch::elements("running_sums", module, (x.len() / n, 1), arguments);
    Some(Plan { launches: vec![launch.costs(x.len(), 2 * x.len() * x.dtype.bits() / 8)], workspace: 0 })
}
