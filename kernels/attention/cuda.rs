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
    products: &[],
    modules: |_| vec![module(Element::Bf16, 128), module(Element::F32, 64), module(Element::F32, WIDEST)],
}];

const PATH: &str = "attention/attention.cu";

/// The threads of a block, and the queries and keys of a tile.
const THREADS: usize = 128;
const QUERIES: usize = 32;
const KEYS: usize = 32;

/// The widest heads that the kernels serve: two tiles of sums fit into registers.
const WIDEST: usize = 256;

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

    /// A launch with so many tiles of queries and of keys in shared memory, and of shares.
    fn launch(
        &self,
        kernel: &'static str,
        [blocks, heads]: [usize; 2],
        [tiles, shares, products]: [usize; 3],
        buffers: &[Buffer],
    ) -> Launch {
        let s = &self.sizes;
        let mut arguments = self.tensors.clone();
        arguments.extend(buffers.iter().map(|&b| Argument::Buffer(b)));
        let times = s.heads / s.shared;
        arguments.extend([s.heads, times, s.queries, s.keys, s.size, s.width].map(int));
        arguments.push(Float(self.scale));
        let grid = [blocks, heads * s.batch, 1];
        let mut launch = Launch::new(kernel, module(self.element, self.width), grid, arguments);
        launch.block = THREADS;
        launch.shared = 4 * (tiles * KEYS * (self.width + 1) + shares * QUERIES * (KEYS + 1));
        let rows = s.batch * (s.heads * s.queries + s.shared * s.keys) * (s.size + s.width);
        let pairs = s.batch * s.heads * s.queries * s.keys;
        let mut launch = launch.costs(pairs * products * (s.size + s.width), rows * self.element.bytes());
        // Each block reads all of the other side.
        let other = blocks * s.batch * s.heads * s.queries.max(s.keys) * (s.size + s.width);
        launch.traffic.issued += (other * self.element.bytes()) as u64;
        launch
    }
    fn tiles_of_queries(&self) -> [usize; 2] {
        [self.sizes.queries.div_ceil(QUERIES), self.sizes.heads]
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
    let launch = call.launch("attention", call.tiles_of_queries(), [3, 1, 2], &[Result(0), lse]);
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
    plan.launches.push(call.launch(
        "attention_grad_queries",
        call.tiles_of_queries(),
        [4, 1, products],
        &buffers,
    ));
    if dk != Null || dv != Null {
        let grid = [sizes.keys.div_ceil(KEYS), sizes.shared];
        let buffers = [Operand(5), along, dk, dv];
        plan.launches.push(call.launch("attention_grad_keys", grid, [4, 2, 4], &buffers));
    }
    fitting(site, plan)
}
