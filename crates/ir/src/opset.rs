//! Opset versions: what is an operand now and was an attribute once, and graphs re-spelled from one version to another.
//!
//! Only the spelling changes here: ops that changed their meaning (`Softmax` at 13, say) are not touched.
use crate::{Attr, Code, DType, Error, Graph, Node, Result, Tensor, Value, infer::node_label, ops};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// The newest version of ONNX's own domain whose ops the table knows.
pub const NEWEST: i64 = 24;

/// The type of an attribute that became an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A list of integers; the operand is a one-dimensional `int64` tensor.
    Ints,
    /// An integer; the operand is an `int64` tensor of one element and rank 1.
    Int,
    /// A number; the operand is a scalar, of the type of operand 0 or `float`.
    Float,
}

/// An attribute that became an operand.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// The op.
    pub op: &'static str,
    /// The attribute, before `since`.
    pub attr: &'static str,
    /// Which operand it is, from `since` on.
    pub operand: usize,
    /// The first opset version of ONNX's own domain that has it as an operand.
    pub since: i64,
    /// The attribute's type.
    pub form: Form,
}

const fn row(op: &'static str, attr: &'static str, operand: usize, since: i64, form: Form) -> Moved {
    Moved { op, attr, operand, since, form }
}

/// Every attribute that became an operand, by op (ONNX's Changelog.md).
pub const MOVED: &[Moved] = &[
    row("Clip", "max", 2, 11, Form::Float),
    row("Clip", "min", 1, 11, Form::Float),
    row("Dropout", "ratio", 1, 12, Form::Float),
    row("Pad", "pads", 1, 11, Form::Ints),
    row("Pad", "value", 2, 11, Form::Float),
    row("ReduceL1", "axes", 1, 18, Form::Ints),
    row("ReduceL2", "axes", 1, 18, Form::Ints),
    row("ReduceLogSum", "axes", 1, 18, Form::Ints),
    row("ReduceLogSumExp", "axes", 1, 18, Form::Ints),
    row("ReduceMax", "axes", 1, 18, Form::Ints),
    row("ReduceMean", "axes", 1, 18, Form::Ints),
    row("ReduceMin", "axes", 1, 18, Form::Ints),
    row("ReduceProd", "axes", 1, 18, Form::Ints),
    row("ReduceSum", "axes", 1, 13, Form::Ints),
    row("ReduceSumSquare", "axes", 1, 18, Form::Ints),
    row("Reshape", "shape", 1, 5, Form::Ints),
    row("Slice", "axes", 3, 10, Form::Ints),
    row("Slice", "ends", 2, 10, Form::Ints),
    row("Slice", "starts", 1, 10, Form::Ints),
    row("Split", "split", 1, 13, Form::Ints),
    row("Squeeze", "axes", 1, 13, Form::Ints),
    row("TopK", "k", 1, 10, Form::Int),
    row("Unsqueeze", "axes", 1, 13, Form::Ints),
];

/// Attributes that ops got later on, with the first version that has them; left out they mean 0.
const ADDED: &[(&str, &str, i64)] = &[
    ("ReduceL1", "noop_with_empty_axes", 18),
    ("ReduceL2", "noop_with_empty_axes", 18),
    ("ReduceLogSum", "noop_with_empty_axes", 18),
    ("ReduceLogSumExp", "noop_with_empty_axes", 18),
    ("ReduceMax", "noop_with_empty_axes", 18),
    ("ReduceMean", "noop_with_empty_axes", 18),
    ("ReduceMin", "noop_with_empty_axes", 18),
    ("ReduceProd", "noop_with_empty_axes", 18),
    ("ReduceSum", "noop_with_empty_axes", 13),
    ("ReduceSumSquare", "noop_with_empty_axes", 18),
    ("Reshape", "allowzero", 14),
    ("Shape", "end", 15),
    ("Shape", "start", 15),
];

