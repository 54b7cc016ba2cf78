//! Launch plans of Bone: which kernels of `bone.cu` a call takes.
use crate::{
    cuda::{
        Buffer::{self, Null, Operand, Result},
        Element, Launch, Linear, MOST_CALLS, Module, Plan, RankGrad, Site, Sizes, Slabs, Source, Stack,
        Traffic, arguments, each, linears, small,
    },
    gemm::cuda::{self as plain, NOTHING},
    lora::cuda::down_grad,
};

pub(crate) const SOURCES: &[Source] = &[
    Source {
        path: PATH,
        text: include_str!("bone.cu"),
        kernels: &["bone_forward", "bone_rank_grad"],
        products: &["bone_forward", "bone_rank_grad"],
        modules: linears,
    },
    Source {
        path: FOLD,
        text: include_str!("fold.cu"),
        kernels: &["bone_fold"],
        products: &[],
        modules: |module| {
            let of = |element| module.clone().element(element);
            vec![of(Element::Bf16), of(Element::F16), of(Element::F32).calls(MOST_CALLS)]
        },
    },
];

const PATH: &str = "bone/bone.cu";
const FOLD: &str = "bone/fold.cu";

/// The launches of a `graft.Bone` of a graph.
pub(super) fn forward(site: &Site<'_>) -> Option<Plan> {
    Some(bone(&linear(site, [0, 1, 2])?, [0, 1].map(|i| site.wants(i))))
}

/// The launches of a `graft.BoneGrad` of a graph.
pub(super) fn gradient(site: &Site<'_>) -> Option<Plan> {
    let linear = linear(site, [1, 2, 3]).filter(|_| site.are_floats(&[], &[1]))?;
    Some(bone_grad(&linear, [0, 1].map(|i| site.wants(i))))
}

/// The launches of a `graft.BoneMini` of a graph.
pub(super) fn mini_forward(site: &Site<'_>) -> Option<Plan> {
    Some(mini(&Mini::of(site, [0, 1, 2])?, [0, 1].map(|i| site.wants(i))))
}

/// The launches of a `graft.BoneMiniGrad` of a graph.
pub(super) fn mini_gradient(site: &Site<'_>) -> Option<Plan> {
    let mini = Mini::of(site, [1, 2, 3]).filter(|_| site.are_floats(&[], &[1]))?;
    Some(mini_grad(&mini, [0, 1].map(|i| site.wants(i))))
}

/// Bone's weight d is (rank, out).
fn linear(site: &Site<'_>, [x, w, d]: [usize; 3]) -> Option<Linear> {
    Linear::with_rank(site, [x, w], site.input(d)?.rows())
}

/// `graft.Bone (x, w, d) => (y, s)`, all of the linear's element; results are computed where they are `wanted`.
pub fn bone(linear: &Linear, wanted: [bool; 2]) -> Plan {
    let Linear { sizes: Sizes { tokens, n_in, n_out, rank }, element, .. } = *linear;
    let [x, w, d] = [0, 1, 2].map(Operand);
    let mut plan = Plan::default();
    let s = plan.result(wanted[1], 1, tokens * rank * element.bytes());
    plan.launches.push(fold(linear, (x, n_in), (s, rank)));
    if wanted[0] {
        let product = linear.product([tokens, n_out, n_in + rank], [true, false]).storing(Result(0));
        let operands = arguments(&[x, w, s, d, Result(0)], &[tokens, n_in, n_out, rank], &[]);
        plan.launches.push(product.launch("bone_forward", linear.module(PATH), operands, element.bytes()));
    }
    plan
}

/// `graft.BoneGrad (dy, x, w, d, s) => (dx, dd)`; dd is of floats.
pub fn bone_grad(linear: &Linear, wanted: [bool; 2]) -> Plan {
    let Linear { sizes: Sizes { tokens, n_out, rank, .. }, element, .. } = *linear;
    let ([dy, w, d, s], [dx, dd]) = ([0, 2, 3, 4].map(Operand), [0, 1].map(Result));
    let mut plan = Plan::default();
    let ds = plan.reserve(tokens * rank * element.bytes());
    let slabs = Slabs::of_tokens(tokens, rank * n_out);
    let parts = plan.reserve(4 * slabs.n * rank * n_out);
    let operands = arguments(&[dy, d, s, ds, parts], &[tokens, n_out, rank], &[]);
    plan.launches.push(RankGrad { linear, slabs }.launch("bone_rank_grad", linear.module(PATH), operands));
    if wanted[1] {
        plan.launches.push(slabs.sum(rank * n_out, parts, dd, Null));
    }
    if wanted[0] {
        plan.launches.push(plain::input_grad(linear, [dy, w, dx], (ds, rank)));
    }
    plan
}

