//! Sums that are split among blocks: each slab of the sum goes to a workspace of its own, and `sum_slabs` adds these in a
//! fixed order.
use super::{
    Argument::{self, Int, Long},
    Buffer, Instance, Launch, Traffic,
};

/// How a sum of `steps` is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slabs {
    pub(crate) n: usize,
    pub(crate) steps_per_slab: usize,
}

/// The most slabs of one sum: enough blocks to fill a device, and a workspace that stays in its L2 cache.
const MOST: usize = 32;

impl Slabs {
    /// Cuts a sum of `steps` steps.
    pub(crate) fn cut(steps: usize) -> Slabs {
        let steps_per_slab = steps.div_ceil(MOST).max(1);
        Slabs { n: steps.div_ceil(steps_per_slab).max(1), steps_per_slab }
    }
}

/// The sum of the slabs, of `n` elements each, times the number at `scale`.
pub(crate) fn sum_slabs(
    instance: Instance,
    slabs: Slabs,
    n: usize,
    parts: Buffer,
    out: Buffer,
    scale: Buffer,
) -> Launch {
    let bytes = 4 * (n * (slabs.n + 1)) as u64;
    Launch {
        kernel: "sum_slabs",
        instance,
        grid: [n.div_ceil(256), 1, 1],
        block: 256,
        shared: 0,
        arguments: vec![
            Argument::Buffer(parts),
            Argument::Buffer(out),
            Long(n as i64),
            Int(slabs.n as i32),
            Argument::Buffer(scale),
        ],
        traffic: Traffic { flops: (n * slabs.n) as u64, ideal: bytes, issued: bytes },
    }
}
