//! Types of values: what each node's operands say about its results.
use crate::{Attr, Code, DType, Dim, Error, Function, Graph, Node, Result, Tensor, Type, Value, ops};

/// What inference finds out about one result; all `None` where nothing is known.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Fact {
    /// Element type and shape.
    pub ty: Option<Type>,
    /// The elements, for small integer tensors of rank 0 or 1.
    pub known: Option<Vec<Dim>>,
}

impl Fact {
    /// A result of known rank.
    pub fn new(dtype: DType, shape: Vec<Dim>) -> Fact {
        Fact { ty: Some(Type { dtype, shape: Some(shape) }), known: None }
    }
    /// A result of which only the element type is known.
    pub fn of_dtype(dtype: Option<DType>) -> Fact {
        Fact { ty: dtype.map(|dtype| Type { dtype, shape: None }), known: None }
    }
    /// Adds the elements, where they are known.
    #[must_use]
    pub fn with_known(mut self, known: Option<Vec<Dim>>) -> Fact {
        self.known = known;
        self
    }
}

/// A small integer tensor's elements are followed only up to this many.
pub(crate) const MAX_KNOWN: usize = 64;

/// What an op's `infer` may look at.
pub struct Infer<'a> {
    /// The node, for its attributes.
    pub node: &'a Node,
    /// The opset version of the node's domain.
    pub opset: i64,
    graph: &'a Graph,
}

impl<'a> Infer<'a> {
    /// The type of operand `i`, where given and known.
    pub fn ty(&self, i: usize) -> Option<&'a Type> {
        self.graph[self.node.input(i)?].ty.as_ref()
    }
    /// The element type of operand `i`, where given and known.
    pub fn dtype(&self, i: usize) -> Option<DType> {
        self.ty(i).map(|t| t.dtype)
    }
    /// The shape of operand `i`, where given and known.
    pub fn shape(&self, i: usize) -> Option<&'a [Dim]> {
        self.ty(i)?.shape.as_deref()
    }
    /// The rank of operand `i`, where given and known.
    pub fn rank(&self, i: usize) -> Option<usize> {
        self.shape(i).map(<[Dim]>::len)
    }
    /// The elements of operand `i`, where given and known: a constant, or computed from shapes.
    pub fn known(&self, i: usize) -> Option<Vec<Dim>> {
        known(self.graph, self.node.input(i)?)
    }
    /// The elements of operand `i` as numbers, where all are known.
    pub fn known_ints(&self, i: usize) -> Option<Vec<i64>> {
        self.known(i)?.iter().map(Dim::as_const).collect()
    }
    /// A dimension of result `output` that inference cannot know.
    pub fn unknown(&self, output: usize, axis: usize) -> Dim {
        let name = self.node.output(output).map_or("", |v| self.graph.name(v));
        Dim::unknown(name, axis)
    }
    /// Sizes, axes and the like, which are an operand in newer opsets and an attribute in older ones;
    /// `None` where they are left out or not known.
    pub fn ints_at(&self, i: usize, attr: &str) -> Result<Option<Vec<i64>>> {
        match self.node.input(i) {
            Some(_) => Ok(self.known_ints(i)),
            None => Ok(self.node.ints(attr)?.map(<[i64]>::to_vec)),
        }
    }
    /// The graph's opset version of ONNX's own domain.
    pub(crate) fn standard(&self) -> i64 {
        self.graph.opset("").unwrap_or(1)
    }
    /// How to call the node in the names of sizes that inference cannot know.
    pub(crate) fn label(&self) -> &str {
        node_label(self.graph, self.node)
    }
    /// `n` dimensions of result `output` that inference cannot know; `None` if no tensor has so many.
    pub fn unknowns(&self, output: usize, n: usize) -> Option<Vec<Dim>> {
        (n <= MAX_KNOWN).then(|| (0..n).map(|axis| self.unknown(output, axis)).collect())
    }
    /// The shape whose sizes operand `i` holds; without its elements, what its own size says of the rank.
    pub fn shape_in(&self, i: usize, output: usize) -> Option<Vec<Dim>> {
        self.known(i).or_else(|| match self.shape(i)? {
            [n] => self.unknowns(output, n.as_size()?),
            _ => None,
        })
    }
    /// Two sizes that an op wants to be equal, as the one of them that says more; an error if they cannot be.
    pub fn same(&self, a: &Dim, b: &Dim, what: &str) -> Result<Dim> {
        if a.never_equals(b) {
            return Err(self.mismatch(format!("{what} differ: {a} and {b}")));
        }
        let says_more = a.as_const().is_some() || (b.as_const().is_none() && !a.is_unknown());
        Ok(if says_more { a.clone() } else { b.clone() })
    }
    /// The shape that `shapes` broadcast to in result 0; an error where two sizes provably do not fit.
    pub fn broadcast(&self, shapes: &[&[Dim]]) -> Result<Vec<Dim>> {
        let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
        let one = Dim::from(1i64);
        let mut result = vec![one.clone(); rank];
        for shape in shapes {
            let offset = rank - shape.len();
            for (axis, (met, size)) in result[offset..].iter_mut().zip(*shape).enumerate() {
                if size.never_equals(met) && size.never_equals(&one) && met.never_equals(&one) {
                    return Err(self.mismatch(format!("{met} and {size} do not broadcast")));
                }
                *met = Dim::broadcast(met, size).unwrap_or_else(|| self.unknown(0, offset + axis));
            }
        }
        Ok(result)
    }
    /// An error about the operands' types, with the place filled in by the caller.
    pub fn mismatch(&self, message: impl Into<String>) -> Error {
        let operands: Vec<String> = self.node.inputs.iter().map(|v| self.describe(*v)).collect();
        Error::new(Code::TYPES, format!("{} (operands: {})", message.into(), operands.join(", ")))
    }
    fn describe(&self, v: Option<Value>) -> String {
        let Some(v) = v else { return "none".into() };
        let data = &self.graph[v];
        data.ty.as_ref().map_or_else(|| format!("`{}`", data.name), |ty| format!("`{}` {ty}", data.name))
    }
}

