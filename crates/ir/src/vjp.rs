//! Reverse-mode rules: how an op's gradient is written as further nodes.
use crate::{Builder, Code, Error, Node, Result, Value};

/// What is known of an op's gradient.
#[derive(Clone, Copy)]
pub enum Vjp {
    /// Nobody wrote one: differentiating through the op is refused.
    Missing,
    /// The result does not depend continuously on any operand: nothing flows back.
    Zero,
    /// Pushes nodes that compute the operands' gradients.
    Rule(fn(&mut Backward<'_, '_>) -> Result<Vec<Option<Value>>>),
}

/// What a rule may look at, and the builder that it pushes to.
pub struct Backward<'a, 'g> {
    /// Where the gradient's nodes go.
    pub b: &'a mut Builder<'g>,
    /// The node to differentiate.
    pub node: &'a Node,
    /// The opset version of the node's domain.
    pub opset: i64,
    /// The gradient of each result; `None` where nothing flows back.
    pub dy: &'a [Option<Value>],
    /// Which operands need a gradient; a rule may skip the others.
    pub needs: &'a [bool],
}

impl Backward<'_, '_> {
    /// Operand `i`; an error if it is left out.
    pub fn input(&self, i: usize) -> Result<Value> {
        self.node.input(i).ok_or_else(|| Error::new(Code::TYPES, format!("operand {i} is missing")))
    }
    /// The gradient of the first result; an error if nothing flows back into it.
    pub fn dy(&self) -> Result<Value> {
        let none = || {
            Error::new(
                Code::NO_GRADIENT,
                format!("`{}` has a gradient for its first result only", self.node.op),
            )
        };
        self.dy.first().copied().flatten().ok_or_else(none)
    }
    /// Whether operand `i` needs a gradient.
    pub fn needs(&self, i: usize) -> bool {
        self.needs.get(i).copied().unwrap_or(false)
    }
}
