//! A computation graph in SSA form: values, and the nodes that define them.
use crate::{Attrs, DType, Dim, Function, Tensor};
use std::{
    collections::{BTreeMap, HashSet},
    ops::{Index, IndexMut},
    sync::Arc,
};

/// A reference to a value; its index in `Graph::values`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Value(pub u32);

/// Notes on a model, node or value: ONNX's `metadata_props`, sorted by key.
pub type Meta = BTreeMap<String, String>;

/// A graph, or the body of a function, or a subgraph held by an attribute.
///
/// Cloning is cheap: weights are shared.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Graph {
    /// The graph's name.
    pub name: String,
    /// The model's IR version, 0 where the graph is no whole model.
    pub ir_version: i64,
    /// Opset version by domain; the default domain is `""`.
    pub opsets: BTreeMap<String, i64>,
    /// The model's notes.
    pub meta: Meta,
    /// Every value that was ever made; those that nothing refers to are ignored.
    pub values: Vec<ValueData>,
    /// Topologically ordered once verified.
    pub nodes: Vec<Node>,
    /// What is fed on each run, in order. A value may be input and param at once: a param with a default.
    pub inputs: Vec<Value>,
    /// Weights (ONNX initializers), in declaration order.
    pub params: Vec<Value>,
    /// What a run returns, in order.
    pub outputs: Vec<Value>,
    /// In a subgraph: values that stand for values of the enclosing graph with the same name.
    pub captures: Vec<Value>,
    /// Functions that nodes may call, by domain-qualified name.
    pub functions: BTreeMap<String, Arc<Function>>,
}

/// What is known of a value.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ValueData {
    /// Unique among the values in use; kept when a pass replaces the value's definition.
    pub name: String,
    /// Element type and shape, where known (`None` also for sequences, maps and optionals).
    pub ty: Option<Type>,
    /// The elements of a small integer tensor of rank 0 or 1, as polynomials: how shapes travel through a graph.
    pub known: Option<Vec<Dim>>,
    /// The data of a param; `None` if it was elided (graphs read from text) or the value is no param.
    pub tensor: Option<Tensor>,
    /// Notes.
    pub meta: Meta,
    /// For params: the index of the initializer in the imported model.
    pub origin: Option<u32>,
}

/// The type of a tensor value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Type {
    /// The element type.
    pub dtype: DType,
    /// Sizes, outermost first; `None` if not even the rank is known.
    pub shape: Option<Vec<Dim>>,
}

impl Type {
    /// A type with a known rank.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = impl Into<Dim>>) -> Type {
        Type { dtype, shape: Some(shape.into_iter().map(Into::into).collect()) }
    }
    /// The sizes, if all of them are numbers.
    pub fn sizes(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?.iter().map(Dim::as_size).collect()
    }
}

/// An application of an op or a call of a function.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Node {
    /// The node's own name, often a path of module scopes; may be empty and need not be unique.
    pub name: String,
    /// Domain-qualified name of the op or function, such as `MatMul` or `graft.Lora`.
    pub op: String,
    /// Attributes by name.
    pub attrs: Attrs,
    /// Operands; `None` where an optional one is left out.
    pub inputs: Vec<Option<Value>>,
    /// Results; `None` where an optional one is not wanted.
    pub outputs: Vec<Option<Value>>,
    /// Values of this graph that subgraphs in `attrs` refer to by name.
    pub captures: Vec<Value>,
    /// Notes.
    pub meta: Meta,
    /// The index of the node in the imported model.
    pub origin: Option<u32>,
}

impl Node {
    /// A node without attributes.
    pub fn new(op: &str, inputs: &[Value], outputs: &[Value]) -> Node {
        let some = |vs: &[Value]| vs.iter().copied().map(Some).collect();
        Node { op: op.into(), inputs: some(inputs), outputs: some(outputs), ..Node::default() }
    }
    /// Operand `i`, if given.
    pub fn input(&self, i: usize) -> Option<Value> {
        self.inputs.get(i).copied().flatten()
    }
    /// Result `i`, if wanted.
    pub fn output(&self, i: usize) -> Option<Value> {
        self.outputs.get(i).copied().flatten()
    }
    /// All values that the node reads, those captured by subgraphs included.
    pub fn reads(&self) -> impl Iterator<Item = Value> + '_ {
        self.inputs.iter().flatten().chain(&self.captures).copied()
    }
    /// All values that the node defines.
    pub fn defines(&self) -> impl Iterator<Item = Value> + '_ {
        self.outputs.iter().flatten().copied()
    }
    /// The domain (`""` for ONNX's own) and the name within it.
    pub fn domain_and_name(&self) -> (&str, &str) {
        self.op.rsplit_once('.').unwrap_or(("", &self.op))
    }
}

