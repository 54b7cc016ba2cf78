//! Kernels: what an op or a function of a graph does, written for speed. A folder holds one family: `mod.rs` its
//! rows of the table, `cpu.rs` the work on slices, `*.cu` the same for CUDA and `cuda.rs` how to launch that.
//!
//! A kernel computes what the op's `eval`, or the function's body, computes; tests hold it to that. Its results have the
//! same bits for any number of threads. Results are row-major; operands may be strided where the table says so.
mod adalora;
mod attention;
mod bat;
pub mod bone;
mod call;
pub mod cuda;
mod device;
mod dora;
mod elementwise;
mod extended;
mod gather;
pub mod gemm;
pub mod hydra;
mod layer_norm;
pub mod lora;
mod loss;
mod math;
mod matmul;
mod memory;
pub mod movement;
mod optimizer;
mod random;
mod reduce;
mod rms_norm;
mod rotary;
mod salora;
mod search;
mod softmax;
mod strides;
mod threads;
mod tri;
mod window;

pub use call::{Call, Operand, View, ViewMut, axis, extent, is_row_major, row_major};
pub use device::{Device, Work};
pub use elementwise::{
    chain::{Chain, Source},
    cuda::Expression,
};
pub use memory::{ALIGN, Memory, borrow};
pub use movement::copy;
pub use threads::Threads;

use graft_ir::{DType, Node, Result, Type};

/// Whether a kernel serves a node, given the types of the operands (`None`: left out or not known).
pub type Supports = fn(&Node, &[Option<Type>]) -> bool;
/// The work of a kernel.
pub type Run = fn(&mut Call<'_>) -> Result<()>;
/// Something about a node and the sizes of its operands (empty for those left out) and results.
pub type Count<T> = fn(&Node, operands: &[&[usize]], results: &[&[usize]]) -> T;

/// A row of the table: one op or function.
pub struct Kernel {
    /// Domain-qualified name of the op or function.
    pub name: &'static str,
    /// Whether it serves a node.
    pub supports: Supports,
    /// The work.
    pub run: Run,
    /// Bytes of scratch memory that it needs.
    pub scratch: Count<usize>,
    /// The operands that may be strided; others are made row-major before the call.
    pub strided: Operands,
    /// Pairs (operand, result): the result may overwrite the row-major operand of the same type and size.
    pub in_place: &'static [(usize, usize)],
    /// Floating-point operations.
    pub flops: Count<u64>,
    /// How a CUDA device does the same.
    pub device: Device,
}

/// A set of operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operands {
    /// No operand.
    None,
    /// These operands.
    Only(&'static [usize]),
    /// Every operand.
    All,
}

impl Operands {
    /// Whether operand `i` is in the set.
    pub fn contains(self, i: usize) -> bool {
        match self {
            Operands::None => false,
            Operands::Only(these) => these.contains(&i),
            Operands::All => true,
        }
    }
}

impl Kernel {
    /// A kernel for `float` operands that needs no scratch memory, reads row-major operands and overwrites none.
    const fn new(name: &'static str, supports: Supports, run: Run) -> Kernel {
        Kernel {
            name,
            supports,
            run,
            scratch: |_, _, _| 0,
            strided: Operands::None,
            in_place: &[],
            // One operation for each element of the result.
            flops: |_, _, results| results.first().map_or(0, |dims| dims.iter().product::<usize>() as u64),
            device: Device::NONE,
        }
    }
    const fn strided(mut self, operands: Operands) -> Kernel {
        self.strided = operands;
        self
    }
    const fn in_place(mut self, pairs: &'static [(usize, usize)]) -> Kernel {
        self.in_place = pairs;
        self
    }
    const fn scratch(mut self, bytes: Count<usize>) -> Kernel {
        self.scratch = bytes;
        self
    }
    const fn flops(mut self, count: Count<u64>) -> Kernel {
        self.flops = count;
        self
    }
    const fn device(mut self, device: Device) -> Kernel {
        self.device = device;
        self
    }
}

/// The table, by family.
pub const FAMILIES: &[&[Kernel]] = &[
    adalora::KERNELS,
    attention::KERNELS,
    bat::KERNELS,
    bone::KERNELS,
    dora::KERNELS,
    elementwise::KERNELS,
    gather::KERNELS,
    hydra::KERNELS,
    layer_norm::KERNELS,
    lora::KERNELS,
    loss::KERNELS,
    matmul::KERNELS,
    movement::KERNELS,
    optimizer::KERNELS,
    random::KERNELS,
    reduce::KERNELS,
    rms_norm::KERNELS,
    rotary::KERNELS,
    salora::KERNELS,
    search::KERNELS,
    softmax::KERNELS,
    tri::KERNELS,
    window::KERNELS,
];

/// Every kernel.
pub fn all() -> impl Iterator<Item = &'static Kernel> {
    FAMILIES.iter().copied().flatten()
}

/// The kernel for this node, given the types of its operands.
pub fn lookup(node: &Node, types: &[Option<Type>]) -> Option<&'static Kernel> {
    all().find(|k| k.name == node.op && (k.supports)(node, types))
}

/// Whether there is a kernel for this node, given the types of its operands.
pub fn supports(node: &Node, types: &[Option<Type>]) -> bool {
    lookup(node, types).is_some()
}

/// The element type of operand `i`.
fn dtype(types: &[Option<Type>], i: usize) -> Option<DType> {
    types.get(i)?.as_ref().map(|t| t.dtype)
}

/// Whether operands `0..n` are given and are all `float`.
fn floats(types: &[Option<Type>], n: usize) -> bool {
    (0..n).all(|i| dtype(types, i) == Some(DType::Float))
}

/// Whether operand `i` is an integer index type that the kernels read.
fn indices(types: &[Option<Type>], i: usize) -> bool {
    matches!(dtype(types, i), Some(DType::Int64 | DType::Int32))
}
