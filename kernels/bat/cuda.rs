//! Launch plans of Bat: products with the changed weight, or with block-diagonal matrices beside the linear.
use crate::{
    bone::cuda::fold,
    cuda::{
        Argument::{Int, Long},
        Buffer::{self, Null, Operand, Result},
        Element, Launch, Linear, Module, Plan, Site, Sizes, Slabs, Source, TILES, Tile, Traffic, arguments,
        linear_modules, small,
    },
    gemm::cuda::{self as plain, NOTHING},
};

pub(crate) const SOURCES: &[Source] = &[
    Source {
        path: COL,
        text: include_str!("col.cu"),
        kernels: &["bat_grad", "bat_weight"],
        products: &["bat_grad", "bat_weight"],
        modules: linear_modules,
    },
    Source {
        path: SIDE,
        text: include_str!("side.cu"),
        kernels: &["bat_add", "bat_gram", "bat_turn"],
        products: &[],
        modules: |module| {
            [Element::Bf16, Element::F16, Element::F32].map(|e| module.clone().element(e)).into()
        },
    },
];

const COL: &str = "bat/col.cu";
const SIDE: &str = "bat/side.cu";

/// Elements of a tile of the weight, each way, in `bat_weight`.
const CHANGED: usize = 64;

/// The linear of the operands x, w and d with these numbers, if the kernels serve it: whole blocks both ways.
fn linear(site: &Site<'_>, [x, w, d]: [usize; 3]) -> Option<Linear> {
    let &[_, rank, _] = site.input(d)?.dims else { return None };
    let linear = Linear::with_rank(site, [x, w], rank)?;
    let Sizes { n_in, n_out, .. } = linear.sizes;
    let fits = n_in.is_multiple_of(rank) && n_out.is_multiple_of(rank);
    // A grid has at most 65535 blocks along y.
    let tiles = n_out.div_ceil(whole(CHANGED, rank));
    // A tile of the weight and one of its gradient have to lie beside each other.
    let is_small = two_tiles(linear.tile, linear.element) <= site.target.shared;
    let tile = if is_small { linear.tile } else { TILES[0] };
    (fits && tiles <= 65_535).then_some(Linear { tile, ..linear })
}

/// Elements that make whole blocks.
fn whole(n: usize, rank: usize) -> usize {
    n / rank * rank
}

/// Room for activations of so many columns.
fn reserve(plan: &mut Plan, linear: &Linear, cols: usize) -> Buffer {
    plan.reserve(linear.sizes.tokens * cols * linear.element.bytes())
}

/// The launches of a `graft.BatCol (x, w, d) => (y)` of a graph.
pub(super) fn col_forward(site: &Site<'_>) -> Option<Plan> {
    let (linear, mut plan) = (linear(site, [0, 1, 2])?, Plan::default());
    let changed = changed(&mut plan, &linear, [1, 2].map(Operand));
    plan.launches.push(plain::forward(&linear, [Operand(0), changed, Result(0)], NOTHING));
    Some(plan)
}

/// The launches of a `graft.BatColGrad (dy, x, w, d) => (dx, dd)` of a graph.
pub(super) fn col_gradient(site: &Site<'_>) -> Option<Plan> {
    let (linear, mut plan) =
        (linear(site, [1, 2, 3]).filter(|_| site.are_floats(&[], &[1]))?, Plan::default());
    let [dy, x, w, d] = [0, 1, 2, 3].map(Operand);
    if site.wants(0) {
        let changed = changed(&mut plan, &linear, [w, d]);
        plan.launches.push(plain::input_grad(&linear, [dy, changed, Result(0)], NOTHING));
    }
    if site.wants(1) {
        block_grad(&mut plan, &linear, [x, dy, w, Result(1)]);
    }
    Some(plan)
}

/// The changed weight.
fn changed(plan: &mut Plan, linear: &Linear, [w, d]: [Buffer; 2]) -> Buffer {
    let Linear { sizes: Sizes { n_in, n_out, rank, .. }, element, .. } = *linear;
    let (n, side) = (n_in * n_out, whole(CHANGED, rank));
    let changed = plan.reserve(n * element.bytes());
    let [down, across] = [n_in, n_out].map(|n| n.div_ceil(side));
    let moved = (2 * n + n_out * rank) * element.bytes();
    let operands = arguments(&[w, d, changed], &[n_in, n_out, rank], &[]);
    let launch = small("bat_weight", module(linear), [down, 256], operands, moved);
    let more = ((down - 1) * n_out * rank * element.bytes()) as u64;
    plan.launches.push(Launch {
        grid: [down, across, 1],
        shared: 2 * CHANGED * (CHANGED * element.bytes() + 16),
        traffic: Traffic { flops: 2 * (n * rank) as u64, ideal: moved as u64, issued: moved as u64 + more },
        ..launch
    });
    changed
}

