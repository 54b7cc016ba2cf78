//! What a picture of a graph shows: boxes for nodes and collapsed modules, arrows for values.
use graft_ir::{Code, Error, Flow, Graph, Node, Result, Value, error::nearest, infer::node_label};
use graft_passes::{inject, meta, target};
use petgraph::{
    dot::{Config, Dot},
    graph::{DiGraph, NodeIndex},
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Boxes and arrows; an arrow carries the type of its value, or how many values it stands for.
pub(super) type Picture = DiGraph<Shape, String>;

/// A picture with more boxes than this is collapsed further, unless a depth is asked for.
const MAX_BOXES: usize = 60;

/// A box.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    /// The op, or the module's path.
    pub(super) title: String,
    /// What is said below the title.
    pub(super) lines: Vec<String>,
    /// Whether an adapter is, or is part of, what the box stands for.
    pub(super) is_grafted: bool,
}

/// What a box stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// An input or output of the graph.
    Port,
    /// One node.
    Node,
    /// All nodes of a module; how many.
    Module(usize),
}

impl Shape {
    /// The nodes of the graph that it stands for.
    pub(super) fn nodes(&self) -> usize {
        match self.kind {
            Kind::Port => 0,
            Kind::Node => 1,
            Kind::Module(n) => n,
        }
    }
    /// The colours of filling and line, as `#rrggbb`.
    pub(super) fn colors(&self) -> (&'static str, &'static str) {
        match self.kind {
            _ if self.is_grafted => ("#fdebd0", "#ca6f1e"),
            Kind::Port => ("#e8f6ef", "#1e8449"),
            Kind::Node => ("#ffffff", "#566573"),
            Kind::Module(_) => ("#eaf2f8", "#2471a3"),
        }
    }
    /// All that is written in the box.
    pub(super) fn text(&self) -> String {
        std::iter::once(&self.title).chain(&self.lines).map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// Which part of a graph is shown, and how closely.
pub(super) struct View<'a> {
    /// Modules are opened down to this depth; by default as far as the picture stays readable.
    pub(super) depth: Option<usize>,
    /// The name of a node or value, and how many steps around it are shown.
    pub(super) around: Option<(&'a str, usize)>,
}

/// What nodes are drawn as: a module's path, or the node itself.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Group {
    Module(String),
    Node(usize),
}

/// Draws `graph`.
///
/// # Errors
/// [`Code::USAGE`] where there is nothing of the name to draw around.
pub(super) fn draw(graph: &Graph, view: &View<'_>) -> Result<Picture> {
    let shown: Vec<usize> = match view.around {
        Some((name, hops)) => neighbourhood(graph, name, hops)?,
        None => (0..graph.nodes.len()).filter(|&i| is_drawn(&graph.nodes[i])).collect(),
    };
    let modules: Vec<Vec<String>> = graph.nodes.iter().map(components).collect();
    let depth = view.depth.unwrap_or_else(|| match view.around {
        Some(_) => usize::MAX,
        None => readable_depth(&shown, &modules),
    });
    let mut drawing = Drawing::new(graph, &groups(&shown, &modules, depth))?;
    drawing.ports();
    drawing.arrows();
    Ok(drawing.picture)
}

/// Constants are left out, as weights are: their boxes would outnumber all others.
fn is_drawn(node: &Node) -> bool {
    node.op != "Constant"
}

/// The parts of the path of the module that `node` belongs to; what was grafted belongs to its linear.
fn components(node: &Node) -> Vec<String> {
    let path = node.meta.get(meta::TARGET).cloned().unwrap_or_else(|| target::module(node));
    path.split('.').filter(|p| !p.is_empty()).map(String::from).collect()
}

/// The groups of the nodes that are shown: modules, cut off at `depth`; single nodes where `depth` is below all modules.
fn groups(shown: &[usize], modules: &[Vec<String>], depth: usize) -> Vec<(usize, Group)> {
    let is_open = depth > deepest(modules);
    let group = |i: usize| match &modules[i][..depth.min(modules[i].len())] {
        [] => Group::Node(i),
        _ if is_open => Group::Node(i),
        path => Group::Module(path.join(".")),
    };
    shown.iter().map(|&i| (i, group(i))).collect()
}

fn deepest(modules: &[Vec<String>]) -> usize {
    modules.iter().map(Vec::len).max().unwrap_or(0)
}

/// The greatest depth whose picture has few enough boxes, at least 1.
fn readable_depth(shown: &[usize], modules: &[Vec<String>]) -> usize {
    let boxes = |depth: usize| {
        groups(shown, modules, depth).into_iter().map(|(_, group)| group).collect::<HashSet<_>>().len()
    };
    (1..=deepest(modules) + 1).rev().find(|&depth| boxes(depth) <= MAX_BOXES).unwrap_or(1)
}

/// The nodes at most `hops` steps from the one that is called `name` or makes the value of that name, in order.
fn neighbourhood(graph: &Graph, name: &str, hops: usize) -> Result<Vec<usize>> {
    let is_it = |node: &Node| node.name == name || node.defines().any(|v| graph.name(v) == name);
    let flow = Flow::new(graph);
    let mut near: BTreeSet<usize> = graph.nodes.iter().position(is_it).into_iter().collect();
    if near.is_empty() {
        let labels = graph.nodes.iter().map(|node| node_label(graph, node));
        let help = format!("nearest: `{}`", nearest(name, labels).join("`, `"));
        return Err(Error::new(Code::USAGE, format!("there is no node or value `{name}`")).help(help));
    }
    for _ in 0..hops {
        let around = near.iter().flat_map(|&i| {
            let node = flow.node(i);
            let makers = node.reads().filter_map(|v| flow.uses().def(v));
            makers.chain(node.defines().flat_map(|v| flow.uses().users(v).iter().copied()))
        });
        let around: Vec<usize> = around.filter(|&i| is_drawn(flow.node(i))).collect();
        near.extend(around);
    }
    Ok(near.into_iter().collect())
}

/// A picture on its way.
struct Drawing<'g> {
    graph: &'g Graph,
    picture: Picture,
    /// The box of each node that is shown.
    boxes: HashMap<usize, NodeIndex>,
    /// The box that makes each value.
    makers: HashMap<Value, NodeIndex>,
}