/// The row for operand or attribute `attr` of `op`, if it moved.
pub fn moved(op: &str, attr: &str) -> Option<&'static Moved> {
    MOVED.iter().find(|m| m.op == op && m.attr == attr)
}

/// Re-spells the nodes of `graph`, its subgraphs included, from its opset version of ONNX's own domain to `version`.
///
/// An attribute that is an operand in `version` becomes a `Constant`; an operand that is an attribute there must be
/// a constant. A reference to a function's attribute stays one. Functions of the graph are not touched.
///
/// # Errors
/// [`Code::OPSET`] where `version` cannot say it, naming node and op.
pub fn respell(graph: &mut Graph, version: i64) -> Result<()> {
    let from = graph.opset("").unwrap_or(version);
    if from != version {
        let mut names = HashSet::new();
        collect_names(graph, &mut names);
        nodes(graph, from, version, &mut names)?;
        graph.opsets.insert(String::new(), version);
    }
    Ok(())
}

fn collect_names(graph: &Graph, names: &mut HashSet<String>) {
    names.extend(graph.used_values().into_iter().map(|v| graph.name(v).to_string()));
    for attr in graph.nodes.iter().flat_map(|n| n.attrs.values()) {
        if let Attr::Graph(inner) = attr {
            collect_names(inner, names);
        }
    }
}

fn nodes(graph: &mut Graph, from: i64, to: i64, names: &mut HashSet<String>) -> Result<()> {
    let mut taken = HashSet::new();
    let mut spelled = Vec::with_capacity(graph.nodes.len());
    let constants = constants(graph);
    for mut node in std::mem::take(&mut graph.nodes) {
        let place = format!("node `{}` ({})", node_label(graph, &node), node.op);
        let at = |e: Error| e.at(place.clone());
        exists(&mut node, to).map_err(at)?;
        let op = node.op.clone();
        for row in MOVED.iter().filter(|m| m.op == op) {
            if from < row.since && row.since <= to {
                spelled.extend(to_operand(graph, &mut node, row, names).map_err(at)?);
            } else if to < row.since && row.since <= from {
                taken.extend(to_attribute(&mut node, row, to, &constants).map_err(at)?);
            }
        }
        for attr in node.attrs.values_mut() {
            if let Attr::Graph(inner) = attr {
                nodes(Arc::make_mut(inner), from, to, names)?;
            }
        }
        spelled.push(node);
    }
    // Constants whose only readers now have them as attributes.
    let read: HashSet<Value> =
        spelled.iter().flat_map(Node::reads).chain(graph.outputs.iter().copied()).collect();
    let idle = |v: Value| taken.contains(&v) && !read.contains(&v);
    spelled.retain(|n| n.op != "Constant" || !n.defines().any(idle));
    graph.params.retain(|&p| !idle(p));
    graph.nodes = spelled;
    Ok(())
}

/// Refuses ops that `version` does not have yet, and attributes that they got later and that do not just repeat
/// what goes without saying.
fn exists(node: &mut Node, version: i64) -> Result<()> {
    let refuse = |what: String, since: i64| {
        Err(Error::new(Code::OPSET, format!("{what} exists from opset {since} on, the model has {version}"))
            .help(format!("raise the model's opset: graft opt -p 'upgrade{{opset={since}}}'")))
    };
    let first = ops::all().filter(|def| def.name == node.op).map(|def| def.since).min();
    if node.domain_and_name().0.is_empty()
        && let Some(since) = first.filter(|&since| since > version)
    {
        return refuse(format!("`{}`", node.op), since);
    }
    for &(op, attr, since) in ADDED.iter().filter(|row| row.0 == node.op && row.2 > version) {
        match node.attrs.remove(attr) {
            None | Some(Attr::Int(0)) => {}
            Some(_) => return refuse(format!("attribute `{attr}` of `{op}`"), since),
        }
    }
    Ok(())
}

