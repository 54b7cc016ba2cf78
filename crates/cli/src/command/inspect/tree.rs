//! The module tree of `graft inspect --tree`, rebuilt from the scopes in the names of nodes.
use crate::ui::{self, Ui};
use graft_ir::{Graph, Node, Result, Value};
use graft_passes::{inject, target};
use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
};

/// A module: what lies directly in it, and its submodules.
#[derive(Default)]
struct Module {
    nodes: usize,
    parameters: u64,
    adapter: Option<String>,
    children: BTreeMap<String, Module>,
}

impl Module {
    /// The module at `path`, made where it does not exist.
    fn at(&mut self, path: &str) -> &mut Module {
        let parts = path.split('.').filter(|p| !p.is_empty());
        parts.fold(self, |module, part| module.children.entry(part.to_string()).or_default())
    }
    fn totals(&self) -> (usize, u64) {
        let below = self.children.values().map(Module::totals);
        below.fold((self.nodes, self.parameters), |(n, p), (m, q)| (n + m, p + q))
    }
    fn rows(&self, prefix: &str, out: &mut Vec<Vec<String>>) {
        for (i, (name, child)) in self.children.iter().enumerate() {
            let last = i + 1 == self.children.len();
            let (branch, indent) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let (nodes, parameters) = child.totals();
            let adapter = child.adapter.clone().unwrap_or_default();
            out.push(vec![format!("{prefix}{branch}{name}"), ui::thousands(parameters), nodes.to_string(), adapter]);
            child.rows(&format!("{prefix}{indent}"), out);
        }
    }
}

/// The tree with the parameters and nodes of each module, adapters marked.
pub(super) fn render(graph: &Graph, ui: &Ui) -> Result<String> {
    let mut root = Module::default();
    let mut counted: HashSet<Value> = HashSet::new();
    for node in &graph.nodes {
        let module = root.at(&target::module(node));
        module.nodes += 1;
        module.parameters += own_parameters(graph, node, &mut counted);
    }
    for adapter in inject::adapters(graph)? {
        root.at(&adapter.target).adapter = Some(format!("{} rank {}", adapter.method, adapter.rank));
    }
    let (nodes, parameters) = root.totals();
    let mut rows = vec![vec![graph.name.clone(), ui::thousands(parameters), nodes.to_string(), String::new()]];
    root.rows("", &mut rows);
    let mut text = String::new();
    let _ = write!(text, "{}", ui::table(&["module", "parameters", "nodes", "adapter"], &rows));
    let unused = graph.params.iter().filter(|p| !counted.contains(p)).count();
    if unused > 0 {
        let _ = writeln!(text, "{}", ui.dim(&format!("{unused} weights are used by no node")));
    }
    Ok(text)
}

/// Elements of the weights that `node` is the first to read.
fn own_parameters(graph: &Graph, node: &Node, counted: &mut HashSet<Value>) -> u64 {
    let mut total = 0;
    for v in node.reads().filter(|&v| graph.is_param(v)) {
        if counted.insert(v) {
            total += graph[v].tensor.as_ref().map_or(0, |t| t.len() as u64);
        }
    }
    total
}
