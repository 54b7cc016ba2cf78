//! Launch plans of LoRA: which kernels of `lora.cu` a call takes; and of what other methods have in common with it.
use super::beside;
use crate::{
    cuda::{
        Argument::{self, Int},
        Buffer::{self, Operand, Result},
        Dropout, Launch, Linear, Module, Plan, Product, RankGrad, Site, Sizes, Slabs, Source, arguments,
        each, linears, stacks,
    },
    elementwise::epilogue::examples,
};

pub(crate) const SOURCES: &[Source] = &[
    beside::SOURCE,
    Source {
        path: PATH,
        text: include_str!("lora.cu"),
        kernels: NAMES,
        products: NAMES,
        modules: |of| {
            let modules = modules(of, linears);
            // With the large tile.
            let with = examples(&modules[2]).pop();
            modules.into_iter().chain(with).collect()
        },
    },
    Source {
        path: DOWN,
        text: include_str!("down.cu"),
        kernels: DOWN_NAMES,
        products: DOWN_NAMES,
        modules: |of| modules(of, stacks),
    },
];

const PATH: &str = "lora/lora.cu";
const NAMES: &[&str] = &["lora_forward", "lora_input_grad", "lora_rank_grad"];
const DOWN: &str = "lora/down.cu";
/// Whether anything is dropped.
const DROPOUT: &str = "GRAFT_DROPOUT";
const DOWN_NAMES: &[&str] = &["lora_down", "lora_down_grad"];

/// Those that `of` makes without dropout, and the first one with it.
fn modules(module: Module, of: fn(Module) -> Vec<Module>) -> Vec<Module> {
    let drops = of(module.clone().define(DROPOUT, true)).into_iter().take(1);
    of(module.define(DROPOUT, false)).into_iter().chain(drops).collect()
}

/// The source of the products with w, compiled for a linear.
fn module(linear: &Linear) -> Module {
    linear.module(PATH).define(DROPOUT, linear.dropout != Dropout::NONE)
}

/// The source of what reads x for the adapter, compiled for a linear.
fn down_module(linear: &Linear) -> Module {
    linear.rank_module(DOWN).define(DROPOUT, linear.dropout != Dropout::NONE)
}

/// The launches of a `graft.Lora` of a graph.
pub(super) fn forward(site: &Site<'_>) -> Option<Plan> {
    let linear = Linear::of(site, [0, 1, 2]).filter(|_| site.are_floats(&[4], &[]))?;
    let wanted = [0, 1].map(|i| site.wants(i));
    let beside = site.is_frozen(1).then(|| beside::lora(&linear, wanted)).flatten();
    beside.or_else(|| Some(lora(&linear, wanted)))
}

/// The launches of a `graft.LoraGrad` of a graph.
pub(super) fn gradient(site: &Site<'_>) -> Option<Plan> {
    let linear = Linear::of(site, [1, 2, 3]).filter(|_| site.are_floats(&[5], &[1, 2]))?;
    let wanted = [0, 1, 2].map(|i| site.wants(i));
    let beside = site.is_frozen(2).then(|| beside::lora_grad(&linear, wanted)).flatten();
    beside.or_else(|| Some(lora_grad(&linear, wanted)))
}

/// `graft.Lora (x, w, a, b, scale) => (y, h)`, where the adapter reads x with dropout. x, w, a, b, y and h are of the
/// linear's element, scale is a float; results are computed where they are `wanted`.
pub fn lora(linear: &Linear, wanted: [bool; 2]) -> Plan {
    let Sizes { tokens, rank, .. } = linear.sizes;
    let [x, w, a, b, scale] = [0, 1, 2, 3, 4].map(Operand);
    let mut plan = Plan::default();
    let h = plan.result(wanted[1], 1, tokens * rank * linear.element.bytes());
    plan.launches.push(down(linear, [x, a, h]));
    if wanted[0] {
        plan.launches.push(up(linear, [x, w, h, b, Result(0)], scale));
    }
    plan
}

/// `graft.LoraGrad (dy, x, w, a, b, scale, h) => (dx, da, db)`; da and db are of floats.
pub fn lora_grad(linear: &Linear, wanted: [bool; 3]) -> Plan {
    let mut plan = Plan::default();
    let results = [0, 1, 2].map(|i| wanted[i].then_some(Result(i)));
    grads(&mut plan, linear, [0, 1, 2, 3, 4, 5, 6].map(Operand), results);
    plan
}

