//! One graph's names while it is read: each name is one value, defined once.
use crate::{external::External, import, proto::*, tensor, types};
use graft_ir::{Attr, Code, Error, Graph, Node, Result, Type, Value, error};
use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
};

/// What is known while one graph, subgraph or function body is read.
pub(crate) struct Scope<'a> {
    graph: Graph,
    external: &'a External,
    /// Whether unknown names are those of the graph around.
    nested: bool,
    names: HashMap<Cow<'a, str>, Value>,
    /// The results of this graph's nodes, wherever they are defined.
    results: HashSet<&'a str>,
    /// Values that were read before the node that defines them.
    early: HashSet<Value>,
    /// Values of the graph around.
    captured: HashSet<Value>,
    sorted: bool,
}

impl<'a> Scope<'a> {
    /// An empty graph; `nested` if it may capture values.
    pub(crate) fn new(external: &'a External, nested: bool) -> Scope<'a> {
        Scope {
            graph: Graph::default(),
            external,
            nested,
            names: HashMap::new(),
            results: HashSet::new(),
            early: HashSet::new(),
            captured: HashSet::new(),
            sorted: true,
        }
    }

    /// Reads inputs, weights, nodes, outputs and declared types.
    pub(crate) fn graph_body(&mut self, proto: &'a GraphProto) -> Result<()> {
        for input in &proto.input {
            let v = self.define(input.name(), "input")?;
            self.graph[v].ty = types::declared(input);
            self.graph[v].meta = types::read_meta(&input.metadata_props);
            self.graph.inputs.push(v);
        }
        self.params(proto)?;
        self.nodes(&proto.node)?;
        for info in proto.value_info.iter().chain(&proto.output) {
            self.declare(info);
        }
        for output in &proto.output {
            let v = self.resolve(output.name()).map_err(|e| e.at("the graph's outputs"))?;
            self.graph.outputs.push(v);
        }
        Ok(())
    }

    /// Reads a function's inputs, nodes and outputs.
    pub(crate) fn function_body(&mut self, proto: &'a FunctionProto) -> Result<()> {
        for name in &proto.input {
            let v = self.define(name, "input")?;
            self.graph.inputs.push(v);
        }
        self.nodes(&proto.node)?;
        for info in &proto.value_info {
            self.declare(info);
        }
        for name in &proto.output {
            let v = self.resolve(name).map_err(|e| e.at("the function's outputs"))?;
            self.graph.outputs.push(v);
        }
        Ok(())
    }

    /// The graph, and whether its nodes were in topological order; if not, they are now.
    pub(crate) fn finish(mut self) -> Result<(Graph, bool)> {
        // Every early value's name is among the results of a node, so that all have been defined by now.
        if !self.sorted {
            sort(&mut self.graph)?;
        }
        Ok((self.graph, self.sorted))
    }

    /// Weights; sparse ones are carried by name only. The origin of a sparse one counts on after the dense ones.
    fn params(&mut self, proto: &'a GraphProto) -> Result<()> {
        let inputs: HashSet<Value> = self.graph.inputs.iter().copied().collect();
        let mut overridden = HashSet::new();
        let dense = proto.initializer.iter().map(|t| (t.name(), Some(t)));
        let sparse = proto.sparse_initializer.iter().map(|s| (sparse_name(s), None));
        for (i, (name, tensor)) in dense.chain(sparse).enumerate() {
            // A weight may have the name of an input, whose default it then is.
            let input = self.names.get(name).copied().filter(|v| inputs.contains(v) && overridden.insert(*v));
            let v = input.map_or_else(|| self.define(name, "initializer"), Ok)?;
            if let Some(tensor) = tensor {
                self.fill(v, tensor).map_err(|e| e.at(format!("initializer `{name}`")))?;
            }
            self.graph[v].origin = u32::try_from(i).ok();
            self.graph.params.push(v);
        }
        Ok(())
    }

    fn fill(&mut self, v: Value, proto: &TensorProto) -> Result<()> {
        let tensor = tensor::read(proto, self.external)?;
        let data = &mut self.graph[v];
        if let Some(t) = &tensor
            && data.ty.is_none()
        {
            data.ty = Some(Type::new(t.dtype(), t.dims().iter().copied()));
        }
        data.meta = types::read_meta(&proto.metadata_props);
        data.tensor = tensor;
        Ok(())
    }

    /// Notes the declared type of a value that has none yet.
    fn declare(&mut self, info: &ValueInfoProto) {
        let Some(&v) = self.names.get(info.name()) else { return };
        let is_own = self.graph[v].tensor.is_none() && !self.captured.contains(&v);
        let ty = types::declared(info);
        if is_own && ty.is_some() {
            self.graph[v].ty = ty;
        }
        if is_own && self.graph[v].meta.is_empty() {
            self.graph[v].meta = types::read_meta(&info.metadata_props);
        }
    }

    fn nodes(&mut self, protos: &'a [NodeProto]) -> Result<()> {
        self.results = protos.iter().flat_map(|n| &n.output).map(String::as_str).collect();
        for (i, proto) in protos.iter().enumerate() {
            let mut node = self.node(proto).map_err(|e| e.at(label(proto)))?;
            node.origin = u32::try_from(i).ok();
            self.graph.nodes.push(node);
        }
        Ok(())
    }

    fn node(&mut self, proto: &'a NodeProto) -> Result<Node> {
        if proto.op_type().is_empty() {
            return Err(Error::new(Code::MODEL, "the node has no op_type"));
        }
        let optional = |name: &'a String| (!name.is_empty()).then_some(name.as_str());
        let attrs = import::attrs(&proto.attribute, self.external)?;
        let inputs = proto.input.iter().map(|n| optional(n).map(|n| self.resolve(n)).transpose());
        let inputs = inputs.collect::<Result<_>>()?;
        let captures = self.captures(proto, attrs.values())?;
        let outputs = proto.output.iter().map(|n| optional(n).map(|n| self.define(n, "result")).transpose());
        Ok(Node {
            name: proto.name().into(),
            op: import::qualified(proto.domain(), proto.op_type(), proto.overload()),
            inputs,
            outputs: outputs.collect::<Result<_>>()?,
            captures,
            attrs,
            meta: types::read_meta(&proto.metadata_props),
            origin: None,
        })
    }

    /// The values of this graph that a node's subgraphs use, those in lists of subgraphs included.
    fn captures<'b>(
        &mut self,
        proto: &'a NodeProto,
        attrs: impl Iterator<Item = &'b Attr>,
    ) -> Result<Vec<Value>> {
        let mut names = Vec::new();
        let mut collect =
            |graph: &Graph| names.extend(graph.captures.iter().map(|&v| graph.name(v).to_string()));
        for attr in attrs {
            if let Attr::Graph(graph) = attr {
                collect(graph);
            }
        }
        for graph in proto.attribute.iter().flat_map(|a| &a.graphs) {
            collect(&import::subgraph(graph, self.external)?);
        }
        let mut seen = HashSet::new();
        let mut captures = Vec::new();
        for name in names {
            let v = self.resolve_owned(name.into())?;
            if seen.insert(v) {
                captures.push(v);
            }
        }
        Ok(captures)
    }

