//! What a valid graph is. Every rule that a graph breaks is reported, all at once.
//!
//! - **exists**: every value that is mentioned exists.
//! - **name**: every value in use has a name, and no two have the same.
//! - **once**: a value is defined once: as an input, a param, a capture, or a result of one node; only a param with
//!   a default is two of these, input and param.
//! - **defined**: what a node reads and what the graph returns is defined.
//! - **order**: a node comes after those that it reads from; a cycle is named by its path.
//! - **param**: the data of a param has the element type and sizes that the param is said to have.
//! - **domain**: the opset of every op's domain is imported.
//! - **call**: a call gives a function no more operands and results than it has, and all attributes that it asks for.
//! - **subgraph**: what a subgraph captures is among what its node captures; the subgraph is valid itself.
//! - **reference**: only the body of a function refers to attributes, and only to those that the function declares.
//! - **function**: a function has the name that it is filed under, a valid body without weights and captures, and
//!   does not call itself, directly or through others.
//! - **extent**: calls nest no deeper than 64, and with bodies in the place of all calls there are no more than 2^20
//!   nodes, so that few lines cannot ask for work without end.
use crate::{Attr, Code, Error, Flow, Function, Graph, Node, Result, Value, infer::node_label};
use petgraph::{algo::kosaraju_scc, graph::DiGraph};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Every rule that `graph` breaks, in order; none for a valid graph.
pub fn verify(graph: &Graph) -> Vec<Error> {
    let mut errors = Verifier { graph, opsets: &graph.opsets, root: graph, function: None }.run();
    for (key, function) in &graph.functions {
        let at = |e: Error| e.at(format!("function `{key}`"));
        errors.extend(verify_function(key, function, graph).into_iter().map(at));
    }
    errors.extend(calls(graph));
    errors
}

/// The same, as one error.
///
/// # Errors
/// [`Code::GRAPH`], with every broken rule in its message.
pub fn check(graph: &Graph) -> Result<()> {
    let errors = verify(graph);
    if errors.is_empty() {
        return Ok(());
    }
    let text = |e: &Error| {
        let places: String = e.at.iter().rev().map(|p| format!("{p}: ")).collect();
        format!("{places}{}", e.message)
    };
    let list: Vec<String> = errors.iter().map(text).collect();
    Err(Error::new(Code::GRAPH, list.join("\n")))
}

fn broken(message: String) -> Error {
    Error::new(Code::GRAPH, message)
}

fn verify_function(key: &str, function: &Function, root: &Graph) -> Vec<Error> {
    let body = &function.body;
    let mut errors = Vec::new();
    if key != function.name {
        errors.push(broken(format!("the function is called `{}`", function.name)));
    }
    if !body.params.is_empty() || !body.captures.is_empty() {
        errors.push(broken("the body of a function has no weights and captures nothing".into()));
    }
    errors.extend(Verifier { graph: body, opsets: &body.opsets, root, function: Some(function) }.run());
    errors
}

/// Functions that call themselves, one error for each circle of them; without any, calls that expand to too much.
fn calls(graph: &Graph) -> Vec<Error> {
    let mut calls: DiGraph<&str, ()> = DiGraph::new();
    let index: BTreeMap<&str, _> =
        graph.functions.keys().map(|name| (name.as_str(), calls.add_node(name))).collect();
    for (name, function) in &graph.functions {
        let mut called = Vec::new();
        collect_ops(&function.body, &mut called);
        for to in called.into_iter().filter_map(|op| index.get(op)) {
            calls.update_edge(index[name.as_str()], *to, ());
        }
    }
    // A function comes after those that it calls.
    let components = kosaraju_scc(&calls);
    let is_recursive = |c: &&Vec<_>| c.len() > 1 || c.iter().any(|&f| calls.contains_edge(f, f));
    let names = |c: &Vec<_>| c.iter().map(|&f| calls[f]).collect::<Vec<&str>>();
    let mut circles: Vec<Vec<&str>> = components.iter().filter(is_recursive).map(names).collect();
    if circles.is_empty() {
        return extent(graph, components.iter().flat_map(names)).into_iter().collect();
    }
    circles.iter_mut().for_each(|names| names.sort_unstable());
    circles.sort();
    let error = |names: Vec<&str>| broken(format!("functions call themselves: `{}`", names.join("`, `")));
    circles.into_iter().map(error).collect()
}

/// How deep calls may nest.
const MAX_DEPTH: usize = 64;
/// How many nodes there may be with bodies in the place of calls; real models have tens of thousands.
const MAX_NODES: u64 = 1 << 20;

