//! Constant expressions: values that depend on nothing but initializers, and the weight behind each.
use graft_ir::{DType, Graph, Node, Result, Value};
use std::collections::{BTreeMap, HashMap};

/// What is known of a constant value.
#[derive(Clone, Debug)]
pub(super) struct Constant {
    /// The initializer (or `Constant` node's result) that it is made of; the largest, if there are several.
    pub(super) name: String,
    /// The element type of that initializer.
    pub(super) dtype: DType,
    /// The sizes of the value itself.
    pub(super) dims: Vec<usize>,
    /// The ops between the initializer and the value, innermost first.
    pub(super) steps: Vec<String>,
    /// Whether rows and columns are exchanged between the two.
    pub(super) flipped: bool,
    /// Whether each element comes from the one at its place in the initializer, exchanged rows and columns aside.
    pub(super) keeps_places: bool,
}

/// Ops that work element by element on their largest operand.
const ELEMENTWISE: &[&str] =
    &["Add", "Cast", "CastLike", "DequantizeLinear", "Div", "Identity", "Mul", "Sub"];

/// The constant values of `graph`; `outer` are those that its captures may stand for, by name.
pub(super) fn constants(
    graph: &Graph,
    outer: &BTreeMap<String, Constant>,
) -> Result<HashMap<Value, Constant>> {
    let mut constants = HashMap::new();
    for &v in &graph.captures {
        constants.extend(outer.get(graph.name(v)).map(|c| (v, c.clone())));
    }
    for &p in &graph.params {
        let data = &graph[p];
        let dims = data.tensor.as_ref().map(|t| t.dims().to_vec());
        let dims = dims.or_else(|| data.ty.as_ref()?.sizes());
        constants.extend(dims.zip(graph.dtype(p)).map(|(dims, dtype)| (p, leaf(&data.name, dtype, dims))));
    }
    for node in &graph.nodes {
        let made = match node.tensor("value")?.filter(|_| node.op == "Constant") {
            Some(t) => node.output(0).map(|v| leaf(graph.name(v), t.dtype(), t.dims().to_vec())),
            None => derived(graph, node, &constants)?,
        };
        constants.extend(node.output(0).zip(made));
    }
    Ok(constants)
}

fn leaf(name: &str, dtype: DType, dims: Vec<usize>) -> Constant {
    Constant { name: name.into(), dtype, dims, steps: Vec::new(), flipped: false, keeps_places: true }
}

/// The constant that `node` makes of constants; `None` if it reads anything else, or draws random numbers.
fn derived(graph: &Graph, node: &Node, constants: &HashMap<Value, Constant>) -> Result<Option<Constant>> {
    let draws = ["Random", "Bernoulli", "Multinomial"].iter().any(|prefix| node.op.starts_with(prefix));
    let operands: Option<Vec<&Constant>> = node.reads().map(|v| constants.get(&v)).collect();
    let largest =
        operands.and_then(|all| all.into_iter().rev().max_by_key(|c| c.dims.iter().product::<usize>()));
    let (Some(root), false) = (largest, draws) else { return Ok(None) };
    let swaps = match node.ints("perm")? {
        Some(perm) => perm == [1, 0],
        None => root.dims.len() == 2,
    };
    let transposes = node.op == "Transpose" && swaps;
    let mut dims = root.dims.clone();
    if transposes {
        dims.reverse();
    }
    let declared = node.output(0).and_then(|v| graph[v].ty.as_ref()?.sizes());
    let mut steps = root.steps.clone();
    steps.push(node.op.clone());
    let elementwise = ELEMENTWISE.contains(&node.op.as_str());
    Ok(Some(Constant {
        dims: declared.unwrap_or(dims),
        steps,
        flipped: root.flipped != transposes,
        keeps_places: root.keeps_places && (transposes || elementwise),
        ..root.clone()
    }))
}
