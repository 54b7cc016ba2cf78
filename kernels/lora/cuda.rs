//! Launch plans of LoRA: which kernels of `lora.cu` a call takes.
use crate::cuda::{
    Argument::{self, Int},
    Buffer::{self, Operand, Result},
    Dropout, Element, Instance, Launch, Plan, Slabs, Tile, Traffic, sum_slabs,
};

/// The sizes of an adapted linear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Rows of the activation.
    pub tokens: usize,
    /// Its columns.
    pub n_in: usize,
    /// Columns of the result.
    pub n_out: usize,
    /// The adapter's rank.
    pub rank: usize,
}

/// The largest rank that the kernels serve: accumulators of so many columns fit into a warp's registers.
pub const LARGEST_RANK: usize = 64;

/// Columns and tokens that `lora_rank_grad` takes at once.
const RANK_GRAD: usize = 64;

impl Sizes {
    /// Whether the kernels serve these sizes: every size fits an `int` and a grid, and none is 0.
    pub fn are_served(&self) -> bool {
        let all = [self.tokens, self.n_in, self.n_out, self.rank];
        // A grid has at most 65535 rows of tiles, of 64 elements at least.
        all.iter().all(|&n| n > 0 && n < 64 * 65_535) && self.rank <= LARGEST_RANK
    }
    /// What the sources are compiled for.
    fn instance(&self, element: Element, tile: Tile) -> Instance {
        // Powers of two keep the number of instances small.
        Instance { element, tile, rank: self.rank.next_power_of_two().max(16) }
    }
    /// tokens × in, in × out, tokens × out, in × rank, rank × out, tokens × rank.
    fn areas(&self) -> [usize; 6] {
        let Sizes { tokens, n_in, n_out, rank } = *self;
        [tokens * n_in, n_in * n_out, tokens * n_out, n_in * rank, rank * n_out, tokens * rank]
    }
}

/// The tile of a product with as few columns as the rank: `RankTile` in `instance.cuh`.
fn rank_tile(rank: usize) -> Tile {
    Tile { m: 64, n: rank, k: 64, warps: [4, 1], stages: 2 }
}

/// A product of (rows, cols, depth) by blocks of `tile`; `moved` elements are read and written.
struct Product {
    sizes: [usize; 3],
    tile: Tile,
    along_k: [bool; 2],
    slabs: usize,
}

impl Product {
    fn launch(
        &self,
        kernel: &'static str,
        instance: Instance,
        arguments: Vec<Argument>,
        results: usize,
    ) -> Launch {
        let ([m, n, k], tile, bytes) = (self.sizes, self.tile, instance.element.bytes());
        let (across, down) = (n.div_ceil(tile.n), m.div_ceil(tile.m));
        let stored = (m * n * self.slabs * results) as u64;
        Launch {
            kernel,
            instance,
            grid: [across, down, self.slabs],
            block: tile.threads(),
            shared: tile.shared(instance.element, self.along_k),
            arguments,
            traffic: Traffic {
                flops: 2 * (m * n * k) as u64,
                ideal: ((m * k + k * n) * bytes) as u64 + stored,
                issued: ((m * k * across + k * n * down) * bytes) as u64 + stored,
            },
        }
    }
}

/// Arguments: buffers, then sizes, then others.
fn arguments(buffers: &[Buffer], sizes: &[usize], others: &[Argument]) -> Vec<Argument> {
    let buffers = buffers.iter().map(|&b| Argument::Buffer(b));
    buffers.chain(sizes.iter().map(|&n| Int(n as i32))).chain(others.iter().copied()).collect()
}

/// `graft.Lora (x, w, a, b, scale) => (y, h)`, where the adapter reads x with `dropout`. x, w, a, b, y and h are of
/// `element`, scale is a float.
pub fn lora(sizes: Sizes, element: Element, tile: Tile, dropout: Dropout) -> Plan {
    let Sizes { tokens, n_in, n_out, rank } = sizes;
    let instance = sizes.instance(element, tile);
    let [x, w, a, b, scale] = [0, 1, 2, 3, 4].map(Operand);
    let (y, h) = (Result(0), Result(1));
    let down = Product {
        sizes: [tokens, rank, n_in],
        tile: rank_tile(instance.rank),
        along_k: [true, false],
        slabs: 1,
    };
    let forward = Product { sizes: [tokens, n_out, n_in + rank], tile, along_k: [true, false], slabs: 1 };
    let down = down.launch(
        "lora_down",
        instance,
        arguments(&[x, a, h], &[tokens, n_in, rank], &dropout.arguments()),
        element.bytes(),
    );
    let forward = forward.launch(
        "lora_forward",
        instance,
        arguments(&[x, w, h, b, y], &[tokens, n_in, n_out, rank], &[Argument::Buffer(scale)]),
        element.bytes(),
    );
    Plan { launches: vec![down, forward], workspace: 0 }
}

