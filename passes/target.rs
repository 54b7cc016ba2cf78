//! Targets: every linear node of a graph, with its module path, its weight and whether it can take an adapter.
mod constant;
mod path;

pub use path::module;

use crate::meta;
use constant::Constant;
use graft_ir::{Attr, DType, Graph, Node, Result, Tensor, Value, infer::node_label};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A linear node: `y = x·w`, whose second operand is constant. The first may be as well, as where a model projects a
/// table of positions.
#[derive(Clone, PartialEq, Debug)]
pub struct Linear {
    /// The module path, such as `bert.encoder.layer.0.attention.self.query`. Only the uses of one module share one.
    pub path: String,
    /// The number of the use, from 0, where a module is used more than once (as ALBERT's layers are). Its uses share
    /// one adapter, as they do in PEFT.
    pub nth_use: usize,
    /// The node's name, or that of its result.
    pub node: String,
    /// The node's op.
    pub op: String,
    /// How the weight is stored: `(in, out)`, `(out, in)`, `(out, in, 1, 1)`, `blocks` or `expression`.
    pub layout: &'static str,
    /// Columns of `x`.
    pub d_in: usize,
    /// Columns of `y`.
    pub d_out: usize,
    /// The initializer that holds the weight.
    pub weight: String,
    /// The weight's element type, as stored.
    pub dtype: DType,
    /// Why no adapter can be put on it; `None` if one can.
    pub reason: Option<String>,
    /// Whether its result is an output of the graph; a bias, a scale, a cap, a cast, a softmax or another shape aside.
    pub is_output: bool,
    /// What stands between the initializer and the node, innermost first: `Transpose`, `Cast`, ….
    pub steps: Vec<String>,
    /// The index of the node in `graph.nodes`; `None` within a subgraph.
    pub index: Option<usize>,
}

impl Linear {
    /// Whether an adapter can be put on it.
    pub fn is_eligible(&self) -> bool {
        self.reason.is_none()
    }
}

/// The ops that multiply by a weight, the position of the weight among their operands, and why no adapter can be put
/// on them.
const LINEAR_OPS: &[(&str, usize, Option<&str>)] = &[
    ("Conv", 1, Some("adapters on convolutions are not supported")),
    ("Gemm", 1, None),
    ("MatMul", 1, None),
    ("MatMulInteger", 1, Some("its weight is quantised (MatMulInteger)")),
    ("QLinearMatMul", 3, Some("its weight is quantised (QLinearMatMul)")),
    ("com.microsoft.Attention", 1, None),
    ("com.microsoft.FusedGemm", 1, None),
    ("com.microsoft.FusedMatMul", 1, None),
    ("com.microsoft.MatMulBnb4", 1, Some("its weight is quantised (MatMulBnb4)")),
    ("com.microsoft.MatMulIntegerToFloat", 1, Some("its weight is quantised (MatMulIntegerToFloat)")),
    ("com.microsoft.MatMulNBits", 1, Some("its weight is quantised (MatMulNBits)")),
    ("com.microsoft.DynamicQuantizeMatMul", 1, Some("its weight is quantised (DynamicQuantizeMatMul)")),
];

/// Those whose third operand is a bias.
const WITH_BIAS: &[&str] = &["Conv", "Gemm", "com.microsoft.Attention", "com.microsoft.FusedGemm"];

/// Linears that hold what comes behind them too, attention or an activation: written out before an adapter can be put
/// on them.
pub(crate) const WITH_MORE: &[&str] = &["com.microsoft.Attention", "com.microsoft.FusedGemm"];

/// Every linear node of `graph` and its subgraphs, in the order of the nodes.
///
/// Nodes of adapters are left out; a node that carries an adapter is listed as not eligible.
pub fn targets(graph: &Graph) -> Result<Vec<Linear>> {
    let mut found = Vec::new();
    collect(graph, &BTreeMap::new(), true, &mut found)?;
    path::assign(graph, &mut found);
    Ok(found.into_iter().map(|(linear, _)| linear).collect())
}

/// Appends the linears of `graph`, each with the possible module paths; `outer` are constants that it may capture.
fn collect(
    graph: &Graph,
    outer: &BTreeMap<String, Constant>,
    is_top: bool,
    found: &mut Vec<(Linear, path::Candidates)>,
) -> Result<()> {
    let constants = constant::constants(graph, outer)?;
    let readers = readers(graph);
    for (index, node) in graph.nodes.iter().enumerate() {
        for attr in node.attrs.values() {
            if let Attr::Graph(body) = attr {
                let by_name = constants.iter().map(|(&v, c)| (graph.name(v).to_string(), c.clone()));
                collect(body, &by_name.collect(), false, found)?;
            }
        }
        let Some(mut linear) = linear(graph, node, &constants)? else { continue };
        if is_part_of_weight(node, &readers, &constants) {
            continue;
        }
        linear.is_output =
            is_top && node.output(0).is_some_and(|y| is_output(graph, y, &readers, &constants));
        if is_top {
            linear.index = Some(index);
        } else {
            linear.reason = Some("it lies in the body of an If, Loop or Scan".into());
        }
        let bias = bias(graph, node, &readers, &constants).map(|bias| graph.name(bias));
        let candidates = path::Candidates::new(node, &linear, bias);
        found.push((linear, candidates));
    }
    Ok(())
}