impl Index<Value> for Graph {
    type Output = ValueData;
    fn index(&self, v: Value) -> &ValueData {
        &self.values[v.0 as usize]
    }
}

impl IndexMut<Value> for Graph {
    fn index_mut(&mut self, v: Value) -> &mut ValueData {
        &mut self.values[v.0 as usize]
    }
}

impl Graph {
    /// Adds a value that nothing defines yet.
    pub fn add_value(&mut self, name: impl Into<String>, ty: Option<Type>) -> Value {
        self.values.push(ValueData { name: name.into(), ty, ..ValueData::default() });
        Value(u32::try_from(self.values.len() - 1).expect("fewer than 2^32 values"))
    }
    /// Adds an input.
    pub fn add_input(&mut self, name: impl Into<String>, ty: Type) -> Value {
        let v = self.add_value(name, Some(ty));
        self.inputs.push(v);
        v
    }
    /// Adds a param with its data.
    pub fn add_param(&mut self, name: impl Into<String>, tensor: Tensor) -> Value {
        let v = self.add_value(name, Some(Type::new(tensor.dtype(), tensor.dims().iter().copied())));
        self[v].tensor = Some(tensor);
        self.params.push(v);
        v
    }
    /// The name of a value.
    pub fn name(&self, v: Value) -> &str {
        &self[v].name
    }
    /// The dtype of a value, where known.
    pub fn dtype(&self, v: Value) -> Option<DType> {
        self[v].ty.as_ref().map(|t| t.dtype)
    }
    /// The shape of a value, where its rank is known.
    pub fn shape(&self, v: Value) -> Option<&[Dim]> {
        self[v].ty.as_ref()?.shape.as_deref()
    }
    /// The opset version of a domain (`""`: ONNX's own), where the model imports it.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        self.opsets.get(domain).copied()
    }
    /// Whether the value is a weight.
    pub fn is_param(&self, v: Value) -> bool {
        self.params.contains(&v)
    }
    /// Every value in use: inputs, params, captures, what nodes define, outputs; each once, in that order.
    pub fn used_values(&self) -> Vec<Value> {
        let mut seen = HashSet::new();
        let declared = self.inputs.iter().chain(&self.params).chain(&self.captures).copied();
        let defined = self.nodes.iter().flat_map(Node::defines);
        declared.chain(defined).chain(self.outputs.iter().copied()).filter(|&v| seen.insert(v)).collect()
    }
    /// The value in use with this name.
    pub fn find(&self, name: &str) -> Option<Value> {
        self.used_values().into_iter().find(|&v| self.name(v) == name)
    }
    /// Removes nodes and params that no output depends on (inputs stay), and `graft` functions that nothing calls.
    pub fn sweep(&mut self) {
        let mut live: HashSet<Value> = self.outputs.iter().copied().collect();
        let mut kept = Vec::with_capacity(self.nodes.len());
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if node.defines().any(|o| live.contains(&o)) {
                live.extend(node.reads());
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
        let inputs: HashSet<Value> = self.inputs.iter().copied().collect();
        self.params.retain(|p| live.contains(p) || inputs.contains(p));
        self.sweep_functions();
    }
    /// Removes `graft` functions that nothing calls.
    pub fn sweep_functions(&mut self) {
        let mut called: HashSet<String> = HashSet::new();
        let mut pending: Vec<String> = self.nodes.iter().map(|n| n.op.clone()).collect();
        while let Some(op) = pending.pop() {
            if let Some(function) = self.functions.get(&op)
                && called.insert(op)
            {
                pending.extend(function.body.nodes.iter().map(|n| n.op.clone()));
            }
        }
        self.functions.retain(|name, _| called.contains(name) || !name.starts_with("graft."));
    }
}
