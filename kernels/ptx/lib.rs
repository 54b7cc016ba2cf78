//! A PTX interpreter, for tests only: it runs what NVRTC makes of the CUDA sources on a machine without a GPU.
//!
//! A [`Module`] is parsed once into decoded programs; a [`Kernel`] is launched on a [`Memory`] with a [`Schedule`] of its
//! warps. Each instruction is executed for the 32 lanes of a warp at once. What a device would leave undefined is a
//! [`Fault`]: accesses outside of allocations, reads of what nobody has written, lanes that have diverged where a warp acts
//! as one, barriers that some threads do not reach, asynchronous copies that are used before they were waited for (they
//! are NaN until then). An opcode that is not known is an [`Error`] that names it and its line.
mod decode;
mod launch;
mod lex;
mod memory;
mod module;
mod program;
mod run;
mod syntax;
#[cfg(test)]
mod tests;

pub use launch::{Fault, Kernel, Launch, MOST_SHARED, Schedule, Statistics};
pub use memory::{Memory, Violation};
pub use module::{Error, Module};