/// Which nodes read a value.
fn readers(graph: &Graph) -> HashMap<Value, Vec<&Node>> {
    let mut readers: HashMap<Value, Vec<&Node>> = HashMap::new();
    for node in &graph.nodes {
        node.reads().for_each(|v| readers.entry(v).or_default().push(node));
    }
    readers
}

/// The node as a linear, if it is one.
fn linear(graph: &Graph, node: &Node, constants: &HashMap<Value, Constant>) -> Result<Option<Linear>> {
    let Some(&(_, position, refusal)) = LINEAR_OPS.iter().find(|row| row.0 == node.op) else {
        return Ok(None);
    };
    let is_adapter = node.meta.contains_key(meta::METHOD);
    let is_base = node.meta.get(meta::ROLE).is_some_and(|role| role == meta::BASE);
    let weight = node.input(position).and_then(|w| constants.get(&w));
    let Some(weight) = weight.filter(|_| !is_adapter || is_base) else { return Ok(None) };
    let Some((layout, d_in, d_out)) = geometry(node, weight)? else { return Ok(None) };
    let carried = is_base.then(|| node.meta.get(meta::METHOD)).flatten();
    let reason = carried.map(|method| format!("it carries an adapter (`{method}`) already"));
    let reason = reason.or_else(|| refusal.map(String::from));
    Ok(Some(Linear {
        path: String::new(),
        nth_use: 0,
        node: node_label(graph, node).to_string(),
        op: node.op.clone(),
        layout,
        d_in,
        d_out,
        weight: weight.name.clone(),
        dtype: weight.dtype,
        reason: match reason {
            Some(reason) => Some(reason),
            None => obstacle(graph, node, weight)?,
        },
        is_output: false,
        steps: weight.steps.clone(),
        index: None,
    }))
}

/// How the weight is stored, and its sizes; `None` if the node is no linear (a convolution with a larger kernel).
fn geometry(node: &Node, weight: &Constant) -> Result<Option<(&'static str, usize, usize)>> {
    if let ("com.microsoft.MatMulNBits" | "com.microsoft.MatMulBnb4", Some(k), Some(n)) =
        (node.op.as_str(), node.int("K")?, node.int("N")?)
    {
        return Ok(Some(("blocks", usize::try_from(k).unwrap_or(0), usize::try_from(n).unwrap_or(0))));
    }
    if node.op == "Conv" {
        let [d_out, d_in, kernel @ ..] = &weight.dims[..] else { return Ok(None) };
        let is_linear = kernel.iter().all(|&k| k == 1) && node.int("group")?.unwrap_or(1) == 1;
        return Ok(is_linear.then_some(("(out, in, 1, 1)", *d_in, *d_out)));
    }
    let flipped = node.int("transB")?.unwrap_or(0) != 0;
    let (d_in, d_out) = match &weight.dims[..] {
        [.., rows, columns] if flipped => (*columns, *rows),
        [.., rows, columns] => (*rows, *columns),
        [rows] => (*rows, 1),
        [] => (1, 1),
    };
    let layout = match (weight.keeps_places, flipped != weight.flipped) {
        (false, _) => "expression",
        (true, false) => "(in, out)",
        (true, true) => "(out, in)",
    };
    Ok(Some((layout, d_in, d_out)))
}

/// Why no adapter can be put on a MatMul or Gemm.
fn obstacle(graph: &Graph, node: &Node, weight: &Constant) -> Result<Option<String>> {
    if weight.dims.len() != 2 {
        return Ok(Some(format!("its weight has rank {}, expected 2", weight.dims.len())));
    }
    let dtype = node.input(1).and_then(|w| graph.dtype(w)).unwrap_or(weight.dtype);
    if !dtype.is_float() {
        return Ok(Some(format!("its weight is of type {dtype}")));
    }
    for attr in ["transA", "transBatchA"] {
        if node.int(attr)?.unwrap_or(0) != 0 {
            return Ok(Some(format!("its first operand is transposed ({attr})")));
        }
    }
    if node.float("alpha")? == Some(0.0) {
        return Ok(Some("its weight is multiplied by 0 (alpha)".into()));
    }
    let beta = node.float("beta")?.unwrap_or(1.0);
    Ok((node.input(2).is_some() && beta != 1.0).then(|| format!("its bias is multiplied by {beta} (beta)")))
}

