//! One node with its operands.
use crate::draw::{Draw, Sizes};
use graft_ir::{Array, Attr, Attrs};

/// What an operand is to the graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Fed, and its gradient is checked.
    Checked,
    /// Fed; no gradient is asked for.
    Fed,
    /// A weight whose elements inference may use.
    Constant,
}

/// A node to check, at a point where it is differentiable.
#[derive(Clone, Debug)]
pub(crate) struct Example {
    /// The attributes.
    pub(crate) attrs: Attrs,
    /// The operands.
    pub(crate) operands: Vec<Option<(Array, Role)>>,
    /// For each result whether a gradient flows back into it.
    pub(crate) results: Vec<bool>,
}

impl Draw {
    /// A node without operands and with one result, to be filled in.
    pub(crate) fn node(&self) -> Example {
        Example { attrs: Attrs::new(), operands: Vec::new(), results: vec![true] }
    }
    /// A node of one operand of any shape, whose elements `elements` draws.
    pub(crate) fn unary(&mut self, elements: fn(&mut Draw, &[usize]) -> Array) -> Example {
        let dims = self.dims(0, 3);
        let x = elements(self, &dims);
        self.node().x(x)
    }
    /// A node of two operands whose shapes broadcast.
    pub(crate) fn binary(
        &mut self,
        first: fn(&mut Draw, &[usize]) -> Array,
        second: fn(&mut Draw, &[usize]) -> Array,
    ) -> Example {
        let dims = self.dims(0, 3);
        let (a, b) = (self.narrowed(&dims), self.narrowed(&dims));
        let (a, b) = (first(self, &a), second(self, &b));
        self.node().x(a).x(b)
    }
    /// Sizes are declared as numbers: for ops that must know them.
    pub(crate) fn with_known_sizes(&mut self) -> &mut Draw {
        self.sizes = Sizes::Numbers;
        self
    }
}

impl Example {
    fn operand(mut self, array: Array, role: Role) -> Example {
        self.operands.push(Some((array, role)));
        self
    }
    /// Adds an operand whose gradient is checked.
    pub(crate) fn x(self, array: Array) -> Example {
        self.operand(array, Role::Checked)
    }
    /// Adds an operand that is fed and has no gradient, such as indices.
    pub(crate) fn fed(self, array: Array) -> Example {
        self.operand(array, Role::Fed)
    }
    /// Adds an operand that is a constant, such as axes.
    pub(crate) fn constant(self, array: Array) -> Example {
        self.operand(array, Role::Constant)
    }
    /// Adds a one-dimensional `int64` constant.
    pub(crate) fn ints(self, values: &[i64]) -> Example {
        self.constant(Array::int(graft_ir::DType::Int64, vec![values.len()], values.to_vec()))
    }
    /// Leaves an operand out.
    pub(crate) fn absent(mut self) -> Example {
        self.operands.push(None);
        self
    }
    /// Sets an integer attribute.
    pub(crate) fn int(self, name: &str, value: i64) -> Example {
        self.with(name, Attr::Int(value))
    }
    /// Sets an attribute.
    pub(crate) fn with(mut self, name: &str, value: Attr) -> Example {
        self.attrs.insert(name.into(), value);
        self
    }
    /// Says how many results there are, and which of them the loss depends on.
    pub(crate) fn results(mut self, flows: &[bool]) -> Example {
        self.results = flows.to_vec();
        self
    }
}
