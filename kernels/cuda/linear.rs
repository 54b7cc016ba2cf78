//! What the plans of adapted linears share: sizes, and launches of the extended product and of the pass over dy.
use super::{
    Argument::{self, Int},
    Buffer, Dropout, Element, Launch, MOST_CALLS, Module, Site, Slabs, Stack, Tile, Tiled, Traffic,
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

/// Columns and tokens that a block of `rank_grad.cuh` takes at once.
pub(crate) const RANK_GRAD: usize = 64;

impl Sizes {
    /// Whether the kernels serve these sizes: every size fits an `int` and a grid, and none is 0.
    pub fn are_served(&self) -> bool {
        let all = [self.tokens, self.n_in, self.n_out, self.rank];
        // A grid has at most 65535 rows of tiles, of 64 elements at least.
        all.iter().all(|&n| n > 0 && n < 64 * 65_535) && self.rank <= LARGEST_RANK
    }
}

/// An adapted linear, and how its kernels are compiled and launched.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Linear {
    /// Its sizes.
    pub sizes: Sizes,
    /// The element type of activations and weights.
    pub element: Element,
    /// How large products are cut.
    pub tile: Tile,
    /// Whether a library does those that it serves.
    pub library: bool,
    /// What the adapter reads x with.
    pub dropout: Dropout,
}

impl Linear {
    /// One without dropout.
    pub fn new(sizes: Sizes, element: Element, tile: Tile) -> Linear {
        Linear { sizes, element, tile, library: false, dropout: Dropout::NONE }
    }
    /// That of the operands x (…, in), w (in, out) and a (in, rank) with these numbers, if the kernels serve it.
    pub(crate) fn of(site: &Site<'_>, [x, w, a]: [usize; 3]) -> Option<Linear> {
        Linear::with_rank(site, [x, w], site.input(a)?.cols())
    }
    /// That of the operands x (…, in) and w (in, out) with these numbers and an adapter of this rank.
    pub(crate) fn with_rank(site: &Site<'_>, [x, w]: [usize; 2], rank: usize) -> Option<Linear> {
        let element = site.element(x).filter(|&e| site.element(w) == Some(e))?;
        let (x, w) = (site.input(x)?, site.input(w)?);
        let sizes = Sizes { tokens: x.rows(), n_in: x.cols(), n_out: w.cols(), rank };
        let product = [sizes.tokens, sizes.n_out, sizes.n_in];
        let (tile, library) = (site.tile(product, element), site.takes_library(product, element));
        sizes.are_served().then(|| Linear { library, ..Linear::new(sizes, element, tile) })
    }
    /// The rank as the sources are compiled for: powers of two keep the number of modules small.
    pub(crate) fn padded_rank(&self) -> usize {
        self.sizes.rank.next_power_of_two().clamp(16, LARGEST_RANK)
    }
    /// A source, compiled for it.
    pub(crate) fn module(&self, path: &'static str) -> Module {
        self.rank_module(path).tile(self.tile)
    }
    /// A source without large products, compiled for it.
    pub(crate) fn rank_module(&self, path: &'static str) -> Module {
        Module::file(path).element(self.element).rank(self.padded_rank())
    }
    /// The tile of its products with as few columns as the rank.
    pub(crate) fn rank_tile(&self) -> Tile {
        narrow_tile(self.padded_rank(), self.element)
    }
    /// The product of activations and a matrix with as few columns as the rank.
    pub(crate) fn projection(&self) -> Product {
        let Sizes { tokens, n_in, rank, .. } = self.sizes;
        let sizes = [tokens, rank, n_in];
        let (tile, element) = (self.rank_tile(), self.element);
        Product { sizes, tile, along_k: [true, false], slabs: 1, element, to: None }
    }
    /// A large product of (rows, cols, depth).
    pub(crate) fn product(&self, sizes: [usize; 3], along_k: [bool; 2]) -> Product {
        Product { sizes, tile: self.tile, along_k, slabs: 1, element: self.element, to: None }
    }
}

/// The stages of a ring that hides how long memory takes: `NarrowTile` in `instance.cuh`, `RankGrad` in `rank_grad.cuh`.
fn stages(element: Element) -> usize {
    if element == Element::F32 { 2 } else { 4 }
}

/// The tile of a product with few columns: `NarrowTile` in `instance.cuh`.
pub(crate) fn narrow_tile(cols: usize, element: Element) -> Tile {
    let stages = if cols > 96 { 2 } else { stages(element) };
    Tile { m: 64, n: cols, k: 64, warps: [4, 1], stages }
}

/// A product of (rows, cols, depth) by blocks of `tile`.
pub(crate) struct Product {
    pub(crate) sizes: [usize; 3],
    pub(crate) tile: Tile,
    pub(crate) along_k: [bool; 2],
    pub(crate) slabs: usize,
    /// The elements of both factors.
    pub(crate) element: Element,
    /// Where its kernel stores the result, if it takes an epilogue: `finished_product` of `extended.cuh`.
    pub(crate) to: Option<Buffer>,
}

