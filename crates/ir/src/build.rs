//! Appending nodes to a graph: names are made unique and types are inferred at once, so that an ill-typed node
//! cannot be built.
use crate::{Attr, Code, Dim, Error, Graph, Node, Result, Tensor, Value, infer, library};
use std::collections::HashSet;

/// Appends to a graph. New values are called after a scope and a hint.
pub struct Builder<'g> {
    /// The graph; whoever edits it otherwise must keep names unique.
    pub graph: &'g mut Graph,
    names: HashSet<String>,
    scope: String,
}

impl<'g> Builder<'g> {
    /// A builder at the end of `graph`.
    pub fn new(graph: &'g mut Graph) -> Builder<'g> {
        let names = graph.used_values().into_iter().map(|v| graph.name(v).to_string()).collect();
        Builder { graph, names, scope: String::new() }
    }
    /// Names of new values begin with `scope` from here on.
    pub fn scope(&mut self, scope: impl Into<String>) -> &mut Self {
        self.scope = scope.into();
        self
    }
    /// A name that no value has yet: scope and hint, and a number where needed.
    pub fn fresh(&mut self, hint: &str) -> String {
        let base = format!("{}{hint}", self.scope);
        let numbered = (1..).map(|i| format!("{base}_{i}"));
        let free = std::iter::once(base.clone()).chain(numbered).find(|n| !self.names.contains(n));
        let name = free.expect("one of infinitely many names is free");
        self.names.insert(name.clone());
        name
    }
    /// Appends a node with `n` fresh results, called after `hint`; its `outputs` must be empty.
    pub fn push_n(&mut self, hint: &str, mut node: Node, n: usize) -> Result<Vec<Value>> {
        let outputs: Vec<Value> = (0..n)
            .map(|_| {
                let name = self.fresh(hint);
                self.graph.add_value(name, None)
            })
            .collect();
        node.outputs = outputs.iter().copied().map(Some).collect();
        self.append(node)?;
        Ok(outputs)
    }
    /// Appends a node with one fresh result.
    pub fn push(&mut self, hint: &str, node: Node) -> Result<Value> {
        Ok(self.push_n(hint, node, 1)?[0])
    }
    /// Appends a node whose results exist already, and infers their types.
    pub fn append(&mut self, node: Node) -> Result<()> {
        let facts = infer::infer_node(self.graph, &node)?;
        infer::set_facts(self.graph, &node, facts);
        self.graph.nodes.push(node);
        Ok(())
    }
    /// Appends an op without attributes, with one fresh result.
    pub fn op(&mut self, hint: &str, op: &str, inputs: &[Value]) -> Result<Value> {
        self.push(hint, Node::new(op, inputs, &[]))
    }
    /// Appends a `Constant`.
    pub fn constant(&mut self, hint: &str, tensor: Tensor) -> Result<Value> {
        self.push(hint, Node::new("Constant", &[], &[]).with("value", Attr::Tensor(tensor)))
    }
    /// Appends a one-dimensional `int64` constant: axes, sizes and the like.
    pub fn ints(&mut self, hint: &str, values: &[i64]) -> Result<Value> {
        self.constant(hint, Tensor::i64(&[values.len()], values))
    }
    /// Appends a scalar constant of the same element type as `like`.
    pub fn scalar_like(&mut self, hint: &str, value: f64, like: Value) -> Result<Value> {
        let untyped = || {
            Error::new(Code::TYPES, format!("the element type of `{}` is not known", self.graph.name(like)))
        };
        let dtype = self.graph.dtype(like).ok_or_else(untyped)?;
        let tensor = Tensor::from_f64(dtype, &[], [value]);
        let tensor = tensor.ok_or_else(|| Error::new(Code::TYPES, format!("no constant of type {dtype}")))?;
        self.constant(hint, tensor)
    }
    /// Appends a call of a library function (`graft.SoftmaxGrad`, …) with `n` fresh results.
    pub fn call(&mut self, hint: &str, node: Node, n: usize) -> Result<Vec<Value>> {
        library::require(self.graph, &node.op)?;
        self.push_n(hint, node, n)
    }
    /// The shape of a value; an error if its rank is not known.
    pub fn shape(&self, v: Value) -> Result<Vec<Dim>> {
        let unknown =
            || Error::new(Code::TYPES, format!("the rank of `{}` is not known", self.graph.name(v)));
        self.graph.shape(v).map(<[Dim]>::to_vec).ok_or_else(unknown)
    }
}
