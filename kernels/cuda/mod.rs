//! CUDA: the sources of the kernels, and launch plans, which say as plain data what to launch. One function for each kernel
//! makes its plans; the driver, the emulator (`kernels/emulate`) and whatever else runs kernels take them as they are.
mod cache;
pub mod cublaslt;
mod frame;
mod gpu;
mod launch;
mod library;
mod linear;
mod measured;
mod module;
pub mod nvrtc;
mod plan;
mod site;
mod source;
mod split;
mod stack;
mod tile;
mod vendor;

pub use cache::Cache;
pub use frame::Frame;
pub use gpu::{DeviceMemory, Gpu, Recording};
pub(crate) use launch::{PER_THREAD, THREADS, buffers, int, long, walk};
pub use library::{Library, LibraryProduct, Matrix};
pub use linear::{LARGEST_RANK, Linear, Sizes};
pub(crate) use linear::{Product, RANK_GRAD, RankGrad, arguments, narrow_tile, small};
pub use measured::Measurements;
pub use module::{Epilogue, Module, Text};
pub use plan::{Argument, Buffer, Dropout, Element, Launch, Plan, Tile, Tiled, Traffic};
pub use site::{Shape, Site, Target};
pub use source::{HEADERS, Source, sources};
pub(crate) use source::{linear_modules, linears, ranks, stacks};
pub(crate) use split::Slabs;
pub(crate) use stack::each;
pub use stack::{Call, MOST_CALLS, Stack, together};
pub use tile::{Class, Fastest, TILES, Table};