/// An error where the calls of `graph` expand to too much; `functions` stand behind those that they call.
fn extent<'g>(graph: &'g Graph, functions: impl Iterator<Item = &'g str>) -> Option<Error> {
    let mut known: HashMap<&str, (usize, u64)> = HashMap::new();
    let of = |body: &'g Graph, known: &HashMap<&str, (usize, u64)>| {
        let mut ops = Vec::new();
        collect_ops(body, &mut ops);
        ops.into_iter().fold((0, 0u64), |(depth, nodes), op| {
            let (below, inner) = known.get(op).map_or((0, 0), |&(depth, nodes)| (depth + 1, nodes));
            (depth.max(below), nodes.saturating_add(inner).saturating_add(1))
        })
    };
    for name in functions {
        known.insert(name, of(&graph.functions[name].body, &known));
    }
    let (depth, nodes) = of(graph, &known);
    if depth > MAX_DEPTH {
        return Some(broken(format!("calls of functions nest {depth} deep, {MAX_DEPTH} is the most")));
    }
    // Without a call there is nothing that expands.
    (depth > 0 && nodes > MAX_NODES)
        .then(|| broken(format!("calls of functions stand for {nodes} nodes, {MAX_NODES} are the most")))
}

fn collect_ops<'g>(graph: &'g Graph, ops: &mut Vec<&'g str>) {
    for node in &graph.nodes {
        ops.push(&node.op);
        for attr in node.attrs.values() {
            if let Attr::Graph(inner) = attr {
                collect_ops(inner, ops);
            }
        }
    }
}

struct Verifier<'g> {
    graph: &'g Graph,
    /// What is imported: a subgraph has the imports of what is around it.
    opsets: &'g BTreeMap<String, i64>,
    /// Where functions are found.
    root: &'g Graph,
    /// The function whose body this is.
    function: Option<&'g Function>,
}