fn module(linear: &Linear) -> Module {
    Module::file(COL).element(linear.element).tile(linear.tile)
}

/// dd by way of tiles of the changed weight's gradient.
fn block_grad(plan: &mut Plan, linear: &Linear, [x, dy, w, dd]: [Buffer; 4]) {
    let Linear { sizes: Sizes { tokens, n_in, n_out, rank }, element, tile, .. } = *linear;
    let slabs = Slabs::cut(n_in.div_ceil(whole(tile.m, rank)));
    let parts = plan.reserve(4 * slabs.n * n_out * rank);
    let mut operands = arguments(&[x, dy, w, parts], &[tokens, n_in, n_out, rank], &[]);
    operands.push(Int(slabs.steps_per_slab as i32));
    let product = linear.product([n_in, n_out, tokens], [false, false]);
    let launch = product.launch("bat_grad", module(linear), operands, 0);
    let (weight, stored) = (n_in * n_out * element.bytes(), 4 * slabs.n * n_out * rank);
    let more = Traffic {
        flops: 2 * (n_in * n_out * rank) as u64,
        ideal: (weight + stored) as u64,
        issued: (weight + (2 * slabs.steps_per_slab - 1) * stored) as u64,
    };
    plan.launches.push(Launch {
        grid: [n_out.div_ceil(whole(tile.n, rank)), slabs.n, 1],
        shared: launch.shared.max(two_tiles(tile, element)),
        traffic: launch.traffic + more,
        ..launch
    });
    plan.launches.push(slabs.sum(n_out * rank, parts, dd, Null));
}

/// Bytes of a tile of the weight and of one of its gradient, with 16 bytes between rows.
fn two_tiles(tile: Tile, element: Element) -> usize {
    2 * tile.m * (tile.n * element.bytes() + 16)
}

/// The launches of a `graft.BatRow (x, w, d) => (y)` of a graph.
pub(super) fn row_forward(site: &Site<'_>) -> Option<Plan> {
    let (linear, mut plan) = (linear(site, [0, 1, 2])?, Plan::default());
    let Sizes { n_in, rank, .. } = linear.sizes;
    let [x, w, d] = [0, 1, 2].map(Operand);
    let (moved, total) = turn(&mut plan, &linear, [x, d], n_in);
    plan.launches.push(plain::forward(&linear, [moved, w, Result(0)], (total, rank)));
    Some(plan)
}

/// The launches of a `graft.BatRowGrad (dy, x, w, d) => (dx, dd)` of a graph.
pub(super) fn row_gradient(site: &Site<'_>) -> Option<Plan> {
    let (linear, mut plan) =
        (linear(site, [1, 2, 3]).filter(|_| site.are_floats(&[], &[1]))?, Plan::default());
    let Sizes { n_in, n_out, rank, .. } = linear.sizes;
    let [dy, x, w, d] = [0, 1, 2, 3].map(Operand);
    let (p, v) = (reserve(&mut plan, &linear, n_in), reserve(&mut plan, &linear, rank));
    plan.launches.push(plain::input_grad(&linear, [dy, w, p], NOTHING));
    plan.launches.push(fold(&linear, (dy, n_out), (v, rank)));
    if site.wants(1) {
        gram(&mut plan, &linear, ([p, v, x, Result(1)], n_in), [rank, n_in]);
    }
    if site.wants(0) {
        plan.launches.push(add(&linear, [p, v, d, Result(0), Null], n_in));
    }
    Some(plan)
}

