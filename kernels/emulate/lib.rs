//! The emulator: runs the CUDA sources of `graft-kernels` on the host, for tests only. A host compiler makes
//! a program of the files in this folder and a library of each module (`build.rs` of cargo is not involved: it happens
//! when a test asks for it); the program takes jobs on its standard input and loads the libraries that they name.
#![forbid(unsafe_code)]
mod compile;
mod job;

pub use compile::{Edit, Sanitizer, Toolchain};
pub use job::{Emulator, Job, ORDERS, Outcome, Statistics};
