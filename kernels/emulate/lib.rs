//! The emulator: runs the CUDA sources of `graft-kernels` on the host, for tests only. A host compiler makes a program of
//! the sources and of the emulator in this folder (`build.rs` of cargo is not involved: it happens when a test asks for
//! it); the program takes jobs on its standard input.
#![forbid(unsafe_code)]
mod compile;
mod job;

pub use compile::{Build, Edit, Sanitizer, compiler};
pub use job::{Emulator, Job, ORDERS, Outcome, Statistics};
