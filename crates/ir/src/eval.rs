//! The reference interpreter: slow and obvious; what every kernel and every rewrite is judged by.
use crate::{
    Array, Code, Data, Error, Graph, Node, Precision, Result, Tensor, Value, infer::node_label, ops,
};
use std::collections::HashMap;

/// What an op's `eval` may look at.
pub struct Eval<'a> {
    /// The node, for its attributes.
    pub node: &'a Node,
    /// The opset version of the node's domain.
    pub opset: i64,
    /// The graph's opset version of ONNX's own domain.
    pub(crate) standard: i64,
    /// How results are rounded.
    pub precision: Precision,
    inputs: &'a [Option<&'a Array>],
}

impl<'a> Eval<'a> {
    /// Operand `i`; an error if it is left out.
    pub fn input(&self, i: usize) -> Result<&'a Array> {
        self.get(i).ok_or_else(|| Error::new(Code::TYPES, format!("operand {i} is missing")))
    }
    /// Operand `i`, if given.
    pub fn get(&self, i: usize) -> Option<&'a Array> {
        self.inputs.get(i).copied().flatten()
    }
    /// The operands given.
    pub fn inputs(&self) -> impl Iterator<Item = &'a Array> {
        self.inputs.iter().copied().flatten()
    }
    /// The elements of an integer operand that may also be an attribute in older opsets (`axes`, `split`, …).
    pub fn ints_at(&self, i: usize, attr: &str) -> Result<Option<Vec<i64>>> {
        match self.get(i) {
            Some(array) => Ok(Some(array.ints()?.to_vec())),
            None => Ok(self.node.ints(attr)?.map(<[i64]>::to_vec)),
        }
    }
}

/// Runs `graph` on `inputs`, one for each of `graph.inputs` in order, and returns its outputs in order.
///
/// An input that is left out (`None`) takes its default, if it is a param too.
pub fn eval(graph: &Graph, inputs: &[Option<Array>], precision: Precision) -> Result<Vec<Array>> {
    let mut values = HashMap::new();
    for &p in &graph.params {
        let elided = || Error::new(Code::VALUE, format!("the data of weight `{}` is elided", graph.name(p)));
        if graph[p].tensor.is_some() || !graph.inputs.contains(&p) {
            values.insert(p, Array::from_tensor(graph[p].tensor.as_ref().ok_or_else(elided)?)?);
        }
    }
    for (&v, given) in graph.inputs.iter().zip(inputs) {
        if let Some(array) = given {
            values.insert(v, array.clone());
        }
    }
    run(graph, &mut values, precision)?;
    let missing = |v| Error::new(Code::FEED, format!("`{}` is not defined by this run", graph.name(v)));
    graph.outputs.iter().map(|&v| values.get(&v).cloned().ok_or_else(|| missing(v))).collect()
}

fn run(graph: &Graph, values: &mut HashMap<Value, Array>, precision: Precision) -> Result<()> {
    for node in &graph.nodes {
        let missing = |v| Error::new(Code::FEED, format!("`{}` is not fed", graph.name(v)));
        let read = |v: &Option<Value>| v.map(|v| values.get(&v).ok_or_else(|| missing(v))).transpose();
        let inputs = node.inputs.iter().map(read).collect::<Result<Vec<_>>>()?;
        let results = eval_node(graph, node, &inputs, precision)?;
        for (output, array) in node.outputs.iter().zip(results) {
            if let Some(v) = output {
                values.insert(*v, array);
            }
        }
    }
    Ok(())
}

/// Runs one node of `graph`: an op by its `eval`, a call through its function's body.
pub fn eval_node(
    graph: &Graph,
    node: &Node,
    inputs: &[Option<&Array>],
    precision: Precision,
) -> Result<Vec<Array>> {
    let place = || format!("node `{}` ({})", node_label(graph, node), node.op);
    let (domain, _) = node.domain_and_name();
    let opset = graph.opset(domain).unwrap_or(1);
    let results = if let Some(def) = ops::lookup(&node.op, opset) {
        let no_eval = || Error::new(Code::NO_EVAL, format!("`{}` cannot be run", node.op));
        let run = def.eval.ok_or_else(no_eval).map_err(|e| e.at(place()))?;
        let standard = graph.opset("").unwrap_or(1);
        run(&Eval { node, opset, standard, precision, inputs }).map_err(|e| e.at(place()))?
    } else if let Some(function) = graph.functions.get(&node.op) {
        let mut body = function.bind(node)?;
        body.functions.clone_from(&graph.functions);
        let fed: Vec<Option<Array>> = inputs.iter().map(|a| a.cloned()).collect();
        return eval(&body, &fed, precision).map_err(|e| e.at(place()));
    } else {
        return Err(ops::unknown(node).at(place()));
    };
    Ok(results.into_iter().map(|a| a.settled(precision)).collect())
}

/// Shorthand for tests and small tools: `eval` from tensors to tensors in native precision.
pub fn eval_tensors(graph: &Graph, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>> {
    let arrays =
        inputs.iter().map(|t| t.as_ref().map(Array::from_tensor).transpose()).collect::<Result<Vec<_>>>()?;
    eval(graph, &arrays, Precision::Native)?.iter().map(Array::to_tensor).collect()
}

/// The largest difference between two arrays, and the largest magnitude in the first; NaN only equals NaN.
pub fn difference(a: &Array, b: &Array) -> Option<(f64, f64)> {
    if a.dims != b.dims {
        return None;
    }
    let floats = |x: &Array| match &x.data {
        Data::Float(v) => v.clone(),
        Data::Int(v) => v.iter().map(|&i| i as f64).collect(),
    };
    let mut worst = (0.0f64, 0.0f64);
    for (x, y) in floats(a).into_iter().zip(floats(b)) {
        let same = x == y || (x.is_nan() && y.is_nan());
        let diff = if same { 0.0 } else { (x - y).abs() };
        worst = (if diff.is_nan() { f64::INFINITY } else { worst.0.max(diff) }, worst.1.max(x.abs()));
    }
    Some(worst)
}
