//! Sums that are split among blocks: each slab of the sum goes to a workspace of its own, and `sum_slabs` adds these in a
//! fixed order.
use super::{
    Argument::{self, Int, Long},
    Buffer, Launch, Module, Source, Traffic,
};
use std::ops::{Range, RangeInclusive};

pub(super) const SOURCES: &[Source] = &[Source {
    path: PATH,
    text: include_str!("slabs.cu"),
    kernels: &["sum_slabs"],
    products: &[],
    modules: |module| vec![module],
}];

const PATH: &str = "cuda/slabs.cu";

/// How a sum of `steps` is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slabs {
    pub(crate) n: usize,
    pub(crate) steps_per_slab: usize,
}

/// The most slabs of one sum.
const MOST: usize = 32;

/// Twice as many are made where they all take so many bytes: fewer are made fast anyway, more do not stay in the L2 cache.
const WORTHWHILE: RangeInclusive<usize> = 1 << 20..=16 << 20;

impl Slabs {
    /// Cuts a sum of `steps` steps.
    pub(crate) fn cut(steps: usize) -> Slabs {
        Slabs::cut_into(steps, MOST)
    }
    /// Cuts a sum of which a slab makes so many floats, and is made by one block: the more of them, the more of the device
    /// is at work.
    pub(crate) fn cut_for(steps: usize, floats: usize) -> Slabs {
        Slabs::cut_into(steps, if WORTHWHILE.contains(&(4 * 2 * MOST * floats)) { 2 * MOST } else { MOST })
    }
    fn cut_into(steps: usize, most: usize) -> Slabs {
        let steps_per_slab = steps.div_ceil(most).max(1);
        Slabs { n: steps.div_ceil(steps_per_slab).max(1), steps_per_slab }
    }

    /// The sum of the slabs at `parts`, of `n` floats each, times the number at `scale`.
    pub(crate) fn sum(self, n: usize, parts: Buffer, out: Buffer, scale: Buffer) -> Launch {
        self.sum_columns([1, n], 0..n, [parts, out, scale])
    }

    /// The same of some columns of the slabs, which have (rows, columns) floats each.
    pub(crate) fn sum_columns(
        self,
        [rows, width]: [usize; 2],
        columns: Range<usize>,
        [parts, out, scale]: [Buffer; 3],
    ) -> Launch {
        let n = rows * columns.len();
        let bytes = 4 * (n * (self.n + 1)) as u64;
        Launch {
            kernel: "sum_slabs",
            module: Module::file(PATH),
            grid: [n.div_ceil(256), 1, 1],
            block: 256,
            shared: 0,
            arguments: vec![
                Argument::Buffer(parts),
                Argument::Buffer(out),
                Long(rows as i64),
                Int(columns.len() as i32),
                Int(width as i32),
                Int(columns.start as i32),
                Int(self.n as i32),
                Argument::Buffer(scale),
            ],
            library: None,
            traffic: Traffic { flops: (n * self.n) as u64, ideal: bytes, issued: bytes },
            tiled: None,
            stack: None,
        }
    }
}
