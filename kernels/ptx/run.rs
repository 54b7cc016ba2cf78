//! Running a program: blocks of warps of 32 lanes, which execute each instruction at once.
pub(crate) mod access;
mod arithmetic;
pub(crate) mod block;
mod collective;
mod convert;
mod copies;
mod flow;
mod load;
mod row;
mod store;
pub(crate) mod warp;
pub(crate) mod windows;
