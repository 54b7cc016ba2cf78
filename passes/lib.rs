//! Passes: each takes a graph and returns a new one. `ALL` lists them.
#![forbid(unsafe_code)]

pub mod canonicalize;
pub mod constant;
pub mod cse;
pub mod diff;
pub mod fold;
pub mod fuse;
pub mod grad;
pub mod head;
pub mod inject;
pub mod inline;
pub mod io;
pub mod loss;
pub mod merge;
pub mod meta;
pub mod optimizer;
mod options;
pub mod penalty;
pub mod pipeline;
pub mod ranks;
pub mod rewrite;
pub mod selector;
pub mod sweep;
pub mod target;
pub mod upgrade;

pub use options::Options;
pub use pipeline::{Stage, Step};
pub use selector::Selector;
pub use target::{Linear, targets};

use graft_ir::{Graph, Node, Result, Tensor, Type};
use std::collections::BTreeMap;

/// A named function from graph to graph. It never mutates its input; the graph verifies before and after it.
#[derive(Clone, Copy)]
pub struct Pass {
    /// A verb, as pipelines spell it.
    pub name: &'static str,
    /// One line for help.
    pub about: &'static str,
    /// The function.
    pub run: fn(&Graph, &Options, &mut Context<'_>) -> Result<Graph>,
}

/// Every pass, alphabetically.
pub const ALL: &[Pass] = &[
    optimizer::ACCUMULATE,
    canonicalize::PASS,
    cse::PASS,
    fold::PASS,
    fuse::PASS,
    grad::PASS,
    head::PASS,
    inject::PASS,
    inline::PASS,
    loss::PASS,
    merge::PASS,
    optimizer::PASS,
    penalty::PASS,
    sweep::PASS,
    upgrade::PASS,
];

/// What a pass may use besides the graph and its options.
pub struct Context<'a> {
    /// Receives one line for each thing that a user may want to know: what was done, what was not and why.
    pub log: &'a mut dyn FnMut(&str),
    /// Whether the backend has a kernel for this call, given the types of its operands.
    pub has_kernel: &'a dyn Fn(&Node, &[Option<Type>]) -> bool,
    /// Trained adapter tensors that `inject` and `merge` use: file key (`<module path>.<suffix>`, without the
    /// `base_model.model.` prefix) → tensor in the file's orientation.
    pub adapter: Option<&'a BTreeMap<String, Tensor>>,
    /// The seed of random initial weights.
    pub seed: u64,
}
