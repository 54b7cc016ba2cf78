//! What differs between two graphs, name by name.
//!
//! A pass that replaces a value's definition keeps the value's name, so names tell what belongs together. The order of
//! nodes and weights is of no consequence.
use crate::{Array, Graph, Meta, Node, Tensor, Value, eval, text::print_node};
use std::collections::HashMap;

/// What a change is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// IR version, opsets, the model's notes.
    Header,
    /// What is fed.
    Input,
    /// What is returned.
    Output,
    /// A weight: its type or its data.
    Weight,
    /// A node, which goes by the name of its first result.
    Node,
    /// A function of the model.
    Function,
}

/// Something that one graph has and the other has not, or has otherwise.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// What it is about.
    pub part: Part,
    /// The name, by which the two sides belong together.
    pub name: String,
    /// How it reads in the first graph; `None` where it is not there.
    pub before: Option<String>,
    /// How it reads in the second graph; `None` where it is not there.
    pub after: Option<String>,
    /// The notes of the node or weight, those of the second graph where both have it.
    pub meta: Meta,
    /// For a weight whose data differs: the largest |a − b|, and that over the largest |a|.
    pub distance: Option<(f64, f64)>,
}

/// Every difference, by part, within a part in the order of the first graph and then of the second; empty if the graphs
/// say the same.
pub fn compare(a: &Graph, b: &Graph) -> Vec<Change> {
    let parts: [(Part, Entries); 6] = [
        (Part::Header, header),
        (Part::Input, |g| ports(g, &g.inputs)),
        (Part::Output, |g| ports(g, &g.outputs)),
        (Part::Weight, weights),
        (Part::Node, nodes),
        (Part::Function, functions),
    ];
    parts.into_iter().flat_map(|(part, entries)| pair(part, &entries(a), &entries(b))).collect()
}

/// What there is of one part in a graph.
type Entries = for<'g> fn(&'g Graph) -> Vec<Entry<'g>>;

/// One thing in one graph.
struct Entry<'g> {
    name: String,
    text: String,
    meta: Option<&'g Meta>,
    data: Option<&'g Tensor>,
}

impl<'g> Entry<'g> {
    fn new(name: impl Into<String>, text: impl Into<String>) -> Entry<'g> {
        Entry { name: name.into(), text: text.into(), meta: None, data: None }
    }
    fn is_same(&self, other: &Entry<'_>) -> bool {
        self.text == other.text && self.meta == other.meta && self.data == other.data
    }
}

/// The changes that lead from the entries of one graph to those of the other.
fn pair(part: Part, a: &[Entry<'_>], b: &[Entry<'_>]) -> Vec<Change> {
    let index = |entries: &[Entry<'_>]| -> HashMap<String, usize> {
        entries.iter().enumerate().map(|(i, e)| (e.name.clone(), i)).collect()
    };
    let (in_a, in_b) = (index(a), index(b));
    let kept = a.iter().filter_map(|x| {
        let y = in_b.get(&x.name).map(|&i| &b[i]);
        if y.is_some_and(|y| x.is_same(y)) { None } else { Some(change(part, Some(x), y)) }
    });
    let added = b.iter().filter(|y| !in_a.contains_key(&y.name)).map(|y| change(part, None, Some(y)));
    kept.chain(added).collect()
}

fn change(part: Part, before: Option<&Entry<'_>>, after: Option<&Entry<'_>>) -> Change {
    // Where the words are the same, the notes or the data are what differs.
    let only_notes = before.zip(after).is_some_and(|(x, y)| x.text == y.text && x.meta != y.meta);
    let text = |e: &Entry<'_>| match e.meta {
        Some(meta) if only_notes => format!("{}  {meta:?}", e.text),
        _ => e.text.clone(),
    };
    let shown = after.or(before);
    Change {
        part,
        name: shown.map_or_else(String::new, |e| e.name.clone()),
        before: before.map(text),
        after: after.map(text),
        meta: shown.and_then(|e| e.meta).cloned().unwrap_or_default(),
        distance: before.zip(after).and_then(|(x, y)| distance(x.data?, y.data?)),
    }
}

/// How far the data of two tensors of one shape are apart; `None` where it is the same or cannot be compared.
fn distance(a: &Tensor, b: &Tensor) -> Option<(f64, f64)> {
    if a == b {
        return None;
    }
    let (x, y) = (Array::from_tensor(a).ok()?, Array::from_tensor(b).ok()?);
    let (worst, largest) = eval::difference(&x, &y)?;
    Some((worst, if worst == 0.0 { 0.0 } else { worst / largest }))
}

