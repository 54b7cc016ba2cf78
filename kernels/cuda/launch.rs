//! Launches of blocks of 256 threads, which all kernels have that are no products.
use super::{Argument, Buffer, Launch, Module, Traffic};
use crate::strides::Walk;

/// The threads of a block.
pub(crate) const THREADS: usize = 256;

/// The elements that a thread of `movement.cu` has.
pub(crate) const PER_THREAD: usize = 4;

/// The most axes that a walk of a kernel has: `AXES` in `walk.cuh`.
const AXES: usize = 8;

/// Rows that are longer have a block each, others a warp: `LONGEST_OF_WARP` in `team.cuh`.
const LONGEST_OF_WARP: usize = 512;

/// What the warps of a block exchange: `Team::SHARED` in `team.cuh`.
const EXCHANGED: usize = 8 * THREADS / 32;

impl Launch {
    /// Of so many blocks.
    pub(crate) fn new(
        kernel: &'static str,
        module: Module,
        grid: [usize; 3],
        arguments: Vec<Argument>,
    ) -> Launch {
        let (block, shared, traffic) = (THREADS, EXCHANGED, Traffic::default());
        let (library, tiled, stack) = (None, None, None);
        Launch { kernel, module, grid, block, shared, arguments, library, traffic, tiled, stack }
    }
    /// Of enough threads for `n` elements, `per_thread` each.
    pub(crate) fn elements(
        kernel: &'static str,
        module: Module,
        (n, per_thread): (usize, usize),
        arguments: Vec<Argument>,
    ) -> Launch {
        Launch::new(kernel, module, [n.div_ceil(THREADS * per_thread), 1, 1], arguments)
    }
    /// Of a team for each of so many rows of a length.
    pub(crate) fn rows(
        kernel: &'static str,
        module: Module,
        (rows, length): (usize, usize),
        arguments: Vec<Argument>,
    ) -> Launch {
        let blocks = if length > LONGEST_OF_WARP { rows } else { rows.div_ceil(THREADS / 32) };
        Launch::new(kernel, module, [blocks, 1, 1], arguments)
    }
    /// With so many operations and bytes, each of which is asked for once.
    pub(crate) fn costs(mut self, flops: usize, bytes: usize) -> Launch {
        self.traffic = Traffic { flops: flops as u64, ideal: bytes as u64, issued: bytes as u64 };
        self
    }
}

/// The arguments of a walk over tensors with these sizes, each with its own strides: `GRAFT_SIZES`, then each one's
/// `GRAFT_STRIDES`. `None` if there are too many axes or one is too long.
pub(crate) fn walk<const N: usize>(dims: &[usize], strides: [&[usize]; N]) -> Option<Vec<Argument>> {
    let walk = Walk::new(dims, strides);
    let (sizes, strides) = walk.axes();
    let small = sizes.iter().all(|&n| i32::try_from(n).is_ok());
    let padded = |of: &[usize], with: usize| -> Vec<usize> {
        of.iter().rev().copied().chain(std::iter::repeat(with)).take(AXES).collect()
    };
    let mut arguments = vec![int(sizes.len())];
    arguments.extend(padded(sizes, 1).into_iter().map(int));
    arguments.extend(strides.iter().flat_map(|s| padded(s, 0)).map(long));
    (sizes.len() <= AXES && small).then_some(arguments)
}

/// Pointers.
pub(crate) fn buffers<const N: usize>(buffers: [Buffer; N]) -> Vec<Argument> {
    buffers.map(Argument::Buffer).to_vec()
}

/// A size that is known to fit.
pub(crate) fn int(n: usize) -> Argument {
    Argument::Int(n as i32)
}

/// A size, or an offset.
pub(crate) fn long(n: usize) -> Argument {
    Argument::Long(n as i64)
}
