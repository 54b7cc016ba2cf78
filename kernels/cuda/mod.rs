//! CUDA: the sources of the kernels, and launch plans, which say as plain data what to launch. One function for each kernel
//! makes its plans; the driver, the emulator (`kernels/emulate`) and whatever else runs kernels take them as they are.
mod linear;
pub mod nvrtc;
mod plan;
mod source;
mod split;

pub use linear::{LARGEST_RANK, Sizes};
pub(crate) use linear::{Product, RankGrad, arguments, rank_tile};
pub use plan::{Argument, Buffer, Dropout, Element, Instance, Launch, Plan, Tile, Traffic};
pub use source::{FILES, KERNELS, Source, TILES, source_of};
pub(crate) use split::{Slabs, sum_slabs};