/// Whether the result of `node` is constant and a weight of a linear is made of it: then that linear is the target.
fn is_part_of_weight(
    node: &Node,
    readers: &HashMap<Value, Vec<&Node>>,
    constants: &HashMap<Value, Constant>,
) -> bool {
    let is_constant = |v: &Value| constants.contains_key(v);
    let is_matrix = |v: Value| constants.get(&v).is_some_and(|c| c.dims.len() == 2);
    let is_weight = |reader: &Node, v: Value| {
        let row = LINEAR_OPS.iter().find(|row| row.0 == reader.op);
        row.is_some_and(|row| reader.input(row.1) == Some(v)) && is_matrix(v)
    };
    let mut pending: Vec<Value> = node.output(0).filter(is_constant).into_iter().collect();
    let mut seen: HashSet<Value> = pending.iter().copied().collect();
    while let Some(v) = pending.pop() {
        for reader in readers.get(&v).into_iter().flatten() {
            if is_weight(reader, v) {
                return true;
            }
            pending.extend(reader.output(0).filter(|y| is_constant(y) && seen.insert(*y)));
        }
    }
    false
}

/// The bias of a linear: an operand of its own, or of the Add behind it.
fn bias(
    graph: &Graph,
    node: &Node,
    readers: &HashMap<Value, Vec<&Node>>,
    constants: &HashMap<Value, Constant>,
) -> Option<Value> {
    if let Some(bias) = node.input(2).filter(|_| WITH_BIAS.contains(&&*node.op)) {
        return Some(bias);
    }
    let y = node.output(0)?;
    let [add] = &readers.get(&y)?[..] else { return None };
    let other = add.inputs.iter().flatten().copied().find(|&v| v != y)?;
    let is_vector = |c: &Constant| c.dims.iter().filter(|&&d| d != 1).count() <= 1;
    let is_bias = add.op == "Add" && constants.get(&other).is_some_and(is_vector);
    (is_bias && !graph.outputs.contains(&y)).then_some(other)
}

/// What may stand between an output layer and the output: a bias, a scale, a cap (`tanh` behind a scale; alone it is an
/// activation), a cast, probabilities made of logits, another shape.
const FINISHING: &[&str] = &[
    "Add",
    "Cast",
    "Div",
    "Flatten",
    "Identity",
    "LogSoftmax",
    "Mul",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Squeeze",
    "Tanh",
    "Unsqueeze",
];

/// Whether `y` is an output of the graph, or becomes one by finishing ops whose other operands are constants or sizes.
fn is_output(
    graph: &Graph,
    y: Value,
    readers: &HashMap<Value, Vec<&Node>>,
    constants: &HashMap<Value, Constant>,
) -> bool {
    let is_vector =
        |v: Value| constants.get(&v).is_some_and(|c| c.dims.iter().filter(|&&d| d != 1).count() <= 1);
    let is_scale = |node: &Node| node.op == "Div" || node.op == "Mul";
    let keeps = |next: &Node, y: Value, is_scaled: bool| match next.op.as_str() {
        "Add" | "Div" | "Mul" => next.reads().all(|v| v == y || is_vector(v)),
        "Tanh" => is_scaled,
        op => FINISHING.contains(&op) && next.input(0) == Some(y),
    };
    let next = |(y, is_scaled): (Value, bool)| {
        let mut others = readers.get(&y)?.iter().filter(|n| n.op != "Shape");
        let only = others.next().filter(|_| others.next().is_none())?;
        only.output(0).filter(|_| keeps(only, y, is_scaled)).map(|v| (v, is_scale(only)))
    };
    std::iter::successors(Some((y, false)), |&state| next(state)).any(|(y, _)| graph.outputs.contains(&y))
}

/// The stored weight of a linear; `None` if its data is elided or it lies in a subgraph.
pub fn weight<'a>(graph: &'a Graph, linear: &Linear) -> Option<&'a Tensor> {
    let param = graph.params.iter().find(|&&p| graph.name(p) == linear.weight);
    let constant = || {
        let made = |n: &&Node| n.output(0).is_some_and(|v| graph.name(v) == linear.weight);
        graph.nodes.iter().find(made)?.tensor("value").ok().flatten()
    };
    param.and_then(|&p| graph[p].tensor.as_ref()).or_else(constant)
}

/// Whether no element of a floating-point tensor is NaN or infinite; true for other types.
pub fn is_finite(tensor: &Tensor) -> bool {
    // A value is not finite where all bits of the exponent are set; they lie in the two highest bytes.
    let exponent: u16 = match tensor.dtype() {
        DType::Float | DType::Bfloat16 => 0x7F80,
        DType::Float16 => 0x7C00,
        DType::Double => 0x7FF0,
        _ => return true,
    };
    let high = |c: &[u8]| u16::from_le_bytes([c[c.len() - 2], c[c.len() - 1]]);
    tensor.data().chunks_exact(tensor.dtype().bits() / 8).all(|c| high(c) & exponent != exponent)
}