impl Verifier<'_> {
    fn run(&self) -> Vec<Error> {
        let errors = self.existence();
        if !errors.is_empty() {
            // Nothing else can be asked about values that do not exist.
            return errors;
        }
        let mut errors = self.names();
        errors.extend(self.definitions());
        errors.extend(self.reads());
        errors.extend(self.params());
        for node in &self.graph.nodes {
            let at = |e: Error| e.at(self.place(node));
            errors.extend(self.node(node).into_iter().map(at));
        }
        errors
    }
    fn place(&self, node: &Node) -> String {
        format!("node `{}` ({})", node_label(self.graph, node), node.op)
    }
    /// Every value that the graph mentions.
    fn mentioned(&self) -> impl Iterator<Item = Value> + '_ {
        let Graph { inputs, params, captures, outputs, nodes, .. } = self.graph;
        let declared = inputs.iter().chain(params).chain(captures).chain(outputs).copied();
        declared.chain(nodes.iter().flat_map(|n| n.reads().chain(n.defines())))
    }
    fn existence(&self) -> Vec<Error> {
        let n = self.graph.values.len();
        let missing = self.mentioned().filter(|v| v.0 as usize >= n);
        missing.map(|v| broken(format!("there is no value number {}", v.0))).collect()
    }
    fn names(&self) -> Vec<Error> {
        let mut errors = Vec::new();
        let mut seen: HashMap<&str, Value> = HashMap::new();
        let mut known = HashSet::new();
        for v in self.mentioned().filter(|v| known.insert(*v)) {
            let name = self.graph.name(v);
            if *seen.entry(name).or_insert(v) != v {
                errors.push(broken(format!("two values are called `{name}`")));
            }
        }
        if seen.contains_key("") {
            errors.push(broken("a value has no name".into()));
        }
        errors
    }
    /// What inputs, params and captures define.
    fn declared(&self) -> impl Iterator<Item = Value> + '_ {
        self.graph.inputs.iter().chain(&self.graph.params).chain(&self.graph.captures).copied()
    }
    fn definitions(&self) -> Vec<Error> {
        let Graph { inputs, params, captures, nodes, .. } = self.graph;
        let twice = |v: Value| broken(format!("`{}` is defined more than once", self.graph.name(v)));
        let mut errors = Vec::new();
        let mut defined = HashSet::new();
        for v in inputs.iter().copied() {
            errors.extend((!defined.insert(v)).then(|| twice(v)));
        }
        // A param may be an input too: it then is the input's default.
        let mut weights = HashSet::new();
        for v in params.iter().copied() {
            errors.extend((!weights.insert(v)).then(|| twice(v)));
        }
        defined.extend(weights);
        for v in captures.iter().copied() {
            errors.extend((!defined.insert(v)).then(|| twice(v)));
        }
        for node in nodes {
            let again = node.defines().filter(|v| !defined.insert(*v));
            errors.extend(again.map(|v| twice(v).at(self.place(node))));
        }
        errors
    }
    fn reads(&self) -> Vec<Error> {
        let flow = Flow::new(self.graph);
        let cycles = flow.cycles();
        let knotted: HashSet<usize> = cycles.iter().flatten().copied().collect();
        let label = |&i: &usize| node_label(self.graph, &self.graph.nodes[i]);
        let mut errors: Vec<Error> = cycles
            .iter()
            .map(|c| {
                let path: Vec<&str> = c.iter().chain(c.first()).map(label).collect();
                broken(format!("nodes wait for one another: `{}`", path.join("` → `")))
            })
            .collect();
        let declared: HashSet<Value> = self.declared().collect();
        for (i, node) in self.graph.nodes.iter().enumerate() {
            for v in node.reads().filter(|v| !declared.contains(v)) {
                let name = self.graph.name(v);
                let message = match flow.uses().def(v) {
                    None => format!("`{name}` is not defined"),
                    Some(def) if def >= i && !knotted.contains(&i) => {
                        format!("`{name}` is used before its definition")
                    }
                    Some(_) => continue,
                };
                errors.push(broken(message).at(self.place(node)));
            }
        }
        let returned = self.graph.outputs.iter().filter(|v| !declared.contains(v));
        let lost = returned.filter(|v| flow.uses().def(**v).is_none());
        errors.extend(lost.map(|&v| broken(format!("output `{}` is not defined", self.graph.name(v)))));
        errors
    }
    fn params(&self) -> Vec<Error> {
        let mut errors = Vec::new();
        for &p in &self.graph.params {
            let value = &self.graph[p];
            let (Some(tensor), Some(ty)) = (&value.tensor, &value.ty) else { continue };
            let dims = ty.shape.as_ref();
            let fits = dims.is_none_or(|dims| {
                dims.len() == tensor.dims().len()
                    && dims.iter().zip(tensor.dims()).all(|(d, &n)| d.as_size().is_none_or(|d| d == n))
            });
            if ty.dtype != tensor.dtype() || !fits {
                let found = crate::Type::new(tensor.dtype(), tensor.dims().iter().copied());
                let name = &value.name;
                errors.push(broken(format!("param `{name}` is said to be {ty}, its data is {found}")));
            }
        }
        errors
    }
    fn node(&self, node: &Node) -> Vec<Error> {
        let mut errors = Vec::new();
        let (domain, _) = node.domain_and_name();
        if !self.opsets.contains_key(domain) {
            errors.push(broken(format!("no opset of domain \"{domain}\" is imported")));
        }
        if let Some(function) = self.root.functions.get(&node.op) {
            errors.extend(call(function, node));
        }
        for (key, attr) in &node.attrs {
            let at = |e: Error| e.at(format!("attribute `{key}`"));
            match attr {
                Attr::Ref { name, .. } => errors.extend(self.reference(name).map(at)),
                Attr::Graph(inner) => errors.extend(self.subgraph(node, inner).into_iter().map(at)),
                _ => {}
            }
        }
        errors
    }
    fn reference(&self, name: &str) -> Option<Error> {
        let Some(function) = self.function else {
            return Some(broken(format!("`@{name}` stands outside of any function")));
        };
        let declared = function.attrs.iter().any(|a| a == name) || function.defaults.contains_key(name);
        (!declared).then(|| broken(format!("the function has no attribute `{name}`")))
    }
    fn subgraph(&self, node: &Node, inner: &Graph) -> Vec<Error> {
        let given: HashSet<&str> = node.captures.iter().map(|&v| self.graph.name(v)).collect();
        let name = |v: &Value| inner.values.get(v.0 as usize).map(|d| d.name.as_str());
        let missing = inner.captures.iter().filter_map(name).filter(|n| !given.contains(n));
        let mut errors: Vec<Error> =
            missing.map(|n| broken(format!("the subgraph captures `{n}`, its node does not"))).collect();
        let verifier =
            Verifier { graph: inner, opsets: self.opsets, root: self.root, function: self.function };
        errors.extend(verifier.run());
        errors
    }
}

/// What a call asks of its function.
fn call(function: &Function, node: &Node) -> Vec<Error> {
    let mut errors = Vec::new();
    let lists = [
        ("operands", &node.inputs, &function.body.inputs),
        ("results", &node.outputs, &function.body.outputs),
    ];
    for (what, given, known) in lists {
        if given.len() > known.len() {
            let (n, m) = (given.len(), known.len());
            errors.push(broken(format!("the call has {n} {what}, the function {m}")));
        }
    }
    let missing = function.attrs.iter().filter(|a| !node.attrs.contains_key(*a));
    errors.extend(missing.map(|a| broken(format!("the call lacks attribute `{a}`"))));
    errors
}

#[cfg(test)]
mod tests;