/// The launches of [`lora_grad`], with operands and those results that are wanted wherever they lie.
pub(crate) fn grads(
    plan: &mut Plan,
    linear: &Linear,
    [dy, x, w, a, b, scale, h]: [Buffer; 7],
    [dx, da, db]: [Option<Buffer>; 3],
) {
    let Linear { sizes: Sizes { tokens, n_out, rank, .. }, element, .. } = *linear;
    let dh = plan.reserve(tokens * rank * element.bytes());

    let slabs = Slabs::of_tokens(tokens, rank * n_out);
    let db_parts = plan.reserve(4 * slabs.n * rank * n_out);
    let operands = arguments(&[dy, b, h, dh, db_parts], &[tokens, n_out, rank], &[Argument::Buffer(scale)]);
    plan.launches.push(RankGrad { linear, slabs }.launch("lora_rank_grad", module(linear), operands));
    plan.launches.extend(db.map(|db| slabs.sum(rank * n_out, db_parts, db, scale)));
    outer_grads(plan, linear, [dy, x, w, a, dh], [dx, da]);
}

/// `h = D(x)·a`.
pub(crate) fn down(linear: &Linear, [x, a, h]: [Buffer; 3]) -> Launch {
    let Sizes { tokens, n_in, rank, .. } = linear.sizes;
    let buffers = [&[x][..], &each(a), &each(h)].concat();
    let operands = arguments(&buffers, &[tokens, n_in, rank], &linear.dropout.arguments());
    let product = linear.projection();
    let launch = product.launch("lora_down", down_module(linear), operands, linear.element.bytes());
    launch.stacks(product.stack(&[1, 5]))
}

/// `y = x·w + scale·(q·b)`.
pub(crate) fn up(linear: &Linear, [x, w, q, b, y]: [Buffer; 5], scale: Buffer) -> Launch {
    let Sizes { tokens, n_in, n_out, rank } = linear.sizes;
    let product = linear.product([tokens, n_out, n_in + rank], [true, false]).storing(y);
    let scale = [Argument::Buffer(scale)];
    let operands = arguments(&[x, w, q, b, y], &[tokens, n_in, n_out, rank], &scale);
    product.launch("lora_forward", module(linear), operands, linear.element.bytes())
}

/// `dx = dy·wᵀ + D(dh·aᵀ)` and `da = D(x)ᵀ·dh`, each where it is wanted.
pub(crate) fn outer_grads(
    plan: &mut Plan,
    linear: &Linear,
    [dy, x, w, a, dh]: [Buffer; 5],
    [dx, da]: [Option<Buffer>; 2],
) {
    plan.launches.extend(dx.map(|dx| input_grad(linear, [dy, w, dh, a, dx])));
    if let Some(da) = da {
        let (parts, slabs) = down_grad(plan, linear, [x, dh]);
        let n = linear.sizes.n_in * linear.sizes.rank;
        plan.launches.push(slabs.sum(n, parts, da, Buffer::Null));
    }
}

/// `dx = dy·wᵀ + D(dh·aᵀ)`.
pub(crate) fn input_grad(linear: &Linear, [dy, w, dh, a, dx]: [Buffer; 5]) -> Launch {
    let Sizes { tokens, n_in, n_out, rank } = linear.sizes;
    let product = linear.product([tokens, n_in, n_out + rank], [true, true]).storing(dx);
    let dropout = linear.dropout.arguments();
    let operands = arguments(&[dy, w, dh, a, dx], &[tokens, n_in, n_out, rank], &dropout);
    product.launch("lora_input_grad", module(linear), operands, linear.element.bytes())
}

/// The parts of `D(x)ᵀ·dh`, and how many there are.
pub(crate) fn down_grad(plan: &mut Plan, linear: &Linear, [x, dh]: [Buffer; 2]) -> (Buffer, Slabs) {
    let Linear { sizes: Sizes { tokens, n_in, rank, .. }, element, dropout, .. } = *linear;
    let tile = linear.rank_tile();
    let slabs = Slabs::cut(tokens.div_ceil(tile.k));
    let parts = plan.reserve(4 * slabs.n * n_in * rank);
    let sizes = [n_in, rank, tokens];
    let product = Product { sizes, tile, along_k: [false, false], slabs: slabs.n, element, to: None };
    let buffers = [&[x][..], &each(dh), &each(parts)].concat();
    let mut operands = arguments(&buffers, &[tokens, n_in, rank], &dropout.arguments());
    operands.push(Int(slabs.steps_per_slab as i32));
    let launch = product.launch("lora_down_grad", down_module(linear), operands, 4);
    plan.launches.push(launch.stacks(product.stack(&[1, 5])));
    (parts, slabs)
}