/// What is constant in `graph`: as the attribute that a `Constant` or a weight would be.
fn constants(graph: &Graph) -> HashMap<Value, Attr> {
    let weight = |&p: &Value| Some((p, Attr::Tensor(graph[p].tensor.clone()?)));
    let fixed = graph.params.iter().filter(|p| !graph.inputs.contains(p)).filter_map(weight);
    let node = |n: &Node| Some((n.output(0)?, n.attrs.values().next()?.clone()));
    fixed.chain(graph.nodes.iter().filter(|n| n.op == "Constant").filter_map(node)).collect()
}

/// Moves an attribute to its operand; returns the `Constant` that must stand before the node.
fn to_operand(
    graph: &mut Graph,
    node: &mut Node,
    row: &Moved,
    names: &mut HashSet<String>,
) -> Result<Option<Node>> {
    let Some(attr) = node.attrs.remove(row.attr) else { return Ok(None) };
    let unexpected = || Error::new(Code::ATTRIBUTE, format!("attribute `{}` is {}", row.attr, attr.kind()));
    let (key, value) = match (row.form, &attr) {
        (Form::Ints, Attr::Ints(v)) => ("value", Attr::Tensor(Tensor::i64(&[v.len()], v))),
        (Form::Int, Attr::Int(v)) => ("value", Attr::Tensor(Tensor::i64(&[1], &[*v]))),
        (Form::Float, Attr::Float(v)) => {
            let dtype = node.input(0).and_then(|x| graph.dtype(x)).unwrap_or(DType::Float);
            let scalar = Tensor::from_f64(dtype, &[], [f64::from(*v)]).ok_or_else(unexpected)?;
            ("value", Attr::Tensor(scalar))
        }
        (Form::Ints, Attr::Ref { .. }) => ("value_ints", attr.clone()),
        (Form::Float, Attr::Ref { .. }) => ("value_float", attr.clone()),
        _ => return Err(unexpected()),
    };
    let name = fresh(format!("{}.{}", node_label(graph, node), row.attr), names);
    let operand = graph.add_value(name, None);
    if node.inputs.len() <= row.operand {
        node.inputs.resize(row.operand + 1, None);
    }
    node.inputs[row.operand] = Some(operand);
    Ok(Some(Node::new("Constant", &[], &[operand]).with(key, value)))
}

fn fresh(base: String, names: &mut HashSet<String>) -> String {
    let numbered = (1..).map(|i| format!("{base}_{i}"));
    let free = std::iter::once(base.clone()).chain(numbered).find(|n| !names.contains(n));
    let name = free.expect("one of infinitely many names is free");
    names.insert(name.clone());
    name
}

