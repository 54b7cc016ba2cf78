//! Launch plans of HydraLoRA: LoRA's, with the heads one below the other as the up-projection, and with the kernels of
//! `hydra.cu` in rank space.
use crate::{
    cuda::{
        Argument,
        Buffer::{self, Null, Operand, Result},
        Element, Launch, Linear, Module, Plan, RankGrad, Site, Sizes, Slabs, Source, Traffic, arguments,
        each, narrow_tile, small, stacks,
    },
    lora::cuda::{down_grad, input_grad, up},
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("hydra.cu"),
    kernels: &["hydra_down", "hydra_join", "hydra_rank_grad"],
    products: &["hydra_down", "hydra_rank_grad"],
    modules: |module| {
        let widths = [16, 64, 64, 16, 32, 128];
        stacks(module).into_iter().zip(widths).map(|(m, width)| m.define(WIDTH, width)).collect()
    },
}];

const PATH: &str = "hydra/hydra.cu";
/// The columns of a and router together, rounded up to a power of two.
const WIDTH: &str = "GRAFT_WIDTH";

/// An adapted linear with several heads.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// The linear, with the heads' ranks together as its rank.
    pub linear: Linear,
    /// The rank of each head.
    pub rank: usize,
    /// How many there are.
    pub heads: usize,
}

impl Heads {
    /// That of the operands x, w and b with these numbers, if the kernels serve it.
    fn of(site: &Site<'_>, x: usize, [w, b]: [usize; 2]) -> Option<Heads> {
        let &[heads, rank, _] = site.input(b)?.dims else { return None };
        Some(Heads { linear: Linear::with_rank(site, [x, w], heads * rank)?, rank, heads })
    }
    /// The columns of a and router together; a multiple of what is copied at once.
    fn width(&self) -> usize {
        (self.rank + self.heads).next_multiple_of(8)
    }
    /// The linear whose adapter projects to all these columns.
    fn joint(&self) -> Linear {
        Linear { sizes: Sizes { rank: self.width(), ..self.linear.sizes }, ..self.linear }
    }
    fn padded_width(&self) -> usize {
        self.width().next_power_of_two().max(16)
    }
    fn module(&self) -> Module {
        self.linear.rank_module(PATH).define(WIDTH, self.padded_width())
    }
    /// `[a | router]`, so that x is read once.
    fn join(&self, plan: &mut Plan, [a, router]: [Buffer; 2]) -> Buffer {
        let (n_in, width) = (self.linear.sizes.n_in, self.width());
        let bytes = n_in * width * self.linear.element.bytes();
        let joint = plan.reserve(bytes);
        let operands = arguments(&[a, router, joint], &[n_in, self.rank, self.heads, width], &[]);
        let grid = [(n_in * width).div_ceil(256), 256];
        plan.launches.push(small("hydra_join", self.module(), grid, operands, 2 * bytes));
        joint
    }
    /// `h`, `p` and `z`.
    fn down(&self, [x, joint, h, p, z]: [Buffer; 5]) -> Launch {
        let Sizes { tokens, n_in, rank: cols, .. } = self.linear.sizes;
        let (element, sizes) = (self.linear.element, [tokens, n_in, self.rank, self.heads, self.width()]);
        let product = self.joint().projection().with_tile(narrow_tile(self.padded_width(), element));
        let buffers: Vec<Buffer> =
            [x].into_iter().chain([joint, h, p, z].into_iter().flat_map(each)).collect();
        let operands = arguments(&buffers, &sizes, &[]);
        let launch = product.launch("hydra_down", self.module(), operands, element.bytes());
        let launch = launch.stacks(product.stack(&[1, 5, 9, 13]));
        let stored = (tokens * cols * element.bytes()) as u64;
        Launch { traffic: launch.traffic + Traffic { flops: 0, ideal: stored, issued: stored }, ..launch }
    }
}

/// The launches of a `graft.Hydra` of a graph; scale and p are floats.
pub(super) fn forward(site: &Site<'_>) -> Option<Plan> {
    let heads = Heads::of(site, 0, [1, 3]).filter(|_| site.are_floats(&[5], &[2]))?;
    Some(hydra(&heads, [0, 1, 2].map(|i| site.wants(i))))
}

/// The launches of a `graft.HydraGrad` of a graph; scale and p are floats.
pub(super) fn gradient(site: &Site<'_>) -> Option<Plan> {
    let heads = Heads::of(site, 1, [2, 4]).filter(|_| site.are_floats(&[6, 8], &[1, 2, 3]))?;
    Some(hydra_grad(&heads, [0, 1, 2, 3].map(|i| site.wants(i))))
}

/// `graft.Hydra (x, w, a, b, router, scale) => (y, h, p)`; results are computed where they are `wanted`.
pub fn hydra(heads: &Heads, wanted: [bool; 3]) -> Plan {
    let Linear { sizes: Sizes { tokens, rank: cols, .. }, element, .. } = heads.linear;
    let [x, w, a, b, router, scale] = [0, 1, 2, 3, 4, 5].map(Operand);
    let mut plan = Plan::default();
    let joint = heads.join(&mut plan, [a, router]);
    let h = plan.result(wanted[1], 1, tokens * heads.rank * element.bytes());
    let p = plan.result(wanted[2], 2, tokens * heads.heads * Element::F32.bytes());
    let z = plan.reserve(tokens * cols * element.bytes());
    plan.launches.push(heads.down([x, joint, h, p, z]));
    if wanted[0] {
        plan.launches.push(up(&heads.linear, [x, w, z, b, Result(0)], scale));
    }
    plan
}

/// `graft.HydraGrad (dy, x, w, a, b, router, scale, h, p) => (dx, da, db, drouter)`; the weights' gradients are of
/// floats.
pub fn hydra_grad(heads: &Heads, wanted: [bool; 4]) -> Plan {
    let Linear { sizes: Sizes { tokens, n_in, n_out, rank: cols }, element, .. } = heads.linear;
    let [dy, x, w, a, b, router, scale, h, p] = [0, 1, 2, 3, 4, 5, 6, 7, 8].map(Operand);
    let mut plan = Plan::default();
    let (width, slabs) = (heads.width(), Slabs::of_tokens(tokens, cols * n_out));
    let d = plan.reserve(tokens * width * element.bytes());
    let parts = plan.reserve(4 * slabs.n * cols * n_out);
    let sizes = [tokens, n_out, heads.rank, heads.heads, width];
    let operands = arguments(&[dy, b, h, p, d, parts], &sizes, &[Argument::Buffer(scale)]);
    let pass = RankGrad { linear: &heads.linear, slabs };
    plan.launches.push(pass.launch("hydra_rank_grad", heads.module(), operands));
    if wanted[2] {
        plan.launches.push(slabs.sum(cols * n_out, parts, Result(2), scale));
    }
    if wanted[0] {
        let joint = heads.join(&mut plan, [a, router]);
        plan.launches.push(input_grad(&heads.joint(), [dy, w, d, joint, Result(0)]));
    }
    if wanted[1] || wanted[3] {
        let (parts, slabs) = down_grad(&mut plan, &heads.joint(), [x, d]);
        for (i, columns) in [(1, 0..heads.rank), (3, heads.rank..heads.rank + heads.heads)] {
            let sum = slabs.sum_columns([n_in, width], columns, [parts, Result(i), Null]);
            plan.launches.extend(wanted[i].then_some(sum));
        }
    }
    plan
}
