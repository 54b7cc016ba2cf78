//! Launch plans of LoRA: which kernels of `lora.cu` a call takes.
use crate::cuda::{
    Argument::{self, Int},
    Buffer::{self, Operand, Result},
    Linear, Plan, Product, RankGrad, Site, Sizes, Slabs, Source, arguments, linears,
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("lora.cu"),
    kernels: NAMES,
    products: NAMES,
    modules: linears,
}];

const PATH: &str = "lora/lora.cu";
const NAMES: &[&str] = &["lora_down", "lora_down_grad", "lora_forward", "lora_input_grad", "lora_rank_grad"];

/// The launches of a `graft.Lora` of a graph.
pub(super) fn forward(site: &Site<'_>) -> Option<Plan> {
    Some(lora(&Linear::of(site, [0, 1, 2])?, [0, 1].map(|i| site.wants(i))))
}

/// The launches of a `graft.LoraGrad` of a graph.
pub(super) fn gradient(site: &Site<'_>) -> Option<Plan> {
    Some(lora_grad(&Linear::of(site, [1, 2, 3])?, [0, 1, 2].map(|i| site.wants(i))))
}

/// `graft.Lora (x, w, a, b, scale) => (y, h)`, where the adapter reads x with dropout. x, w, a, b, y and h are of the
/// linear's element, scale is a float; results are computed where they are `wanted`.
pub fn lora(linear: &Linear, wanted: [bool; 2]) -> Plan {
    let Linear { sizes: Sizes { tokens, n_in, n_out, rank }, element, dropout, .. } = *linear;
    let [x, w, a, b, scale] = [0, 1, 2, 3, 4].map(Operand);
    let mut plan = Plan::default();
    let h = plan.result(wanted[1], 1, tokens * rank * element.bytes());
    let down = Product {
        sizes: [tokens, rank, n_in],
        tile: linear.rank_tile(),
        along_k: [true, false],
        slabs: 1,
        element,
    };
    let operands = arguments(&[x, a, h], &[tokens, n_in, rank], &dropout.arguments());
    plan.launches.push(down.launch("lora_down", linear.module(PATH), operands, element.bytes()));
    if wanted[0] {
        let product = linear.product([tokens, n_out, n_in + rank], [true, false]);
        let scale = [Argument::Buffer(scale)];
        let operands = arguments(&[x, w, h, b, Result(0)], &[tokens, n_in, n_out, rank], &scale);
        plan.launches.push(product.launch("lora_forward", linear.module(PATH), operands, element.bytes()));
    }
    plan
}

/// `graft.LoraGrad (dy, x, w, a, b, scale, h) => (dx, da, db)`; da and db are of the linear's `gradient`.
pub fn lora_grad(linear: &Linear, wanted: [bool; 3]) -> Plan {
    let Linear { sizes: Sizes { tokens, n_in, n_out, rank }, element, gradient, dropout, .. } = *linear;
    let [dy, x, w, a, b, scale, h] = [0, 1, 2, 3, 4, 5, 6].map(Operand);
    let [dx, da, db] = [0, 1, 2].map(Result);
    let mut plan = Plan::default();
    let dh = plan.reserve(tokens * rank * element.bytes());

    let slabs = Slabs::of_tokens(tokens);
    let db_parts = plan.reserve(4 * slabs.n * rank * n_out);
    let operands = arguments(&[dy, b, h, dh, db_parts], &[tokens, n_out, rank], &[Argument::Buffer(scale)]);
    plan.launches.push(RankGrad { linear, slabs }.launch("lora_rank_grad", linear.module(PATH), operands));
    if wanted[2] {
        plan.launches.push(slabs.sum(gradient, rank * n_out, db_parts, db, scale));
    }
    if wanted[0] {
        let product = linear.product([tokens, n_in, n_out + rank], [true, true]);
        let operands = arguments(&[dy, w, dh, a, dx], &[tokens, n_in, n_out, rank], &dropout.arguments());
        plan.launches.push(product.launch("lora_input_grad", linear.module(PATH), operands, element.bytes()));
    }
    if wanted[1] {
        let tile = linear.rank_tile();
        let slabs = Slabs::cut(tokens.div_ceil(tile.k));
        let da_parts = plan.reserve(4 * slabs.n * n_in * rank);
        let sizes = [n_in, rank, tokens];
        let product = Product { sizes, tile, along_k: [false, false], slabs: slabs.n, element };
        let mut operands = arguments(&[x, dh, da_parts], &[tokens, n_in, rank], &dropout.arguments());
        operands.push(Int(slabs.steps_per_slab as i32));
        plan.launches.push(product.launch("lora_down_grad", linear.module(PATH), operands, 4));
        plan.launches.push(slabs.sum(gradient, n_in * rank, da_parts, da, Buffer::Null));
    }
    plan
}