/// Moves a constant operand to its attribute; returns the operand.
fn to_attribute(
    node: &mut Node,
    row: &Moved,
    version: i64,
    constants: &HashMap<Value, Attr>,
) -> Result<Option<Value>> {
    let Some(operand) = node.input(row.operand) else { return Ok(None) };
    let wanted = || {
        let message = format!(
            "`{}` is computed when the model runs, but at opset {version} it is an attribute of `{}`",
            row.attr, row.op
        );
        Error::new(Code::OPSET, message)
            .help(format!("raise the model's opset: graft opt -p 'upgrade{{opset={}}}'", row.since))
    };
    let attr = constants.get(&operand).ok_or_else(wanted)?;
    let attr = match (row.form, attr) {
        (_, Attr::Ref { .. }) | (Form::Ints, Attr::Ints(_)) | (Form::Float, Attr::Float(_)) => attr.clone(),
        (Form::Ints, Attr::Tensor(t)) => Attr::Ints(t.to_i64().ok_or_else(wanted)?),
        (Form::Int, Attr::Tensor(t)) => {
            Attr::Int(t.to_i64().and_then(|v| v.first().copied()).ok_or_else(wanted)?)
        }
        (Form::Float, Attr::Tensor(t)) => {
            Attr::Float(t.to_f64().and_then(|v| v.first().copied()).ok_or_else(wanted)? as f32)
        }
        _ => return Err(wanted()),
    };
    node.attrs.insert(row.attr.into(), attr);
    node.inputs[row.operand] = None;
    while node.inputs.last() == Some(&None) {
        node.inputs.pop();
    }
    Ok(Some(operand))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{parse, parse_functions};

    fn check(from: i64, before: &str, to: i64, after: &str) {
        let model = |version: i64, body: &str| {
            parse(&format!("<opset_import: [\"\" : {version}]>\ng (float[2, 3, 4] x) => (y) {{{body}}}"))
                .unwrap()
        };
        let mut graph = model(from, before);
        respell(&mut graph, to).unwrap();
        assert_eq!(graph.to_string(), model(to, after).to_string());
    }

    #[test]
    fn each_spelling_becomes_the_other() {
        let pairs = [
            (
                18,
                "y = ReduceMean <axes = [-1], keepdims = 0> (x)",
                "\"y.axes\" = Constant <value = int64[1] {-1}> () y = ReduceMean <keepdims = 0> (x, \"y.axes\")",
            ),
            (
                11,
                "y = Clip <max = 2.0> (x)",
                "\"y.max\" = Constant <value = float {2}> () y = Clip (x, \"\", \"y.max\")",
            ),
            (
                10,
                "y, i = TopK <k = 3> (x)",
                "\"y.k\" = Constant <value = int64[1] {3}> () y, i = TopK (x, \"y.k\")",
            ),
            (
                13,
                "t = Squeeze (x) y = Split <split = [1, 2]> (t)",
                "t = Squeeze (x) \"y.split\" = Constant <value = int64[2] {1, 2}> () y = Split (t, \"y.split\")",
            ),
        ];
        for (since, old, new) in pairs {
            check(since - 1, old, since, new);
            check(since, new, since - 1, old);
            check(since, new, since + 1, new);
        }
    }

    #[test]
    fn a_constant_with_other_readers_stays() {
        let body = "a = Constant <value_ints = [1]> () t = Unsqueeze (x, a) y = Foo (t, a)";
        let after = "a = Constant <value_ints = [1]> () t = Unsqueeze <axes = [1]> (x) y = Foo (t, a)";
        check(13, body, 12, after);
    }

    #[test]
    fn references_to_attributes_survive() {
        let text = "F <axes> (x) => (y) {\n  a = Constant <value_ints: ints = @axes> ()\n  y = ReduceMax (x, a)\n}\n";
        let mut body = parse_functions(text).unwrap().remove(0).body;
        body.opsets.insert(String::new(), 18);
        let new = body.clone();
        respell(&mut body, 17).unwrap();
        assert_eq!(body.nodes.len(), 1);
        assert_eq!(body.nodes[0].attrs["axes"], new.nodes[0].attrs["value_ints"]);
        respell(&mut body, 18).unwrap();
        assert_eq!(body.nodes[0].attrs, new.nodes[0].attrs);
    }

    #[test]
    fn what_an_old_opset_cannot_say_is_refused() {
        let refused = |body: &str, to: i64| {
            let text = format!("<opset_import: [\"\" : 18]> g (float[2] x, int64[1] a) => (y) {{ {body} }}");
            respell(&mut parse(&text).unwrap(), to).unwrap_err().to_string()
        };
        assert!(refused("y = ReduceSum (x, a)", 12).contains("`axes` is computed when the model runs"));
        assert!(refused("y = Reshape <allowzero = 1> (x, a)", 13).contains("`allowzero`"));
        let harmless = "<opset_import: [\"\" : 18]> g (x, a) => (y) { y = Reshape <allowzero = 0> (x, a) }";
        respell(&mut parse(harmless).unwrap(), 13).unwrap();
    }
}
