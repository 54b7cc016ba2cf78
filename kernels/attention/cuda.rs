//! Launch plans of attention and its gradient.
use super::operands::Sizes;
use crate::{
    cuda::{
        Argument::{self, Float},
        Buffer::{self, Null, Operand, Result},
        Element, Launch, Module, Plan, Site, Source, int, long,
    },
    strides::repeated,
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("attention.cu"),
    kernels: &["attention", "attention_grad_keys", "attention_grad_queries"],
    products: &["attention", "attention_grad_keys", "attention_grad_queries"],
    modules: |_| vec![module(Element::Bf16, WIDEST), module(Element::F32, 64), module(Element::F32, WIDEST)],
}];

const PATH: &str = "attention/attention.cu";

/// The rows of the other side that a block has at once: `OTHER` in `attention.cu`.
const OTHER: usize = 32;

/// The widest heads that the kernels serve: a warp's sums of two results fit into its registers.
const WIDEST: usize = 128;

/// The most blocks along the second axis of a grid.
const LONGEST_GRID: usize = 65_535;

fn module(element: Element, width: usize) -> Module {
    Module::file(PATH).element(element).define("GRAFT_WIDTH", width)
}

/// An attention that the kernels serve.
struct Attention {
    sizes: Sizes,
    element: Element,
    /// The widest of its heads, rounded up.
    width: usize,
    scale: f32,
    /// Each operand's pointer and strides, from the first one on.
    tensors: Vec<Argument>,
}

impl Attention {
    /// That of the operands q, k, v and bias from number `q` on; those before are read like q.
    fn of(site: &Site<'_>, q: usize) -> Option<Attention> {
        let dims = |i: usize| Some(site.input(i)?.dims);
        let sizes = Sizes::new(&[dims(q)?, dims(q + 1)?, dims(q + 2)?, dims(q + 3)?])?;
        let all = [sizes.batch, sizes.heads, sizes.queries, sizes.keys];
        let width = sizes.size.max(sizes.width).next_power_of_two().max(32);
        let mut tensors = Vec::new();
        for i in 0..=q + 3 {
            let shape = site.input(i)?;
            let strides = repeated(shape.dims, shape.strides, if i == q + 3 { &all } else { shape.dims });
            tensors.push(Operand(i).into());
            tensors.extend(strides.into_iter().map(long));
        }
        let fits = width <= WIDEST
            && sizes.batch * sizes.heads <= LONGEST_GRID
            && [sizes.queries, sizes.keys].iter().all(|&n| n < 1 << 30);
        let (element, scale) = (site.element(q)?, site.node.float("scale").ok()??);
        fits.then_some(Attention { sizes, element, width, scale, tensors })
    }

    /// The warps of a block, each of which has 16 rows: `WARPS` in `attention.cu`.
    fn warps(&self) -> usize {
        if self.element.bytes() * self.width > 256 { 2 } else { 4 }
    }
    /// The bytes of so many rows of a panel.
    fn panel(&self, rows: usize, cols: usize) -> usize {
        rows * (cols * self.element.bytes() + 16)
    }

    /// A launch for this many rows of each of so many heads, with panels of the own side and of shares (of single precision:
    /// `STAGES` and `IS_SHORT` in `attention.cu`), and so many products in all.
    fn launch(
        &self,
        kernel: &'static str,
        [rows, heads]: [usize; 2],
        [owns, shares, products]: [usize; 3],
        buffers: &[Buffer],
    ) -> Launch {
        let (s, own) = (&self.sizes, 16 * self.warps());
        let blocks = rows.div_ceil(own);
        let mut arguments = self.tensors.clone();
        arguments.extend(buffers.iter().map(|&b| Argument::Buffer(b)));
        let times = s.heads / s.shared;
        arguments.extend([s.heads, times, s.queries, s.keys, s.size, s.width].map(int));
        arguments.push(Float(self.scale));
        let grid = [blocks, heads * s.batch, 1];
        let mut launch = Launch::new(kernel, module(self.element, self.width), grid, arguments);
        launch.block = 32 * self.warps();
        let (stages, shares) = if self.element == Element::F32 { (1, shares) } else { (2, 0) };
        launch.shared =
            self.panel(owns * own + stages * 2 * OTHER, self.width) + shares * self.panel(own, OTHER);
        let rows = s.batch * (s.heads * s.queries + s.shared * s.keys) * (s.size + s.width);
        let pairs = s.batch * s.heads * s.queries * s.keys;
        let mut launch = launch.costs(pairs * products * (s.size + s.width), rows * self.element.bytes());
        // Each block reads all of the other side.
        let other = blocks * s.batch * s.heads * s.queries.max(s.keys) * (s.size + s.width);
        launch.traffic.issued += (other * self.element.bytes()) as u64;
        launch
    }
    fn of_queries(&self) -> [usize; 2] {
        [self.sizes.queries, self.sizes.heads]
    }
}

/// A plan whose launches have no more shared memory than there is.
fn fitting(site: &Site<'_>, plan: Plan) -> Option<Plan> {
    plan.launches.iter().all(|l| l.shared <= site.target.shared).then_some(plan)
}

/// The launches of an attention (q, k, v, bias) => (y, lse).
pub(super) fn attention(site: &Site<'_>) -> Option<Plan> {
    let call = Attention::of(site, 0)?;
    let lse = if site.wants(1) { Result(1) } else { Null };
    let launch = call.launch("attention", call.of_queries(), [1, 1, 2], &[Result(0), lse]);
    site.output(0)?;
    fitting(site, Plan { launches: vec![launch], workspace: 0 })
}

/// The launches of its gradient (dy, q, k, v, bias, lse) => (dq, dk, dv).
pub(super) fn attention_grad(site: &Site<'_>) -> Option<Plan> {
    let call = Attention::of(site, 1)?;
    let mut plan = Plan::default();
    let sizes = &call.sizes;
    let along = plan.reserve(4 * sizes.batch * sizes.heads * sizes.queries);
    let [dq, dk, dv] = [0, 1, 2].map(|i| if site.wants(i) { Result(i) } else { Null });
    let products = if dq == Null { 2 } else { 5 };
    let buffers = [Operand(5), along, dq];
    plan.launches.push(call.launch("attention_grad_queries", call.of_queries(), [2, 1, products], &buffers));
    if dk != Null || dv != Null {
        let buffers = [Operand(5), along, dk, dv];
        plan.launches.push(call.launch(
            "attention_grad_keys",
            [sizes.keys, sizes.shared],
            [2, 2, 4],
            &buffers,
        ));
    }
    fitting(site, plan)
}
