//! Shorthands of [`Builder`] for the ops that gradients are made of, spelled as the graph's opset wants them.
use crate::{Attr, Builder, Code, DType, Dim, Error, Node, Result, Value, library};

impl Builder<'_> {
    /// The graph's opset version of ONNX's own domain.
    pub fn opset(&self) -> i64 {
        self.graph.opset("").unwrap_or(1)
    }
    /// `a + b`, broadcasting.
    pub fn add(&mut self, a: Value, b: Value) -> Result<Value> {
        self.op("add", "Add", &[a, b])
    }
    /// `a - b`, broadcasting.
    pub fn sub(&mut self, a: Value, b: Value) -> Result<Value> {
        self.op("sub", "Sub", &[a, b])
    }
    /// `a · b` element by element, broadcasting.
    pub fn mul(&mut self, a: Value, b: Value) -> Result<Value> {
        self.op("mul", "Mul", &[a, b])
    }
    /// `a / b`, broadcasting.
    pub fn div(&mut self, a: Value, b: Value) -> Result<Value> {
        self.op("div", "Div", &[a, b])
    }
    /// `-a`.
    pub fn neg(&mut self, a: Value) -> Result<Value> {
        self.op("neg", "Neg", &[a])
    }
    /// `factor · a`, in the element type of `a`.
    pub fn scale(&mut self, a: Value, factor: f64) -> Result<Value> {
        let factor = self.scalar_like("factor", factor, a)?;
        self.mul(a, factor)
    }
    /// `a + term`, in the element type of `a`.
    pub fn offset(&mut self, a: Value, term: f64) -> Result<Value> {
        let term = self.scalar_like("term", term, a)?;
        self.add(a, term)
    }
    /// `x` where the boolean `mask` is true, 0 elsewhere; of the type of `x`, broadcasting.
    pub fn keep_where(&mut self, mask: Value, x: Value) -> Result<Value> {
        let zero = self.scalar_like("zero", 0.0, x)?;
        self.op("kept", "Where", &[mask, x, zero])
    }
    /// The matrix product `a · b`.
    pub fn matmul(&mut self, a: Value, b: Value) -> Result<Value> {
        self.op("matmul", "MatMul", &[a, b])
    }
    /// Rounds or converts to `dtype`; nothing where that is the type already.
    pub fn cast(&mut self, x: Value, dtype: DType) -> Result<Value> {
        if self.graph.dtype(x) == Some(dtype) {
            return Ok(x);
        }
        self.push("cast", Node::new("Cast", &[x], &[]).with("to", Attr::Int(dtype as i64)))
    }
    /// Converts to the element type of `like`, which must be known.
    pub fn cast_like(&mut self, x: Value, like: Value) -> Result<Value> {
        let untyped = || {
            Error::new(Code::TYPES, format!("the element type of `{}` is not known", self.graph.name(like)))
        };
        let dtype = self.graph.dtype(like).ok_or_else(untyped)?;
        self.cast(x, dtype)
    }
    /// Permutes the axes: axis `i` of the result is axis `perm[i]` of `x`; nothing for the identity.
    pub fn transpose(&mut self, x: Value, perm: &[usize]) -> Result<Value> {
        if perm.iter().enumerate().all(|(i, &p)| i == p) {
            return Ok(x);
        }
        let perm = perm.iter().map(|&p| p as i64).collect();
        self.push("transpose", Node::new("Transpose", &[x], &[]).with("perm", Attr::Ints(perm)))
    }
    /// Exchanges the last two axes; the rank must be known.
    pub fn swap_last_two(&mut self, x: Value) -> Result<Value> {
        let rank = self.shape(x)?.len();
        let mut perm: Vec<usize> = (0..rank).collect();
        if let [.., a, b] = &mut perm[..] {
            std::mem::swap(a, b);
        }
        self.transpose(x, &perm)
    }
    /// The shape as a one-dimensional `int64` tensor: a constant where all sizes are numbers.
    pub fn shape_of(&mut self, x: Value) -> Result<Value> {
        let sizes: Option<Vec<i64>> =
            self.graph.shape(x).and_then(|dims| dims.iter().map(Dim::as_const).collect());
        match sizes {
            Some(sizes) => self.ints("shape", &sizes),
            None => self.op("shape", "Shape", &[x]),
        }
    }
    /// The size of `x` along `axis` as an `int64` tensor of one element: a constant where it is a number.
    pub fn size_of(&mut self, x: Value, axis: usize) -> Result<Value> {
        if let Some(n) = self.graph.shape(x).and_then(|dims| dims.get(axis)?.as_const()) {
            return self.ints("size", &[n]);
        }
        let (shape, axis) = (self.op("shape", "Shape", &[x])?, self.ints("axis", &[axis as i64])?);
        self.op("size", "Gather", &[shape, axis])
    }
    /// `parts` one after the other along `axis`.
    pub fn concat(&mut self, hint: &str, parts: &[Value], axis: i64) -> Result<Value> {
        self.push(hint, Node::new("Concat", parts, &[]).with("axis", Attr::Int(axis)))
    }
    /// Gives `x` the shape in `shape`, whose zeros mean zero where the opset can say so (from 14).
    pub fn reshape(&mut self, x: Value, shape: Value) -> Result<Value> {
        let node = Node::new("Reshape", &[x, shape], &[]);
        // Of two spellings of the same thing the shorter: the attribute matters only where a size may be 0.
        let known = self.graph[shape].known.as_deref();
        let positive = known.is_some_and(|k| k.iter().all(|d| d.as_const().is_some_and(|n| n != 0)));
        let zeros = self.opset() >= 14 && !positive;
        self.push("reshape", if zeros { node.with("allowzero", Attr::Int(1)) } else { node })
    }
    /// Gives `x` the shape of `like`, which must have as many elements; nothing if it provably has it.
    pub fn reshape_like(&mut self, x: Value, like: Value) -> Result<Value> {
        if self.graph.shape(x).is_some() && self.graph.shape(x) == self.graph.shape(like) {
            return Ok(x);
        }
        let shape = self.shape_of(like)?;
        self.reshape(x, shape)
    }
    /// Broadcasts `x` to the shape of `like`; nothing if it provably has it.
    pub fn expand_like(&mut self, x: Value, like: Value) -> Result<Value> {
        if self.graph.shape(x).is_some() && self.graph.shape(x) == self.graph.shape(like) {
            return Ok(x);
        }
        let shape = self.shape_of(like)?;
        self.op("expand", "Expand", &[x, shape])
    }
    /// Zeros of the shape and element type of `like`.
    pub fn zeros_like(&mut self, like: Value) -> Result<Value> {
        let zero = self.scalar_like("zero", 0.0, like)?;
        self.expand_like(zero, like)
    }
    /// Inserts axes of size 1 at `axes` (positions in the result; may be negative).
    pub fn unsqueeze(&mut self, x: Value, axes: &[i64]) -> Result<Value> {
        if axes.is_empty() { Ok(x) } else { self.over_axes("unsqueeze", "Unsqueeze", 13, x, axes, None) }
    }
    /// Removes the axes `axes`, each of size 1.
    pub fn squeeze(&mut self, x: Value, axes: &[i64]) -> Result<Value> {
        if axes.is_empty() { Ok(x) } else { self.over_axes("squeeze", "Squeeze", 13, x, axes, None) }
    }
    /// Sums over `axes`; over none of them for an empty list.
    pub fn reduce_sum(&mut self, x: Value, axes: &[i64], keepdims: bool) -> Result<Value> {
        self.reduce("ReduceSum", x, axes, keepdims)
    }
    /// The mean over `axes`; `x` itself for an empty list.
    pub fn reduce_mean(&mut self, x: Value, axes: &[i64], keepdims: bool) -> Result<Value> {
        self.reduce("ReduceMean", x, axes, keepdims)
    }
    /// Applies `ReduceSum`, `ReduceMean`, `ReduceMax`, … over `axes`; `x` itself for an empty list.
    pub fn reduce(&mut self, op: &str, x: Value, axes: &[i64], keepdims: bool) -> Result<Value> {
        if axes.is_empty() {
            return Ok(x);
        }
        let since = if op == "ReduceSum" { 13 } else { 18 };
        let hint = op.trim_start_matches("Reduce").to_ascii_lowercase();
        self.over_axes(&hint, op, since, x, axes, Some(keepdims))
    }
    /// An op whose axes are an attribute in older opsets and an operand from `since` on.
    fn over_axes(
        &mut self,
        hint: &str,
        op: &str,
        since: i64,
        x: Value,
        axes: &[i64],
        keepdims: Option<bool>,
    ) -> Result<Value> {
        let mut node = Node::new(op, &[x], &[]);
        if self.opset() >= since {
            node.inputs.push(Some(self.ints("axes", axes)?));
        } else {
            node = node.with("axes", Attr::Ints(axes.to_vec()));
        }
        // 1 is ONNX's default.
        if keepdims == Some(false) {
            node = node.with("keepdims", Attr::Int(0));
        }
        self.push(hint, node)
    }
    /// Calls a library function for the results that are wanted; the others are left out.
    pub fn call_for(&mut self, hint: &str, mut node: Node, wanted: &[bool]) -> Result<Vec<Option<Value>>> {
        library::require(self.graph, &node.op)?;
        let result = |wanted: &bool| {
            wanted.then(|| {
                let name = self.fresh(hint);
                self.graph.add_value(name, None)
            })
        };
        node.outputs = wanted.iter().map(result).collect();
        let outputs = node.outputs.clone();
        self.append(node)?;
        Ok(outputs)
    }
    /// Undoes a broadcast: sums `dy`, to whose shape `like` was broadcast, down to the shape of `like`.
    ///
    /// Nothing if the shapes are provably equal; static axes where the axes are provable; else the call
    /// `graft.ReduceTo (dy, Shape(like))`, which finds them at run time.
    pub fn reduce_to(&mut self, dy: Value, like: Value) -> Result<Value> {
        let axes = match (self.graph.shape(dy), self.graph.shape(like)) {
            (Some(from), Some(to)) => broadcast_axes(from, to),
            _ => None,
        };
        let Some(Broadcast { leading, inner }) = axes else {
            let shape = self.op("shape", "Shape", &[like])?;
            return Ok(self.call("unbroadcast", Node::new("graft.ReduceTo", &[dy, shape], &[]), 1)?[0]);
        };
        if inner.is_empty() {
            return self.reduce_sum(dy, &leading, false);
        }
        let sum = self.reduce_sum(dy, &[&leading[..], &inner[..]].concat(), true)?;
        self.squeeze(sum, &leading)
    }
}

/// The axes over which a broadcast to `from` repeats its operand.
struct Broadcast {
    /// Axes that the operand lacks.
    leading: Vec<i64>,
    /// Axes of which the operand has one element and `from` not provably so.
    inner: Vec<i64>,
}

/// The axes along which an operand of shape `to` was repeated to give `from`; `None` if that is known only when it
/// runs: two sizes that nothing proves equal, where that of the operand may be 1.
fn broadcast_axes(from: &[Dim], to: &[Dim]) -> Option<Broadcast> {
    let offset = from.len().checked_sub(to.len())?;
    let one = Dim::from(1i64);
    let mut inner = Vec::new();
    for (i, (f, t)) in from[offset..].iter().zip(to).enumerate() {
        if f == t {
            continue;
        } else if *t == one {
            inner.push((offset + i) as i64);
        } else if !t.never_equals(&one) {
            return None;
        }
    }
    Some(Broadcast { leading: (0..offset as i64).collect(), inner })
}