fn header(graph: &Graph) -> Vec<Entry<'_>> {
    let domain = |d: &str| if d.is_empty() { "ai.onnx".to_string() } else { d.to_string() };
    let version = Entry::new("IR version", graph.ir_version.to_string());
    let opsets = graph.opsets.iter().map(|(d, v)| Entry::new(format!("opset {}", domain(d)), v.to_string()));
    let notes = graph.meta.iter().map(|(key, value)| Entry::new(format!("note {key}"), value));
    std::iter::once(version).chain(opsets).chain(notes).collect()
}

fn type_of(graph: &Graph, v: Value) -> String {
    graph[v].ty.as_ref().map_or("?".into(), ToString::to_string)
}

fn ports<'g>(graph: &'g Graph, values: &[Value]) -> Vec<Entry<'g>> {
    let fed = values.iter().filter(|&&v| !graph.is_param(v));
    fed.map(|&v| Entry::new(graph.name(v), type_of(graph, v))).collect()
}

fn weights(graph: &Graph) -> Vec<Entry<'_>> {
    let entry = |&v: &Value| {
        let overridable = if graph.inputs.contains(&v) { ", can be fed" } else { "" };
        let text = format!("{}{overridable}", type_of(graph, v));
        Entry {
            meta: Some(&graph[v].meta),
            data: graph[v].tensor.as_ref(),
            ..Entry::new(graph.name(v), text)
        }
    };
    graph.params.iter().map(entry).collect()
}

fn nodes(graph: &Graph) -> Vec<Entry<'_>> {
    fn entry<'g>(graph: &'g Graph, node: &'g Node) -> Entry<'g> {
        let name = node.defines().next().map_or(node.name.as_str(), |v| graph.name(v));
        Entry { meta: Some(&node.meta), ..Entry::new(name, print_node(graph, node)) }
    }
    graph.nodes.iter().map(|node| entry(graph, node)).collect()
}

fn functions(graph: &Graph) -> Vec<Entry<'_>> {
    graph.functions.values().map(|f| Entry::new(&f.name, f.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn changes(a: &str, b: &str) -> Vec<(Part, String, bool, bool)> {
        let changes = compare(&parse(a).unwrap(), &parse(b).unwrap());
        changes.into_iter().map(|c| (c.part, c.name, c.before.is_some(), c.after.is_some())).collect()
    }

    const BASE: &str = "<ir_version: 8, opset_import: [\"\" : 17]>
g (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w = {1, 2, 3, 4}> {
  h = MatMul (x, w)
  y = Relu (h)
}";

    #[test]
    fn a_graph_is_like_itself() {
        assert_eq!(changes(BASE, BASE), []);
        let (one, other) = ("a = Neg (h)\n  b = Abs (h)", "b = Abs (h)\n  a = Neg (h)");
        let graph = |order: &str| BASE.replace("y = Relu (h)", &format!("{order}\n  y = Add (a, b)"));
        assert_eq!(changes(&graph(one), &graph(other)), []);
    }

    #[test]
    fn every_part_is_compared() {
        for (from, to, part, name) in [
            ("ir_version: 8", "ir_version: 9", Part::Header, "IR version"),
            (": 17", ": 18", Part::Header, "opset ai.onnx"),
            ("float[n, 2] x", "float[m, 2] x", Part::Input, "x"),
            ("{1, 2, 3, 4}", "{1, 2, 3, 5}", Part::Weight, "w"),
            ("Relu (h)", "Tanh (h)", Part::Node, "y"),
            ("Relu (h)", "Relu (x)", Part::Node, "y"),
        ] {
            assert_eq!(
                changes(BASE, &BASE.replace(from, to)),
                [(part, name.to_string(), true, true)],
                "{to}"
            );
        }
    }

    #[test]
    fn what_is_new_and_what_is_gone_is_told_apart() {
        let more = BASE.replace("y = Relu (h)", "a = Relu (h)\n  y = Neg (a)");
        let expected =
            [(Part::Node, "y".to_string(), true, true), (Part::Node, "a".to_string(), false, true)];
        assert_eq!(changes(BASE, &more), expected);
        let fewer = changes(&more, BASE);
        assert_eq!(fewer, [(Part::Node, "a".into(), true, false), (Part::Node, "y".into(), true, true)]);
    }

    #[test]
    fn data_that_differs_has_a_distance() {
        let moved = BASE.replace("{1, 2, 3, 4}", "{1, 2, 3, 5}");
        let changes = compare(&parse(BASE).unwrap(), &parse(&moved).unwrap());
        assert_eq!(changes[0].distance, Some((1.0, 0.25)));
    }
}