/// `to` (tokens, n) sums the columns of `from` (tokens, width) that agree modulo n.
pub(crate) fn fold(linear: &Linear, (from, width): (Buffer, usize), (to, n): (Buffer, usize)) -> Launch {
    let tokens = linear.sizes.tokens;
    let bytes = tokens * (width + n) * linear.element.bytes();
    let operands = arguments(&[&[from][..], &each(to)].concat(), &[tokens, width, n], &[]);
    let module = Module::file(FOLD).element(linear.element);
    let launch = small("bone_fold", module, [(tokens * n).div_ceil(256), 256], operands, bytes);
    let traffic = Traffic { flops: (tokens * width) as u64, ..launch.traffic };
    let read = (tokens * width * linear.element.bytes()) as u64;
    let common = Traffic { ideal: read, issued: read, ..traffic };
    Launch { traffic, ..launch }.stacks(Stack {
        own: &[1],
        shared: [0; MOST_CALLS],
        common,
        most: MOST_CALLS,
    })
}

/// A linear whose adapter's result, of few columns, is repeated.
struct Mini {
    linear: Linear,
    width: usize,
}

impl Mini {
    fn of(site: &Site<'_>, operands: [usize; 3]) -> Option<Mini> {
        Some(Mini { linear: linear(site, operands)?, width: site.input(operands[2])?.cols() })
    }
    /// The linear that the adapter is: from the rank to its columns.
    fn adapter(&self) -> Linear {
        let Sizes { tokens, rank, .. } = self.linear.sizes;
        Linear { sizes: Sizes { tokens, n_in: rank, n_out: self.width, rank: self.width }, ..self.linear }
    }
    fn reserve(&self, plan: &mut Plan, cols: usize) -> Buffer {
        plan.reserve(self.linear.sizes.tokens * cols * self.linear.element.bytes())
    }
}

/// `graft.BoneMini (x, w, d) => (y, s)`, d of few columns: `y = x·w + repeat(s·d)`.
fn mini(mini: &Mini, wanted: [bool; 2]) -> Plan {
    let (Mini { linear, width }, [x, w, d]) = (mini, [0, 1, 2].map(Operand));
    let Sizes { tokens, n_in, rank, .. } = linear.sizes;
    let mut plan = Plan::default();
    let s = plan.result(wanted[1], 1, tokens * rank * linear.element.bytes());
    plan.launches.push(fold(linear, (x, n_in), (s, rank)));
    if wanted[0] {
        let up = mini.reserve(&mut plan, *width);
        plan.launches.push(plain::forward(&mini.adapter(), [s, d, up], NOTHING));
        plan.launches.push(plain::forward(linear, [x, w, Result(0)], (up, *width)));
    }
    plan
}

/// `graft.BoneMiniGrad (dy, x, w, d, s) => (dx, dd)`: with dup = fold(dy), `dd = sᵀ·dup`,
/// `dx = dy·wᵀ + repeat(dup·dᵀ)`.
fn mini_grad(mini: &Mini, wanted: [bool; 2]) -> Plan {
    let (Mini { linear, width }, [dy, w, d, s]) = (mini, [0, 2, 3, 4].map(Operand));
    let Sizes { n_out, rank, .. } = linear.sizes;
    let mut plan = Plan::default();
    let dup = mini.reserve(&mut plan, *width);
    plan.launches.push(fold(linear, (dy, n_out), (dup, *width)));
    if wanted[1] {
        let (parts, slabs) = down_grad(&mut plan, &mini.adapter(), [s, dup]);
        plan.launches.push(slabs.sum(rank * width, parts, Result(1), Null));
    }
    if wanted[0] {
        let ds = mini.reserve(&mut plan, rank);
        plan.launches.push(plain::input_grad(&mini.adapter(), [dup, d, ds], NOTHING));
        plan.launches.push(plain::input_grad(linear, [dy, w, Result(0)], (ds, rank)));
    }
    plan
}
