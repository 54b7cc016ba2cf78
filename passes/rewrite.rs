//! Finds the body of a function in a graph and replaces it: by a call, or by another body.
//!
//! A pattern is a function's body read backwards from its results. Its inputs match anything, its `@attributes`
//! match constants and attributes, its constants match equal constants of any floating-point type, and of `Add` and
//! `Mul` both orders are tried.
mod apply;
mod defaults;
mod matcher;
#[cfg(test)]
mod tests;

pub use apply::{Replacement, rewrite};
pub(crate) use matcher::is_commutative;
pub use matcher::{Match, Pattern, Reject};

use crate::constant;
use graft_ir::{Array, Graph, Node, Uses, Value};

/// A graph, and who defines and reads each of its values.
pub struct Sites<'g> {
    /// The graph.
    pub graph: &'g Graph,
    /// Computed from the graph as it is.
    pub uses: Uses,
}

impl<'g> Sites<'g> {
    /// Looks at every node once.
    pub fn new(graph: &'g Graph) -> Sites<'g> {
        Sites { graph, uses: Uses::new(graph) }
    }
    /// The node that defines `v`.
    pub fn node(&self, v: Value) -> Option<&'g Node> {
        self.graph.nodes.get(self.uses.def(v)?)
    }
    /// What `v` holds in every run: the data of a `Constant` node, or of a weight that is frozen and cannot be
    /// overridden.
    pub fn constant(&self, v: Value) -> Option<Array> {
        match self.node(v) {
            Some(node) => constant::of_node(node),
            None => Array::from_tensor(constant::of_param(self.graph, v)?).ok(),
        }
    }
}
