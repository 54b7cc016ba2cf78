//! Launch plans of DoRA: LoRA's, and the kernels of `dora.cu` for the lengths of the outputs.
use crate::{
    cuda::{
        Argument::{self, Int},
        Buffer::{Null, Operand, Result},
        Launch, Linear, Module, Plan, RANK_GRAD, Site, Sizes, Slabs, Source, Traffic, arguments,
        linear_modules, small,
    },
    lora::cuda::{down, grads},
};

pub(crate) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("dora.cu"),
    kernels: &["dora_forward", "dora_length_grad", "dora_norms", "dora_squares", "dora_stretch"],
    products: &["dora_forward", "dora_squares"],
    modules: linear_modules,
}];

const PATH: &str = "dora/dora.cu";

fn module(linear: &Linear) -> Module {
    Module::file(PATH).element(linear.element).tile(linear.tile)
}

/// The launches of a `graft.Dora (x, w, a, b, m, scale) => (y, h, sum, n)` of a graph; m, scale and n are floats.
pub(super) fn forward(site: &Site<'_>) -> Option<Plan> {
    let linear = Linear::of(site, [0, 1, 2]).filter(|_| site.are_floats(&[4, 5], &[3]))?;
    let Linear { sizes: Sizes { tokens, n_in, n_out, rank }, element, tile, .. } = linear;
    let [x, w, a, b, m, scale] = [0, 1, 2, 3, 4, 5].map(Operand);
    let mut plan = Plan::default();
    let h = plan.result(site.wants(1), 1, tokens * rank * element.bytes());
    let n = plan.result(site.wants(3), 3, 4 * n_out);
    plan.launches.push(down(&linear, [x, a, h]));

    let tiles = n_in.div_ceil(tile.m);
    let parts = plan.reserve(4 * tiles * n_out);
    let scale = [Argument::Buffer(scale)];
    let operands = arguments(&[w, a, b, parts], &[n_in, n_out, rank], &scale);
    let squares = linear.product([n_in, n_out, rank], [true, false]);
    let launch = squares.launch("dora_squares", module(&linear), operands, 0);
    let moved = (n_in * n_out * element.bytes() + 4 * tiles * n_out) as u64;
    let more = Traffic { flops: 0, ideal: moved, issued: moved };
    plan.launches.push(Launch { traffic: launch.traffic + more, ..launch });
    let operands = arguments(&[parts, n], &[n_out, tiles], &[]);
    plan.launches.push(columns(&linear, "dora_norms", operands, 4 * (tiles + 1)));

    if site.wants(0) || site.wants(2) {
        let y = plan.result(site.wants(0), 0, tokens * n_out * element.bytes());
        let sums = if site.wants(2) { Result(2) } else { Null };
        let operands = arguments(&[x, w, h, b, m, n, y, sums], &[tokens, n_in, n_out, rank], &scale);
        let stored = if site.wants(2) { 2 * element.bytes() } else { element.bytes() };
        let product = linear.product([tokens, n_out, n_in + rank], [true, false]).storing(y);
        plan.launches.push(product.launch("dora_forward", module(&linear), operands, stored));
    }
    Some(plan)
}

/// The launches of a `graft.DoraGrad (dy, x, w, a, b, m, scale, h, sum, n) => (dx, da, db, dm)` of a graph; m, scale, n and
/// dm are floats.
pub(super) fn gradient(site: &Site<'_>) -> Option<Plan> {
    let linear = Linear::of(site, [1, 2, 3]).filter(|_| site.are_floats(&[5, 6, 9], &[1, 2, 3]))?;
    let Linear { sizes: Sizes { tokens, n_out, .. }, element, .. } = linear;
    let [dy, x, w, a, b, m, scale, h, sum, n] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(Operand);
    let mut plan = Plan::default();
    let bytes = tokens * n_out * element.bytes();
    let (dsum, slabs) = (plan.reserve(bytes), Slabs::of_tokens(tokens, n_out));
    let parts = if site.wants(3) { plan.reserve(4 * slabs.n * n_out) } else { Null };
    let mut operands = arguments(&[dy, sum, m, n, dsum, parts], &[tokens, n_out], &[]);
    operands.push(Int((slabs.steps_per_slab * RANK_GRAD) as i32));
    let launch = columns(&linear, "dora_stretch", operands, 3 * tokens * element.bytes() + 4 * slabs.n);
    plan.launches.push(Launch { grid: [launch.grid[0], slabs.n, 1], ..launch });
    if site.wants(3) {
        let operands = arguments(&[parts, n, Result(3)], &[n_out, slabs.n], &[]);
        plan.launches.push(columns(&linear, "dora_length_grad", operands, 4 * (slabs.n + 2)));
    }
    if [0, 1, 2].into_iter().any(|i| site.wants(i)) {
        let results = [0, 1, 2].map(|i| site.wants(i).then_some(Result(i)));
        grads(&mut plan, &linear, [dsum, x, w, a, b, scale, h], results);
    }
    Some(plan)
}

/// A launch with a thread for each output, which moves so many bytes.
fn columns(linear: &Linear, kernel: &'static str, arguments: Vec<Argument>, bytes: usize) -> Launch {
    let n_out = linear.sizes.n_out;
    small(kernel, module(linear), [n_out.div_ceil(256), 256], arguments, bytes * n_out)
}
