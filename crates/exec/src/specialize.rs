//! The graph for concrete sizes: symbols bound, shapes inferred, small constants folded, and calls without a kernel
//! replaced by their bodies.
use crate::device;
use graft_ir::{
    Array, Attr, Builder, Code, DType, Dim, Error, Function, Graph, Node, OpDef, Precision, Result, Tensor,
    Type, Value, affordable, eval::eval_node, infer::node_label, ops,
};
use graft_kernels::{self as kernels, cuda::Target};
use std::collections::{HashMap, HashSet};

/// Constants of up to this many elements are folded by the interpreter while shapes are inferred; larger ones are left
/// to the plan, which folds them with kernels.
const SMALL: usize = 4096;

/// Calls may nest this deep, which only a function that calls itself exceeds.
const MAX_DEPTH: usize = 64;

/// A graph whose sizes are numbers, as far as they do not depend on data.
pub(crate) struct Concrete {
    /// Values that are known beforehand hold their tensor.
    pub(crate) graph: Graph,
    /// Values that are the same whatever the sizes: they depend on weights and constants alone.
    pub(crate) stable: HashSet<Value>,
}

/// Specialises `graph` for inputs of these sizes, in the order of `graph.inputs`; calls are kept where the host, or the
/// device that is the target, has a kernel for them.
pub(crate) fn specialize(graph: &Graph, sizes: &[Vec<usize>], target: Option<Target>) -> Result<Concrete> {
    let symbols = bind(graph, sizes)?;
    let mut concrete = graph.clone();
    let known = |symbol: &str| symbols.get(symbol).map(|&n| Dim::from(n));
    for data in &mut concrete.values {
        let shape = data.ty.as_mut().and_then(|t| t.shape.as_mut());
        shape.into_iter().flatten().for_each(|d| *d = d.substitute(known));
        data.known = None;
    }
    for (&v, dims) in graph.inputs.iter().zip(sizes) {
        let dtype = graph.dtype(v).unwrap_or(DType::Float);
        concrete[v].ty = Some(Type::new(dtype, dims.iter().copied()));
    }
    let nodes = std::mem::take(&mut concrete.nodes);
    let changing: HashSet<Value> = graph.inputs.iter().copied().collect();
    let stable = graph.params.iter().copied().filter(|p| !changing.contains(p)).collect();
    let mut work = Specializing { b: Builder::new(&mut concrete), changing, stable, target };
    for node in nodes {
        work.append(node, 0)?;
    }
    let stable = work.stable;
    Ok(Concrete { graph: concrete, stable })
}

/// What each symbol stands for, given the inputs' sizes; an error where they contradict what is declared.
fn bind(graph: &Graph, sizes: &[Vec<usize>]) -> Result<HashMap<String, usize>> {
    let mut symbols: HashMap<String, (usize, Value)> = HashMap::new();
    let declared =
        || graph.inputs.iter().zip(sizes).filter_map(|(&v, dims)| Some((v, graph.shape(v)?, dims)));
    for (v, shape, dims) in declared() {
        if shape.len() != dims.len() {
            let message =
                format!("`{}` has sizes {dims:?}, but {} axes are declared", graph.name(v), shape.len());
            return Err(Error::new(Code::FEED, message));
        }
        for (dim, &size) in shape.iter().zip(dims) {
            let mut named = dim.symbols();
            let (Some(symbol), None) = (named.next(), named.next()) else { continue };
            if *dim != Dim::symbol(symbol) {
                continue;
            }
            let &mut (bound, by) = symbols.entry(symbol.into()).or_insert((size, v));
            if bound != size {
                let message = format!(
                    "`{symbol}` is {bound} in `{}` but {size} in `{}`",
                    graph.name(by),
                    graph.name(v)
                );
                return Err(Error::new(Code::FEED, message));
            }
        }
    }
    for (v, shape, dims) in declared() {
        for (axis, (dim, &size)) in shape.iter().zip(dims).enumerate() {
            let bound = dim.substitute(|s| symbols.get(s).map(|&(n, _)| Dim::from(n)));
            if bound.as_const().is_some_and(|n| usize::try_from(n) != Ok(size)) {
                let message = format!("axis {axis} of `{}` has size {size}, expected {dim}", graph.name(v));
                let message = if dim == &bound { message } else { format!("{message} = {bound}") };
                return Err(Error::new(Code::FEED, message));
            }
        }
    }
    Ok(symbols.into_iter().map(|(name, (size, _))| (name, size)).collect())
}