impl Product {
    /// By blocks of another tile.
    pub(crate) fn with_tile(self, tile: Tile) -> Product {
        Product { tile, ..self }
    }
    /// By a kernel that takes an epilogue and stores its elements there.
    pub(crate) fn storing(self, to: Buffer) -> Product {
        Product { to: Some(to), ..self }
    }
    /// How one launch makes the product of the same left operand with the right ones of several calls, each of which has the
    /// columns of a narrow tile: `own` says where their arguments are.
    pub(crate) fn stack(&self, own: &'static [usize]) -> Stack {
        let ([m, _, k], tile, bytes) = (self.sizes, self.tile, self.element.bytes());
        let read = (m * k * bytes) as u64;
        let of_one = Tile { stages: 1, ..tile }.shared(self.element, self.along_k);
        let of_each = tile.k * (tile.n * bytes + 16);
        let stage = |calls: usize| of_one + (calls - 1) * of_each;
        let shared = |calls: usize| narrow_tile(calls * tile.n, self.element).stages * stage(calls);
        // Sums of more columns would not fit into registers, or panels of more into the shared memory of every device.
        let columns = if self.element == Element::F32 { 96 } else { 192 };
        Stack {
            own,
            shared: [1, 2, 3, 4].map(shared),
            common: Traffic { flops: 0, ideal: read, issued: read },
            most: (columns / tile.n).min(MOST_CALLS),
        }
    }
    /// Its launch; elements of the result have so many bytes.
    pub(crate) fn launch(
        &self,
        kernel: &'static str,
        module: Module,
        arguments: Vec<Argument>,
        result_bytes: usize,
    ) -> Launch {
        let ([m, n, k], tile, bytes) = (self.sizes, self.tile, self.element.bytes());
        let (across, down) = (n.div_ceil(tile.n), m.div_ceil(tile.m));
        let stored = (m * n * self.slabs * result_bytes) as u64;
        Launch {
            kernel,
            module,
            grid: [across, down, self.slabs],
            block: tile.threads(),
            shared: tile.shared(self.element, self.along_k),
            arguments,
            library: None,
            traffic: Traffic {
                flops: 2 * (m * n * k) as u64,
                ideal: ((m * k + k * n) * bytes) as u64 + stored,
                issued: ((m * k * across + k * n * down) * bytes) as u64 + stored,
            },
            tiled: self.to.map(|to| Tiled { to, rows: m * self.slabs, cols: n, element: self.element }),
            stack: None,
        }
    }
}

/// Arguments: buffers, then sizes, then others.
pub(crate) fn arguments(buffers: &[Buffer], sizes: &[usize], others: &[Argument]) -> Vec<Argument> {
    let buffers = buffers.iter().map(|&b| Argument::Buffer(b));
    buffers.chain(sizes.iter().map(|&n| Int(n as i32))).chain(others.iter().copied()).collect()
}

/// A launch over a few elements, on so many blocks and threads of each, that moves so many bytes.
pub(crate) fn small(
    kernel: &'static str,
    module: Module,
    [blocks, threads]: [usize; 2],
    arguments: Vec<Argument>,
    bytes: usize,
) -> Launch {
    let bytes = bytes as u64;
    Launch {
        kernel,
        module,
        grid: [blocks, 1, 1],
        block: threads,
        shared: 0,
        arguments,
        library: None,
        traffic: Traffic { flops: bytes / 4, ideal: bytes, issued: bytes },
        tiled: None,
        stack: None,
    }
}

/// The pass over dy that makes the gradient in rank space and a slab's part of that of the up-projection.
pub(crate) struct RankGrad<'a> {
    pub(crate) linear: &'a Linear,
    pub(crate) slabs: Slabs,
}

impl RankGrad<'_> {
    /// Its launch; what the kernel takes before the tiles of a slab is `arguments`.
    pub(crate) fn launch(
        &self,
        kernel: &'static str,
        module: Module,
        mut arguments: Vec<Argument>,
    ) -> Launch {
        let Sizes { tokens, n_out, rank, .. } = self.linear.sizes;
        let (up, bytes, tiles) = (rank * n_out, self.linear.element.bytes(), tokens.div_ceil(RANK_GRAD));
        // Panels of what was saved (once), and of dy and the weight (a ring): rows of 64 elements, or of the rank, and 16
        // bytes.
        let padded = self.linear.padded_rank();
        let saved = RANK_GRAD * (padded * bytes + 16);
        let stage = (RANK_GRAD + padded) * (RANK_GRAD * bytes + 16);
        let read_once = ((tokens * n_out + 2 * tokens * rank) * bytes) as u64;
        let parts = 4 * (self.slabs.n * up) as u64;
        // Each tile after the first of a slab adds to what the one before it stored.
        let added = 8 * ((tiles - self.slabs.n) * up) as u64;
        arguments.push(Int(self.slabs.steps_per_slab as i32));
        Launch {
            kernel,
            module,
            grid: [self.slabs.n, 1, 1],
            block: 128,
            shared: saved + stages(self.linear.element) * stage,
            arguments,
            library: None,
            traffic: Traffic {
                flops: 4 * (tokens * up) as u64,
                ideal: read_once + (up * bytes) as u64 + parts,
                issued: read_once + (tiles * up * bytes) as u64 + parts + added,
            },
            tiled: None,
            stack: None,
        }
    }
}

impl Slabs {
    /// Cuts the sum over tokens, of which a slab makes so many floats.
    pub(crate) fn of_tokens(tokens: usize, floats: usize) -> Slabs {
        Slabs::cut_for(tokens.div_ceil(RANK_GRAD), floats)
    }
}
