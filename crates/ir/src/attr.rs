//! Attributes of nodes, and functions, whose bodies may refer to them.
use crate::{Code, DType, Error, Graph, Node, Result, Tensor, Type};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};

/// Attributes by name.
pub type Attrs = BTreeMap<String, Attr>;

/// The value of an attribute.
#[derive(Clone, Debug)]
pub enum Attr {
    /// One number.
    Float(f32),
    /// One integer.
    Int(i64),
    /// One string.
    Str(String),
    /// A tensor.
    Tensor(Tensor),
    /// A tensor whose data was left out of the text that the graph was read from.
    Elided {
        /// The element type.
        dtype: DType,
        /// The sizes.
        dims: Vec<usize>,
    },
    /// A subgraph.
    Graph(Arc<Graph>),
    /// Numbers.
    Floats(Vec<f32>),
    /// Integers.
    Ints(Vec<i64>),
    /// Strings.
    Strs(Vec<String>),
    /// In the body of a function: the attribute `name` of the call, which is of ONNX's type `kind`
    /// (`float`, `int`, `string`, `tensor`, `graph`, `floats`, `ints`, `strings`).
    Ref {
        /// The attribute of the call.
        name: String,
        /// Its type in ONNX text.
        kind: String,
    },
    /// Anything else that ONNX allows (sparse tensors, types, strings that are not UTF-8, lists of tensors or graphs):
    /// the encoded message, carried along untouched.
    Opaque(Bytes),
}

impl PartialEq for Attr {
    /// Floats are compared by their bits, so that NaN equals itself and an untouched node is recognised.
    fn eq(&self, other: &Attr) -> bool {
        let bits = |v: &[f32]| v.iter().map(|f| f.to_bits()).collect::<Vec<_>>();
        match (self, other) {
            (Attr::Float(a), Attr::Float(b)) => a.to_bits() == b.to_bits(),
            (Attr::Floats(a), Attr::Floats(b)) => bits(a) == bits(b),
            (Attr::Int(a), Attr::Int(b)) => a == b,
            (Attr::Str(a), Attr::Str(b)) => a == b,
            (Attr::Tensor(a), Attr::Tensor(b)) => a == b,
            (Attr::Elided { dtype: a, dims: m }, Attr::Elided { dtype: b, dims: n }) => a == b && m == n,
            (Attr::Graph(a), Attr::Graph(b)) => a == b,
            (Attr::Ints(a), Attr::Ints(b)) => a == b,
            (Attr::Strs(a), Attr::Strs(b)) => a == b,
            (Attr::Ref { name: a, kind: k }, Attr::Ref { name: b, kind: l }) => a == b && k == l,
            (Attr::Opaque(a), Attr::Opaque(b)) => a == b,
            _ => false,
        }
    }
}

impl Attr {
    /// The type's name in ONNX text.
    pub fn kind(&self) -> &str {
        match self {
            Attr::Float(_) => "float",
            Attr::Int(_) => "int",
            Attr::Str(_) => "string",
            Attr::Tensor(_) | Attr::Elided { .. } => "tensor",
            Attr::Graph(_) => "graph",
            Attr::Floats(_) => "floats",
            Attr::Ints(_) => "ints",
            Attr::Strs(_) => "strings",
            Attr::Ref { kind, .. } => kind,
            Attr::Opaque(_) => "opaque",
        }
    }
}

/// A function: a name for a graph, which nodes can call.
#[derive(Clone, PartialEq, Debug)]
pub struct Function {
    /// Domain-qualified name.
    pub name: String,
    /// Attributes that a call must give.
    pub attrs: Vec<String>,
    /// Attributes that a call may give, and what they are otherwise.
    pub defaults: Attrs,
    /// Inputs, outputs and nodes; `opsets` are the function's own imports. Types may be missing.
    pub body: Graph,
    /// The index of the function in the imported model.
    pub origin: Option<u32>,
}

impl Function {
    /// The body with every attribute reference replaced by what `call` gives, or the default.
    /// A reference to an attribute that neither gives is dropped, as ONNX rules.
    pub fn bind(&self, call: &Node) -> Result<Graph> {
        let mut body = self.body.clone();
        if let Some(missing) = self.attrs.iter().find(|a| !call.attrs.contains_key(*a)) {
            let message = format!("call of `{}` lacks attribute `{missing}`", self.name);
            return Err(Error::new(Code::ATTRIBUTE, message));
        }
        let given = |name: &str| call.attrs.get(name).or_else(|| self.defaults.get(name)).cloned();
        for node in &mut body.nodes {
            let bound = std::mem::take(&mut node.attrs).into_iter();
            node.attrs = bound
                .filter_map(|(key, attr)| match attr {
                    Attr::Ref { name, .. } => Some((key, given(&name)?)),
                    attr => Some((key, attr)),
                })
                .collect();
        }
        Ok(body)
    }
}

/// Typed access to a node's attributes. A wrong type is an error that names the attribute.
impl Node {
    fn typed<'a, T>(
        &'a self,
        name: &str,
        wanted: &str,
        read: impl Fn(&'a Attr) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(attr) = self.attrs.get(name) else { return Ok(None) };
        let wrong = || {
            let message = format!("attribute `{name}` is {}, expected {wanted}", attr.kind());
            Error::new(Code::ATTRIBUTE, message).at(format!("node `{}` ({})", self.name, self.op))
        };
        read(attr).map(Some).ok_or_else(wrong)
    }
    /// An integer attribute, if given.
    pub fn int(&self, name: &str) -> Result<Option<i64>> {
        self.typed(name, "int", |a| if let Attr::Int(v) = a { Some(*v) } else { None })
    }
    /// A float attribute, if given.
    pub fn float(&self, name: &str) -> Result<Option<f32>> {
        self.typed(name, "float", |a| if let Attr::Float(v) = a { Some(*v) } else { None })
    }
    /// A string attribute, if given.
    pub fn str(&self, name: &str) -> Result<Option<&str>> {
        self.typed(name, "string", |a| if let Attr::Str(v) = a { Some(v.as_str()) } else { None })
    }
    /// An attribute that lists integers, if given.
    pub fn ints(&self, name: &str) -> Result<Option<&[i64]>> {
        self.typed(name, "ints", |a| if let Attr::Ints(v) = a { Some(v.as_slice()) } else { None })
    }
    /// A tensor attribute, if given; an error if its data is elided.
    pub fn tensor(&self, name: &str) -> Result<Option<&Tensor>> {
        if let Some(Attr::Elided { .. }) = self.attrs.get(name) {
            let message = format!("the data of attribute `{name}` is elided");
            return Err(Error::new(Code::VALUE, message).at(format!("node `{}` ({})", self.name, self.op)));
        }
        self.typed(name, "tensor", |a| if let Attr::Tensor(v) = a { Some(v) } else { None })
    }
    /// The type of a tensor attribute, if given; its data may be elided.
    pub fn tensor_type(&self, name: &str) -> Result<Option<Type>> {
        if let Some(Attr::Elided { dtype, dims }) = self.attrs.get(name) {
            return Ok(Some(Type::new(*dtype, dims.iter().copied())));
        }
        Ok(self.tensor(name)?.map(|t| Type::new(t.dtype(), t.dims().iter().copied())))
    }
    /// Adds or replaces an attribute.
    #[must_use]
    pub fn with(mut self, name: &str, attr: Attr) -> Node {
        self.attrs.insert(name.into(), attr);
        self
    }
}