struct Specializing<'g> {
    b: Builder<'g>,
    /// Inputs: even with a default they are no constants.
    changing: HashSet<Value>,
    stable: HashSet<Value>,
    target: Option<Target>,
}

impl Specializing<'_> {
    /// Appends `node`, or the body of what it calls or of its op if there is no kernel for it.
    fn append(&mut self, node: Node, depth: usize) -> Result<()> {
        let (domain, _) = node.domain_and_name();
        let op = ops::lookup(&node.op, self.b.graph.opset(domain).unwrap_or(1));
        let types = types(self.b.graph, &node);
        if !self.is_served(&node, &types)? {
            let place = format!("node `{}` ({})", node_label(self.b.graph, &node), node.op);
            let function = self.b.graph.functions.get(&node.op).filter(|_| op.is_none()).cloned();
            if let Some(function) = function.filter(|f| self.same_opsets(f)) {
                return self.expand(&function, &node, depth + 1).map_err(|e| e.at(place));
            }
            // A body depends on ranks, which data may decide.
            let has_ranks = types
                .iter()
                .zip(&node.inputs)
                .all(|(ty, v)| v.is_none() || ty.as_ref().is_some_and(|ty| ty.shape.is_some()));
            if let Some(body) = op.and_then(OpDef::body).filter(|_| has_ranks) {
                return self.expand_op(body, &node, depth + 1).map_err(|e| e.at(place));
            }
        }
        let stable = node.captures.is_empty() && node.reads().all(|v| self.stable.contains(&v));
        if stable {
            self.stable.extend(node.defines());
        }
        self.b.append(node.clone())?;
        self.check_sizes(&node)?;
        self.fold(&node)
    }
    /// Whether there is a kernel for it where it will run.
    fn is_served(&mut self, node: &Node, types: &[Option<Type>]) -> Result<bool> {
        let Some(target) = self.target else { return Ok(kernels::supports(node, types)) };
        // Launches depend on the results' sizes, which appending infers.
        self.b.append(node.clone())?;
        self.b.graph.nodes.pop();
        Ok(device::serves(self.b.graph, node, target))
    }
    /// Refuses results that no memory can hold, before anything is laid out for them.
    fn check_sizes(&self, node: &Node) -> Result<()> {
        for ty in node.defines().filter_map(|v| self.b.graph[v].ty.as_ref()) {
            let Some(sizes) = ty.sizes() else { continue };
            let place = || format!("node `{}` ({})", node_label(self.b.graph, node), node.op);
            affordable(ty.dtype, &sizes).map_err(|e| e.at(place()))?;
        }
        Ok(())
    }
    /// Whether the body's ops mean the same in this graph.
    fn same_opsets(&self, function: &Function) -> bool {
        let same =
            |(domain, version): (&String, &i64)| self.b.graph.opset(domain).is_none_or(|v| v == *version);
        function.body.opsets.iter().all(same)
    }
    /// Appends the nodes of the body, with the call's operands and results in place of the body's.
    fn expand(&mut self, function: &Function, call: &Node, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::new(Code::GRAPH, format!("function `{}` calls itself", function.name)));
        }
        let body = function.bind(call)?;
        let prefix = node_label(self.b.graph, call).to_string();
        let mut map: HashMap<Value, Option<Value>> = HashMap::new();
        for (i, &v) in body.inputs.iter().enumerate() {
            map.insert(v, call.input(i));
        }
        for &p in &body.params {
            let name = self.b.fresh(&format!("{prefix}/{}", body.name(p)));
            let tensor = body[p].tensor.clone();
            let v = self.b.graph.add_value(name, body[p].ty.clone());
            self.b.graph[v].tensor = tensor;
            self.b.graph.params.push(v);
            self.stable.insert(v);
            map.insert(p, Some(v));
        }
        let mut passed = Vec::new();
        for (i, &v) in body.outputs.iter().enumerate() {
            let Some(result) = call.output(i) else { continue };
            match map.get(&v) {
                // An operand handed through, or one value that is a result twice.
                Some(Some(source)) => passed.push(Node::new("Identity", &[*source], &[result])),
                _ => {
                    map.insert(v, Some(result));
                }
            }
        }
        for mut node in body.nodes.iter().cloned() {
            for v in node.inputs.iter_mut().chain(&mut node.outputs) {
                let Some(inner) = *v else { continue };
                *v = *map.entry(inner).or_insert_with(|| {
                    let name = self.b.fresh(&format!("{prefix}/{}", body.name(inner)));
                    Some(self.b.graph.add_value(name, body[inner].ty.clone()))
                });
            }
            if node.name.is_empty() {
                node.name.clone_from(&prefix);
            }
            self.append(node, depth)?;
        }
        passed.into_iter().try_for_each(|node| self.append(node, depth))
    }
    /// Appends the nodes that an op is written with, and hands their results on as the node's.
    fn expand_op(&mut self, body: ops::Body, node: &Node, depth: usize) -> Result<()> {
        let first = self.b.graph.nodes.len();
        let label = node_label(self.b.graph, node).to_string();
        self.b.scope(format!("{label}/"));
        let found = body(&mut self.b, node);
        self.b.scope("");
        let nodes = self.b.graph.nodes.split_off(first);
        let wanted = found?.into_iter().zip(&node.outputs).filter_map(|(v, result)| Some((v, (*result)?)));
        let passed = wanted.map(|(v, result)| Node::new("Identity", &[v], &[result]));
        for mut inner in nodes.into_iter().chain(passed) {
            inner.name.clone_from(&label);
            self.append(inner, depth)?;
        }
        Ok(())
    }
    /// Gives the results of `node` their tensors where they are small and known beforehand.
    fn fold(&mut self, node: &Node) -> Result<()> {
        let graph = &mut *self.b.graph;
        if let ("Constant", Some(Attr::Tensor(tensor)), Some(v)) =
            (node.op.as_str(), node.attrs.get("value"), node.output(0))
        {
            graph[v].tensor = Some(tensor.clone());
            return Ok(());
        }
        let known: Vec<_> = node.defines().filter_map(|v| Some((v, known_tensor(graph, v)?))).collect();
        if known.len() == node.defines().count() {
            known.into_iter().for_each(|(v, tensor)| graph[v].tensor = Some(tensor));
            return Ok(());
        }
        let constant = |v: &Value| graph[*v].tensor.is_some() && !self.changing.contains(v);
        let inputs: Vec<Value> = node.reads().collect();
        let has_eval = ops::lookup(&node.op, graph.opset(node.domain_and_name().0).unwrap_or(1))
            .is_some_and(|def| def.eval.is_some());
        let small = |v: Value| graph[v].ty.as_ref().and_then(Type::sizes).is_none_or(|s| count(&s) <= SMALL);
        if !has_eval
            || !node.captures.is_empty()
            || !inputs.iter().all(constant)
            || !inputs.iter().copied().chain(node.defines()).all(small)
        {
            return Ok(());
        }
        let arrays: Vec<Option<Array>> = node
            .inputs
            .iter()
            .map(|v| v.and_then(|v| graph[v].tensor.as_ref()).map(Array::from_tensor).transpose())
            .collect::<Result<_>>()?;
        let operands: Vec<Option<&Array>> = arrays.iter().map(Option::as_ref).collect();
        let results = eval_node(graph, node, &operands, Precision::Native)?;
        for (output, array) in node.outputs.iter().zip(results) {
            let Some(v) = *output else { continue };
            graph[v].ty = Some(Type::new(array.dtype, array.dims.iter().copied()));
            graph[v].tensor = Some(array.to_tensor()?);
        }
        Ok(())
    }
}

/// The types of a node's operands.
pub(crate) fn types(graph: &Graph, node: &Node) -> Vec<Option<Type>> {
    node.inputs.iter().map(|v| v.and_then(|v| graph[v].ty.clone())).collect()
}

fn count(sizes: &[usize]) -> usize {
    sizes.iter().product()
}

/// The elements that inference has found for a small integer tensor, as a tensor.
fn known_tensor(graph: &Graph, v: Value) -> Option<Tensor> {
    let known: Option<Vec<f64>> =
        graph[v].known.as_ref()?.iter().map(|d| d.as_const().map(|n| n as f64)).collect();
    // Beyond 2^53 `f64` would round.
    let known = known.filter(|k| k.iter().all(|n| n.abs() < 9e15))?;
    let ty = graph[v].ty.as_ref()?;
    Tensor::from_f64(ty.dtype, &ty.sizes()?, known)
}
