//! Reverse-mode rules: how an op's gradient is written as further nodes.
use crate::{Builder, Code, Dim, Error, Node, Result, Tensor, Value, infer, ops};

/// Pushes nodes that compute the operands' gradients, one for each operand.
pub type Rule = fn(&mut Backward<'_, '_>) -> Result<Vec<Option<Value>>>;

/// What is known of an op's gradient.
#[derive(Clone, Copy)]
pub enum Vjp {
    /// Nobody wrote one: differentiating through the op is refused.
    Missing,
    /// The result does not depend continuously on any operand: nothing flows back.
    Zero,
    /// Pushes nodes that compute the operands' gradients.
    Rule(Rule),
    /// The op is written with others, through whose rules it is differentiated.
    Body(ops::Body),
}

impl Vjp {
    /// The rule by which something flows back, if anything does.
    pub fn rule(self) -> Option<Rule> {
        match self {
            Vjp::Rule(rule) => Some(rule),
            Vjp::Body(_) => Some(ops::vjp_body),
            Vjp::Missing | Vjp::Zero => None,
        }
    }
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
    /// Result `i`; an error if it is not wanted.
    pub fn output(&self, i: usize) -> Result<Value> {
        self.node.output(i).ok_or_else(|| Error::new(Code::TYPES, format!("result {i} is missing")))
    }
    /// Operand `i` where it is a constant: a param that is no input, or what a `Constant` node holds.
    pub fn constant(&self, i: usize) -> Option<Tensor> {
        let (graph, v) = (&*self.b.graph, self.node.input(i)?);
        if graph.params.contains(&v) {
            return graph[v].tensor.clone().filter(|_| !graph.inputs.contains(&v));
        }
        let node = graph.nodes.iter().find(|n| n.op == "Constant" && n.output(0) == Some(v))?;
        node.tensor("value").ok().flatten().cloned()
    }
    /// Operand `i`, or else the attribute that it was in older opsets, as numbers, where they are known.
    pub fn ints_at(&self, i: usize, attr: &str) -> Result<Option<Vec<i64>>> {
        match self.node.input(i) {
            Some(v) => Ok(infer::known(self.b.graph, v).and_then(|k| k.iter().map(Dim::as_const).collect())),
            None => Ok(self.node.ints(attr)?.map(<[i64]>::to_vec)),
        }
    }
    /// The gradient of the first result; an error if nothing flows back into it, or something into another.
    pub fn dy(&self) -> Result<Value> {
        let none = || {
            Error::new(
                Code::NO_GRADIENT,
                format!("`{}` has a gradient for its first result only", self.node.op),
            )
        };
        match self.dy {
            [Some(dy), others @ ..] if others.iter().all(Option::is_none) => Ok(*dy),
            _ => Err(none()),
        }
    }
    /// The gradients of a rule that writes each by itself: `write` is called for each operand that needs one, with
    /// its position and value.
    pub fn each(
        &mut self,
        mut write: impl FnMut(&mut Self, usize, Value) -> Result<Value>,
    ) -> Result<Vec<Option<Value>>> {
        let node = self.node;
        let gradient = |(i, x): (usize, &Option<Value>)| match x {
            Some(x) if self.needs(i) => write(self, i, *x).map(Some),
            _ => Ok(None),
        };
        node.inputs.iter().enumerate().map(gradient).collect()
    }
    /// Whether operand `i` needs a gradient.
    pub fn needs(&self, i: usize) -> bool {
        self.needs.get(i).copied().unwrap_or(false)
    }
}
