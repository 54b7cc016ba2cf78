//! Launch plans of Bone: which kernels of `bone.cu` a call takes.
use crate::cuda::{
    Buffer::{self, Operand, Result},
    Launch, Linear, Plan, RankGrad, Site, Sizes, Slabs, Source, Traffic, arguments, linears,
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("bone.cu"),
    kernels: &["bone_fold", "bone_forward", "bone_input_grad", "bone_rank_grad"],
    products: &["bone_forward", "bone_input_grad", "bone_rank_grad"],
    modules: linears,
}];

const PATH: &str = "bone/bone.cu";

/// The launches of a `graft.Bone` of a graph.
pub(super) fn forward(site: &Site<'_>) -> Option<Plan> {
    Some(bone(&linear(site, [0, 1, 2])?, [0, 1].map(|i| site.wants(i))))
}

/// The launches of a `graft.BoneGrad` of a graph.
pub(super) fn gradient(site: &Site<'_>) -> Option<Plan> {
    Some(bone_grad(&linear(site, [1, 2, 3])?, [0, 1].map(|i| site.wants(i))))
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
    let bytes = ((tokens * n_in + tokens * rank) * element.bytes()) as u64;
    plan.launches.push(Launch {
        kernel: "bone_fold",
        module: linear.module(PATH),
        grid: [(tokens * rank).div_ceil(256), 1, 1],
        block: 256,
        shared: 0,
        arguments: arguments(&[x, s], &[tokens, n_in, rank], &[]),
        traffic: Traffic { flops: (tokens * n_in) as u64, ideal: bytes, issued: bytes },
    });
    if wanted[0] {
        let product = linear.product([tokens, n_out, n_in + rank], [true, false]);
        let operands = arguments(&[x, w, s, d, Result(0)], &[tokens, n_in, n_out, rank], &[]);
        plan.launches.push(product.launch("bone_forward", linear.module(PATH), operands, element.bytes()));
    }
    plan
}

/// `graft.BoneGrad (dy, x, w, d, s) => (dx, dd)`; dd is of the linear's `gradient`.
pub fn bone_grad(linear: &Linear, wanted: [bool; 2]) -> Plan {
    let Linear { sizes: Sizes { tokens, n_in, n_out, rank }, element, gradient, .. } = *linear;
    let ([dy, w, d, s], [dx, dd]) = ([0, 2, 3, 4].map(Operand), [0, 1].map(Result));
    let mut plan = Plan::default();
    let ds = plan.reserve(tokens * rank * element.bytes());
    let slabs = Slabs::of_tokens(tokens);
    let parts = plan.reserve(4 * slabs.n * rank * n_out);
    let operands = arguments(&[dy, d, s, ds, parts], &[tokens, n_out, rank], &[]);
    plan.launches.push(RankGrad { linear, slabs }.launch("bone_rank_grad", linear.module(PATH), operands));
    if wanted[1] {
        plan.launches.push(slabs.sum(gradient, rank * n_out, parts, dd, Buffer::Null));
    }
    if wanted[0] {
        let product = linear.product([tokens, n_in, n_out], [true, true]);
        let operands = arguments(&[dy, w, ds, dx], &[tokens, n_in, n_out, rank], &[]);
        plan.launches.push(product.launch("bone_input_grad", linear.module(PATH), operands, element.bytes()));
    }
    plan
}