/// `graft.LoraGrad (dy, x, w, a, b, scale, h) => (dx, da, db)`; da and db are floats.
pub fn lora_grad(sizes: Sizes, element: Element, tile: Tile, dropout: Dropout) -> Plan {
    let Sizes { tokens, n_in, n_out, rank } = sizes;
    let instance = sizes.instance(element, tile);
    let [dy, x, w, a, scale] = [0, 1, 2, 3, 5].map(Operand);
    let [dx, da, db] = [0, 1, 2].map(Result);
    let mut plan = Plan::default();
    let dh = plan.reserve(tokens * rank * element.bytes());

    let slabs = Slabs::cut(tokens.div_ceil(RANK_GRAD));
    let db_parts = plan.reserve(4 * slabs.n * rank * n_out);
    plan.launches.push(rank_grad(sizes, instance, slabs, dh, db_parts));
    plan.launches.push(sum_slabs(instance, slabs, rank * n_out, db_parts, db, scale));

    let product = Product { sizes: [tokens, n_in, n_out + rank], tile, along_k: [true, true], slabs: 1 };
    let operands = arguments(&[dy, w, dh, a, dx], &[tokens, n_in, n_out, rank], &dropout.arguments());
    plan.launches.push(product.launch("lora_input_grad", instance, operands, element.bytes()));

    let tile = rank_tile(instance.rank);
    let slabs = Slabs::cut(tokens.div_ceil(tile.k));
    let da_parts = plan.reserve(4 * slabs.n * n_in * rank);
    let product = Product { sizes: [n_in, rank, tokens], tile, along_k: [false, false], slabs: slabs.n };
    let mut operands = arguments(&[x, dh, da_parts], &[tokens, n_in, rank], &dropout.arguments());
    operands.push(Int(slabs.steps_per_slab as i32));
    plan.launches.push(product.launch("lora_down_grad", instance, operands, 4));
    plan.launches.push(sum_slabs(instance, slabs, n_in * rank, da_parts, da, Buffer::Null));
    plan
}

/// dh and the parts of db, in one pass over dy.
fn rank_grad(sizes: Sizes, instance: Instance, slabs: Slabs, dh: Buffer, db_parts: Buffer) -> Launch {
    let Sizes { tokens, n_out, rank, .. } = sizes;
    let [_, _, dy_area, _, b_area, h_area] = sizes.areas();
    let ([dy, b, scale, h], bytes) = ([0, 4, 5, 6].map(Operand), instance.element.bytes());
    // Panels of h (once), and of dy and b (twice): rows of 64 elements, or of the rank, and 16 bytes.
    let h_panel = RANK_GRAD * (instance.rank * bytes + 16);
    let stage = (RANK_GRAD + instance.rank) * (RANK_GRAD * bytes + 16);
    let tiles = tokens.div_ceil(RANK_GRAD);
    let read_once = ((dy_area + 2 * h_area) * bytes) as u64;
    let parts = 4 * (slabs.n * b_area) as u64;
    // Each tile after the first of a slab adds to what the one before it stored.
    let added = 8 * ((tiles - slabs.n) * b_area) as u64;
    let mut others = vec![Argument::Buffer(scale)];
    others.push(Int(slabs.steps_per_slab as i32));
    Launch {
        kernel: "lora_rank_grad",
        instance,
        grid: [slabs.n, 1, 1],
        block: 128,
        shared: h_panel + 2 * stage,
        arguments: arguments(&[dy, b, h, dh, db_parts], &[tokens, n_out, rank], &others),
        traffic: Traffic {
            flops: 4 * (tokens * n_out * rank) as u64,
            ideal: read_once + (b_area * bytes) as u64 + parts,
            issued: read_once + (tiles * b_area * bytes) as u64 + parts + added,
        },
    }
}