/// The launches of a `graft.BatLeft (x, w, d) => (y, u)` of a graph.
pub(super) fn left_forward(site: &Site<'_>) -> Option<Plan> {
    let (linear, mut plan) = (linear(site, [0, 1, 2])?, Plan::default());
    let Sizes { n_in, n_out, rank, .. } = linear.sizes;
    let [x, w, d] = [0, 1, 2].map(Operand);
    let (base, s) = (reserve(&mut plan, &linear, n_out), reserve(&mut plan, &linear, rank));
    plan.launches.push(plain::forward(&linear, [x, w, base], NOTHING));
    plan.launches.push(fold(&linear, (x, n_in), (s, rank)));
    let [y, u] = [0, 1].map(|i| if site.wants(i) { Result(i) } else { Null });
    plan.launches.push(add(&linear, [base, s, d, y, u], n_out));
    Some(plan)
}

/// The launches of a `graft.BatLeftGrad (dy, x, w, d, u) => (dx, dd)` of a graph.
pub(super) fn left_gradient(site: &Site<'_>) -> Option<Plan> {
    let (linear, mut plan) =
        (linear(site, [1, 2, 3]).filter(|_| site.are_floats(&[], &[1]))?, Plan::default());
    let Sizes { tokens, n_out, rank, .. } = linear.sizes;
    let [dy, w, d, u] = [0, 2, 3, 4].map(Operand);
    if site.wants(1) {
        gram(&mut plan, &linear, ([u, Null, dy, Result(1)], n_out), [tokens * rank, rank]);
    }
    if site.wants(0) {
        let (moved, total) = turn(&mut plan, &linear, [dy, d], n_out);
        plan.launches.push(plain::input_grad(&linear, [moved, w, Result(0)], (total, rank)));
    }
    Some(plan)
}

/// A launch of a kernel of `side.cu` with a thread for each of `threads` elements, for activations of `width` columns,
/// of which it reads and writes so many.
fn side(
    linear: &Linear,
    kernel: &'static str,
    (buffers, width): (&[Buffer], usize),
    [threads, moved]: [usize; 2],
) -> Launch {
    let Linear { sizes: Sizes { tokens, rank, .. }, element, .. } = *linear;
    let operands = arguments(buffers, &[tokens, width, rank], &[]);
    let module = Module::file(SIDE).element(element);
    let bytes = (moved + width * rank) * element.bytes();
    let launch = small(kernel, module, [threads.div_ceil(256), 256], operands, bytes);
    let flops = 2 * (tokens * width * rank) as u64;
    Launch { traffic: Traffic { flops, ..launch.traffic }, ..launch }
}

/// `v + u` and `Σ_b u_b` with `u_b = v_b·d_bᵀ`.
fn turn(plan: &mut Plan, linear: &Linear, [v, d]: [Buffer; 2], width: usize) -> (Buffer, Buffer) {
    let Sizes { tokens, rank, .. } = linear.sizes;
    let (moved, total) = (reserve(plan, linear, width), reserve(plan, linear, rank));
    let sizes = [tokens * rank, tokens * (2 * width + rank)];
    plan.launches.push(side(linear, "bat_turn", (&[v, d, moved, total], width), sizes));
    (moved, total)
}

/// `base_b + u_b·d_b`, and u, with `u_b = base_b + q`.
fn add(linear: &Linear, buffers: [Buffer; 5], width: usize) -> Launch {
    let Sizes { tokens, rank, .. } = linear.sizes;
    let results = 1 + buffers[3..].iter().filter(|b| **b != Null).count();
    side(linear, "bat_add", (&buffers, width), [tokens * width, tokens * (results * width + rank)])
}

/// `dd_b = (u_b + q)ᵀ·v_b`, where blocks and rows of u begin so far apart.
fn gram(plan: &mut Plan, linear: &Linear, ([u, q, v, dd], width): ([Buffer; 4], usize), steps: [usize; 2]) {
    let Linear { sizes: Sizes { tokens, rank, .. }, .. } = *linear;
    let slabs = Slabs::of_tokens(tokens, width * rank);
    let parts = plan.reserve(4 * slabs.n * width * rank);
    let mut launch = side(linear, "bat_gram", (&[u, q, v, parts], width), [0, tokens * 2 * width]);
    launch.grid = [width / rank, slabs.n, 1];
    launch.arguments.extend(steps.map(|n| Long(n as i64)));
    launch.arguments.push(Int((slabs.steps_per_slab * crate::cuda::RANK_GRAD) as i32));
    plan.launches.push(launch);
    plan.launches.push(slabs.sum(width * rank, parts, dd, Null));
}