impl<'g> Drawing<'g> {
    /// A picture of boxes without arrows.
    fn new(graph: &'g Graph, groups: &[(usize, Group)]) -> Result<Drawing<'g>> {
        let adapters = inject::adapters(graph)?;
        let mut members: Vec<(&Group, Vec<usize>)> = Vec::new();
        let mut index: HashMap<&Group, usize> = HashMap::new();
        for (i, group) in groups {
            let at = *index.entry(group).or_insert_with(|| {
                members.push((group, Vec::new()));
                members.len() - 1
            });
            members[at].1.push(*i);
        }
        let mut drawing =
            Drawing { graph, picture: Picture::new(), boxes: HashMap::new(), makers: HashMap::new() };
        for (group, nodes) in members {
            let shape = match group {
                Group::Node(i) => node_shape(graph, &graph.nodes[*i]),
                Group::Module(path) => module_shape(graph, path, &nodes, &adapters),
            };
            let at = drawing.picture.add_node(shape);
            for i in nodes {
                drawing.boxes.insert(i, at);
                drawing.makers.extend(graph.nodes[i].defines().map(|v| (v, at)));
            }
        }
        Ok(drawing)
    }

    /// Adds the inputs that a shown node reads.
    fn ports(&mut self) {
        let graph = self.graph;
        let read: HashSet<Value> = self.boxes.keys().flat_map(|&i| graph.nodes[i].reads()).collect();
        for &v in graph.inputs.iter().filter(|v| read.contains(v) && !graph.is_param(**v)) {
            let at = self.picture.add_node(port(graph, v));
            self.makers.insert(v, at);
        }
    }

    /// Adds an arrow between boxes for the values that lead from one to the other, and the outputs.
    fn arrows(&mut self) {
        let graph = self.graph;
        let mut values: BTreeMap<(NodeIndex, NodeIndex), BTreeSet<Value>> = BTreeMap::new();
        for (&i, &to) in &self.boxes {
            for v in graph.nodes[i].reads() {
                if let Some(&from) = self.makers.get(&v).filter(|&&from| from != to) {
                    values.entry((from, to)).or_default().insert(v);
                }
            }
        }
        for &v in &graph.outputs {
            let Some(&from) = self.makers.get(&v) else { continue };
            let to = self.picture.add_node(port(graph, v));
            values.entry((from, to)).or_default().insert(v);
        }
        for ((from, to), values) in values {
            let one = values.first().filter(|_| values.len() == 1);
            let label = one.map_or_else(|| format!("{} values", values.len()), |&v| ty(graph, v));
            self.picture.add_edge(from, to, label);
        }
    }
}

fn ty(graph: &Graph, v: Value) -> String {
    graph[v].ty.as_ref().map_or_else(String::new, ToString::to_string)
}

fn port(graph: &Graph, v: Value) -> Shape {
    Shape { kind: Kind::Port, title: graph.name(v).into(), lines: vec![ty(graph, v)], is_grafted: false }
}

fn node_shape(graph: &Graph, node: &Node) -> Shape {
    let weights = node.reads().filter(|&v| graph.is_param(v));
    let weights = weights.map(|v| format!("{} {}", graph.name(v), ty(graph, v)));
    let name = (!node.name.is_empty()).then(|| node.name.clone());
    Shape {
        kind: Kind::Node,
        title: node.op.clone(),
        lines: name.into_iter().chain(weights).collect(),
        is_grafted: node.meta.contains_key(meta::METHOD),
    }
}

fn module_shape(graph: &Graph, path: &str, nodes: &[usize], adapters: &[inject::Adapter]) -> Shape {
    let read: BTreeSet<Value> = nodes.iter().flat_map(|&i| graph.nodes[i].reads()).collect();
    let size = |v: &Value| graph[*v].ty.as_ref().and_then(|t| t.sizes()).map_or(0, |s| s.iter().product());
    let parameters: usize = read.iter().filter(|v| graph.is_param(**v)).map(size).sum();
    let counted = crate::ui::thousands(parameters as u64);
    let mut lines = vec![format!("{} nodes, {counted} parameters", nodes.len())];
    let targets: BTreeSet<&String> =
        nodes.iter().filter_map(|&i| graph.nodes[i].meta.get(meta::TARGET)).collect();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for adapter in adapters.iter().filter(|a| targets.contains(&a.target)) {
        *kinds.entry(format!("{} rank {}", adapter.method, adapter.rank)).or_default() += 1;
    }
    lines.extend(kinds.iter().map(|(kind, n)| if *n == 1 { kind.clone() } else { format!("{kind} × {n}") }));
    let is_grafted = !kinds.is_empty();
    Shape { kind: Kind::Module(nodes.len()), title: path.into(), lines, is_grafted }
}

/// The picture in Graphviz's language.
pub(super) fn dot(picture: &Picture) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let node = |_, (_, shape): (NodeIndex, &Shape)| {
        let (fill, line) = shape.colors();
        let label = escaped(&shape.text());
        format!(
            "shape = box style = \"rounded,filled\" fillcolor = \"{fill}\" color = \"{line}\" label = \"{label}\""
        )
    };
    let edge = |_, edge: petgraph::graph::EdgeReference<'_, String>| {
        format!("label = \"{}\"", escaped(edge.weight()))
    };
    let config = [Config::NodeNoLabel, Config::EdgeNoLabel];
    format!("{:?}", Dot::with_attr_getters(picture, &config, &edge, &node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_ir::parse;

    const TEXT: &str = "<opset_import: [\"\" : 17]>
g (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w, float[2] b> {
  [\"/enc/fc/MatMul\"] h = MatMul (x, w)
  [\"/enc/fc/Add\"] a = Add (h, b)
  [\"/enc/act/Relu\"] r = Relu (a)
  [\"/head/Neg\"] y = Neg (r)
}";

    fn titles(view: &View<'_>) -> Vec<String> {
        let picture = draw(&parse(TEXT).unwrap(), view).unwrap();
        picture.node_weights().map(|shape| shape.title.clone()).collect()
    }

    #[test]
    fn modules_collapse_to_the_depth_asked_for() {
        let at = |depth| titles(&View { depth: Some(depth), around: None });
        assert_eq!(at(1), ["enc", "head", "x", "y"]);
        assert_eq!(at(2), ["enc.fc", "enc.act", "head", "x", "y"]);
        assert_eq!(at(3), ["MatMul", "Add", "Relu", "Neg", "x", "y"]);
        assert_eq!(titles(&View { depth: None, around: None }), at(3));
    }

    #[test]
    fn a_neighbourhood_is_what_is_near() {
        let near = |name, hops| titles(&View { depth: None, around: Some((name, hops)) });
        assert_eq!(near("r", 0), ["Relu"]);
        assert_eq!(near("/enc/act/Relu", 1), ["Add", "Relu", "Neg", "y"]);
        let missing = draw(&parse(TEXT).unwrap(), &View { depth: None, around: Some(("/enc/act/Rel", 1)) });
        assert!(missing.unwrap_err().help.unwrap().contains("/enc/act/Relu"));
    }

    #[test]
    fn arrows_carry_types_and_boxes_parameters() {
        let picture = draw(&parse(TEXT).unwrap(), &View { depth: Some(1), around: None }).unwrap();
        let module = picture.node_weights().next().unwrap();
        assert_eq!(module.lines, ["3 nodes, 6 parameters"]);
        assert_eq!(picture.edge_count(), 3);
        let text = dot(&picture);
        assert!(text.contains("float[n, 2]") && text.contains("enc\\n3 nodes"), "{text}");
    }
}