/// The elements of a small integer tensor of rank 0 or 1, where known: a constant, or computed from shapes.
pub fn known(graph: &Graph, v: Value) -> Option<Vec<Dim>> {
    let data = &graph[v];
    // A param that is also an input is only a default.
    let constant = || data.tensor.as_ref().filter(|_| !graph.inputs.contains(&v)).and_then(known_elements);
    data.known.clone().or_else(constant)
}

/// The elements of the constant `t`, if it is a small integer tensor of rank 0 or 1.
pub fn known_elements(t: &Tensor) -> Option<Vec<Dim>> {
    let integer = matches!(t.dtype(), DType::Int64 | DType::Int32 | DType::Bool);
    if !integer || t.dims().len() > 1 || t.len() > MAX_KNOWN {
        return None;
    }
    Some(t.to_i64()?.into_iter().map(Dim::from).collect())
}

/// The one element `value` in the shape `dims`, if that is small enough to follow.
pub(crate) fn repeat(value: &[Dim], dims: &[Dim]) -> Option<Vec<Dim>> {
    let ([value], true) = (value, dims.len() <= 1) else { return None };
    let n = crate::product(dims).as_size().filter(|&n| n <= MAX_KNOWN)?;
    Some(vec![value.clone(); n])
}

/// Infers the types of all values of `graph`, from those of its inputs and params.
///
/// Results of unknown ops keep the type that they have. What the graph declares about a result fills in
/// what inference leaves open.
pub fn infer(graph: &mut Graph) -> Result<()> {
    for i in 0..graph.nodes.len() {
        let node = graph.nodes[i].clone();
        let facts = infer_node(graph, &node)?;
        set_facts(graph, &node, facts);
    }
    Ok(())
}

