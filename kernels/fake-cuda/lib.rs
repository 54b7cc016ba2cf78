//! A library that stands in for the NVIDIA driver, for tests only: programs that load `libcuda.so` at run time find a device
//! whose kernels are interpreted from PTX.
//!
//! What a real driver would leave undefined, or notice late, is an error here at once, and a line on the standard error
//! that begins with `fake-cuda:`: copies outside of live allocations, memory freed twice or used afterwards, reads of what
//! nobody has written, launches beyond the device's limits, shared memory that was not asked for, modules that are no PTX,
//! and what is left when the last context goes. The device calls itself emulated: no time that it takes means anything.
//!
//! The environment may say: `GRAFT_FAKE_CUDA_MEMORY`, the device's memory in bytes; `GRAFT_FAKE_CUDA_SCHEDULE`, the order of
//! warps (`lock-step`, `forward` or `reverse`); `GRAFT_FAKE_CUDA_LEAKS=abort`, to end the program where something is left;
//! `GRAFT_FAKE_CUDA_LOG=1`, to say at the end what was executed.
pub mod api;
mod driver;
mod install;
mod objects;
pub mod pointers;
mod rerun;
mod status;

pub use install::install;
pub use rerun::stand_in;
