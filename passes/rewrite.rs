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
pub use matcher::{Match, Pattern, Reject};

use graft_ir::{Graph, Node, Value};
use std::collections::{HashMap, HashSet};

/// Who defines and who reads each value of a graph.
pub struct Sites<'g> {
    /// The graph.
    pub graph: &'g Graph,
    definitions: HashMap<Value, usize>,
    readers: HashMap<Value, Vec<usize>>,
    outputs: HashSet<Value>,
    params: HashSet<Value>,
}

impl<'g> Sites<'g> {
    /// Reads the graph once.
    pub fn new(graph: &'g Graph) -> Sites<'g> {
        let mut sites = Sites {
            graph,
            definitions: HashMap::new(),
            readers: HashMap::new(),
            outputs: graph.outputs.iter().copied().collect(),
            params: graph.params.iter().copied().filter(|v| !graph.inputs.contains(v)).collect(),
        };
        for (i, node) in graph.nodes.iter().enumerate() {
            sites.definitions.extend(node.defines().map(|v| (v, i)));
            node.reads().for_each(|v| sites.readers.entry(v).or_default().push(i));
        }
        sites
    }
    /// The node that defines `v`, by position.
    pub fn definition(&self, v: Value) -> Option<usize> {
        self.definitions.get(&v).copied()
    }
    /// The node that defines `v`.
    pub fn node(&self, v: Value) -> Option<&'g Node> {
        self.graph.nodes.get(self.definition(v)?)
    }
    /// The nodes that read `v`, by position; a node that reads it twice stands there twice.
    pub fn readers(&self, v: Value) -> &[usize] {
        self.readers.get(&v).map_or(&[], Vec::as_slice)
    }
    /// Whether `v` is a result of the graph.
    pub fn is_output(&self, v: Value) -> bool {
        self.outputs.contains(&v)
    }
    /// Whether `v` is a weight that nobody can override.
    pub fn is_param(&self, v: Value) -> bool {
        self.params.contains(&v)
    }
}