/// What `node`'s operands say about its results, one fact for each; empty for an unknown op.
pub fn infer_node(graph: &Graph, node: &Node) -> Result<Vec<Fact>> {
    let place = || format!("node `{}` ({})", node_label(graph, node), node.op);
    let opset = graph.opset(node.domain_and_name().0).unwrap_or(1);
    if let Some(def) = ops::lookup(&node.op, opset) {
        return (def.infer)(&Infer { node, opset, graph }).map_err(|e| e.at(place()));
    }
    match graph.functions.get(&node.op) {
        Some(function) => infer_call(graph, function, node).map_err(|e| e.at(place())),
        None => Ok(Vec::new()),
    }
}

/// How to call a node in messages: its name, or else that of its first result.
pub fn node_label<'a>(graph: &'a Graph, node: &'a Node) -> &'a str {
    if node.name.is_empty() { node.defines().next().map_or("", |v| graph.name(v)) } else { &node.name }
}

/// Writes inferred facts into the graph, keeping declared dimensions where inference found none.
pub(crate) fn set_facts(graph: &mut Graph, node: &Node, facts: Vec<Fact>) {
    for (output, fact) in node.outputs.iter().zip(facts) {
        let Some(v) = output else { continue };
        let data = &mut graph[*v];
        data.ty = merge(fact.ty, data.ty.take());
        data.known = fact.known.filter(|k| k.len() <= MAX_KNOWN);
    }
}

fn merge(inferred: Option<Type>, declared: Option<Type>) -> Option<Type> {
    let (Some(mut ty), declared) = (inferred.clone(), declared.clone()) else { return inferred.or(declared) };
    let Some(declared) = declared.filter(|d| d.dtype == ty.dtype) else { return Some(ty) };
    match (&mut ty.shape, declared.shape) {
        (Some(dims), Some(given)) if dims.len() == given.len() => {
            for (dim, given) in dims.iter_mut().zip(given).filter(|(dim, _)| dim.is_unknown()) {
                *dim = given;
            }
        }
        (shape @ None, given) => *shape = given,
        _ => {}
    }
    Some(ty)
}

fn infer_call(graph: &Graph, function: &Function, call: &Node) -> Result<Vec<Fact>> {
    let mut body = function.bind(call)?;
    body.functions.clone_from(&graph.functions);
    for (i, v) in body.inputs.clone().into_iter().enumerate() {
        let Some(given) = call.input(i) else { continue };
        let known =
            graph[given].known.clone().or_else(|| graph[given].tensor.as_ref().and_then(known_elements));
        body[v].ty.clone_from(&graph[given].ty);
        body[v].known = known;
    }
    infer(&mut body)?;
    Ok(body.outputs.iter().map(|&v| Fact { ty: body[v].ty.clone(), known: body[v].known.clone() }).collect())
}

impl std::fmt::Display for Type {
    /// As in ONNX text: `float[batch, 64]`, `float` for a scalar, `float[]` for an unknown rank.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(shape) = &self.shape else { return write!(f, "{}[]", self.dtype) };
        if shape.is_empty() {
            return write!(f, "{}", self.dtype);
        }
        let dims: Vec<String> = shape.iter().map(crate::text::dim).collect();
        write!(f, "{}[{}]", self.dtype, dims.join(", "))
    }
}

/// The element type named by an attribute such as `Cast`'s `to`.
pub fn dtype_attr(node: &Node, name: &str) -> Result<Option<DType>> {
    let Some(number) = node.int(name)? else { return Ok(None) };
    let unknown = || {
        let attr = Attr::Int(number);
        Error::new(Code::ATTRIBUTE, format!("attribute `{name}` = {attr:?} names no element type"))
    };
    i32::try_from(number).ok().and_then(DType::from_onnx).map(Some).ok_or_else(unknown)
}