    /// Makes the value that is defined here.
    fn define(&mut self, name: &'a str, what: &str) -> Result<Value> {
        if name.is_empty() {
            return Err(Error::new(Code::MODEL, format!("an {what} has no name")));
        }
        if let Some(&v) = self.names.get(name) {
            if self.early.remove(&v) {
                return Ok(v);
            }
            return Err(Error::new(Code::MODEL, format!("`{name}` is defined twice")));
        }
        Ok(self.add(name.into()))
    }

    fn add(&mut self, name: Cow<'a, str>) -> Value {
        let v = self.graph.add_value(&*name, None);
        self.names.insert(name, v);
        v
    }

    fn resolve(&mut self, name: &'a str) -> Result<Value> {
        self.resolve_owned(name.into())
    }

    /// The value with this name: defined before, defined later, or the enclosing graph's.
    fn resolve_owned(&mut self, name: Cow<'a, str>) -> Result<Value> {
        if let Some(&v) = self.names.get(&name) {
            return Ok(v);
        }
        if self.results.contains(&*name) {
            self.sorted = false;
            let v = self.add(name);
            self.early.insert(v);
            return Ok(v);
        }
        if self.nested && !name.is_empty() {
            let v = self.add(name);
            self.graph.captures.push(v);
            self.captured.insert(v);
            return Ok(v);
        }
        Err(self.undefined(&name))
    }

    fn undefined(&self, name: &str) -> Error {
        // Distances between names are quadratic in their lengths.
        const LONGEST: usize = 128;
        let error = Error::new(Code::MODEL, format!("`{name}` is not defined"));
        if name.len() > LONGEST {
            return error;
        }
        let mut known: Vec<&str> =
            self.names.keys().map(|n| &**n).filter(|n| n.len() <= LONGEST).take(10_000).collect();
        known.sort_unstable();
        match error::nearest(name, known)[..] {
            [] => error,
            ref near => error.help(format!("the nearest names are `{}`", near.join("`, `"))),
        }
    }
}

/// The name of a sparse weight is that of its values.
pub(crate) fn sparse_name(sparse: &SparseTensorProto) -> &str {
    sparse.values.as_ref().map_or("", TensorProto::name)
}

fn label(proto: &NodeProto) -> String {
    let name =
        if proto.name().is_empty() { proto.output.first().map_or("", String::as_str) } else { proto.name() };
    format!("node `{name}` ({})", proto.op_type())
}

/// Sorts the nodes so that each comes after those whose results it reads, else in the order that they had.
fn sort(graph: &mut Graph) -> Result<()> {
    let mut definer = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        definer.extend(node.defines().map(|v| (v, i)));
    }
    let mut readers = vec![Vec::new(); graph.nodes.len()];
    let mut waits_for = vec![0usize; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        for d in node.reads().filter_map(|v| definer.get(&v)) {
            readers[*d].push(i);
            waits_for[i] += 1;
        }
    }
    let mut ready: BinaryHeap<_> = (0..waits_for.len()).filter(|&i| waits_for[i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(graph.nodes.len());
    while let Some(Reverse(i)) = ready.pop() {
        order.push(i);
        for &r in &readers[i] {
            waits_for[r] -= 1;
            if waits_for[r] == 0 {
                ready.push(Reverse(r));
            }
        }
    }
    if let Some(i) = waits_for.iter().position(|&n| n > 0) {
        let node = &graph.nodes[i];
        let message = format!("node `{}` ({}) depends on its own result", node.name, node.op);
        return Err(Error::new(Code::MODEL, message));
    }
    let mut nodes: Vec<Option<Node>> = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
    graph.nodes = order.into_iter().filter_map(|i| nodes[i].take()).collect();
    Ok(())
}
