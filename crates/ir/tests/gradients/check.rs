//! The comparison: `loss = Σ y·cotangent` is differentiated by the rule under test and by central differences.
use crate::{
    autodiff,
    draw::Draw,
    example::{Example, Role},
};
use graft_ir::{Array, Builder, Code, Error, Graph, Node, Precision, Result, Type, eval, library, ops};
use std::collections::HashMap;

/// Relative to 1 or to the gradient's element, whichever is larger.
const TOLERANCE: f64 = 1e-6;

/// The step of the differences; their error is of its fourth power.
const STEP: f64 = 1e-3;

/// A graph that holds the example's node only.
struct Forward {
    graph: Graph,
    node: Node,
    /// For which operand what is fed, in order of the graph's inputs.
    feeds: Vec<(usize, Array)>,
    symbols: HashMap<String, usize>,
}

/// Fails if any rule for the example's node disagrees with finite differences.
pub(crate) fn check(op: &str, example: &Example, draw: &mut Draw) -> Result<(), String> {
    let text = |e: Error| e.to_string();
    let forward = Forward::new(op, example, draw).map_err(text)?;
    let feeds: Vec<Array> = forward.feeds.iter().map(|(_, array)| array.clone()).collect();
    let results = forward.run(&feeds).map_err(text)?;
    forward.check_types(&forward.graph, &results)?;
    let cotangents: Vec<Option<Array>> = (results.iter().zip(&example.results))
        .map(|(y, flows)| flows.then(|| draw.floats(&y.dims, -1.0, 1.0)))
        .collect();
    // Now and then somebody does not want a gradient, as of a frozen weight.
    let wants =
        |operand: &Option<(Array, Role)>| matches!(operand, Some((_, Role::Checked))) && draw.below(4) != 3;
    let needs: Vec<bool> = example.operands.iter().map(wants).collect();
    let wanted: Vec<usize> = (0..feeds.len()).filter(|&feed| needs[forward.feeds[feed].0]).collect();
    let numeric: Vec<Vec<f64>> = (wanted.iter())
        .map(|&feed| forward.differences(&feeds, feed, &cotangents))
        .collect::<Result<_>>()
        .map_err(text)?;
    for rule in rules(&forward.graph, op, draw.opset).map_err(text)? {
        let gradients = forward.gradients(&feeds, &cotangents, &needs, rule).map_err(text)?;
        for (&feed, numeric) in wanted.iter().zip(&numeric) {
            let (operand, x) = &forward.feeds[feed];
            compare(x, gradients[*operand].as_ref(), numeric)
                .map_err(|e| format!("gradient of operand {operand} by {rule:?}: {e}"))?;
        }
    }
    Ok(())
}

/// One way to differentiate a node.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    /// The op table's.
    Op(graft_ir::Rule),
    /// A call of the function's gradient body.
    Body,
    /// The rules of the ops in the function's body.
    Autodiff,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Rule::Op(_) => "the op's rule",
            Rule::Body => "the gradient body",
            Rule::Autodiff => "autodiff of the body",
        })
    }
}

fn rules(graph: &Graph, op: &str, opset: i64) -> Result<Vec<Rule>> {
    if graph.functions.contains_key(op) {
        // A function without a gradient body is differentiated through its own.
        let body = library::get(&format!("{op}Grad")).map(|_| Rule::Body);
        return Ok(body.into_iter().chain([Rule::Autodiff]).collect());
    }
    let missing = || Error::new(Code::NO_GRADIENT, format!("`{op}` has no rule at opset {opset}"));
    let rule = ops::lookup(op, opset).and_then(|def| def.vjp.rule()).ok_or_else(missing)?;
    Ok(vec![Rule::Op(rule)])
}

impl Forward {
    fn new(op: &str, example: &Example, draw: &mut Draw) -> Result<Forward> {
        let mut graph = Graph::default();
        graph.opsets.insert(String::new(), draw.opset);
        let (mut feeds, mut symbols) = (Vec::new(), HashMap::new());
        let mut node = Node { op: op.into(), attrs: example.attrs.clone(), ..Node::default() };
        for (i, operand) in example.operands.iter().enumerate() {
            let Some((array, role)) = operand else {
                node.inputs.push(None);
                continue;
            };
            let value = if *role == Role::Constant {
                graph.add_param(format!("x{i}"), array.to_tensor()?)
            } else {
                let dims: Vec<_> = array.dims.iter().map(|&size| (draw.declare(size), size)).collect();
                symbols.extend(dims.iter().flat_map(|(d, size)| d.symbols().map(|s| (s.to_string(), *size))));
                feeds.push((i, array.clone()));
                graph.add_input(format!("x{i}"), Type::new(array.dtype, dims.into_iter().map(|(d, _)| d)))
            };
            node.inputs.push(Some(value));
        }
        if op.starts_with("graft.") {
            library::require(&mut graph, op)?;
        }
        graph.outputs = Builder::new(&mut graph).push_n("y", node, example.results.len())?;
        let node = graph.nodes[0].clone();
        Ok(Forward { graph, node, feeds, symbols })
    }
    fn run(&self, feeds: &[Array]) -> Result<Vec<Array>> {
        let feeds: Vec<_> = feeds.iter().cloned().map(Some).collect();
        eval::eval(&self.graph, &feeds, Precision::Exact)
    }
    /// Whether what inference says of `graph`'s outputs is true of `found`.
    fn check_types(&self, graph: &Graph, found: &[Array]) -> Result<(), String> {
        for (&v, array) in graph.outputs.iter().zip(found) {
            let Some(ty) = &graph[v].ty else { continue };
            let sizes = ty.shape.as_ref().map(|dims| {
                let value = |s: &str| self.symbols.get(s).map(|&n| n.into());
                dims.iter().map(|d| d.substitute(value)).collect::<Vec<_>>()
            });
            let agree = sizes.is_none_or(|dims| {
                let same = |(d, &n): (&graft_ir::Dim, &usize)| d.as_size().is_none_or(|d| d == n);
                dims.len() == array.dims.len() && dims.iter().zip(&array.dims).all(same)
            });
            if !agree || ty.dtype != array.dtype {
                let found = format!("{}{:?}", array.dtype, array.dims);
                return Err(format!("`{}` was inferred to be {ty} and is {found}", graph.name(v)));
            }
        }
        Ok(())
    }
    fn loss(&self, feeds: &[Array], cotangents: &[Option<Array>]) -> Result<f64> {
        let results = self.run(feeds)?;
        let mut loss = 0.0;
        for (y, dy) in results.iter().zip(cotangents) {
            let Some(dy) = dy else { continue };
            loss += y.floats()?.iter().zip(dy.floats()?).map(|(y, dy)| y * dy).sum::<f64>();
        }
        Ok(loss)
    }
    /// The loss differentiated by each element of one feed: central differences of fourth order.
    fn differences(&self, feeds: &[Array], feed: usize, cotangents: &[Option<Array>]) -> Result<Vec<f64>> {
        let at = |i: usize, steps: f64| {
            let mut feeds = feeds.to_vec();
            let mut moved = feeds[feed].floats()?.to_vec();
            moved[i] += steps * STEP;
            feeds[feed] = Array::float(feeds[feed].dtype, feeds[feed].dims.clone(), moved);
            self.loss(&feeds, cotangents)
        };
        let slope =
            |i| Ok((8.0 * (at(i, 1.0)? - at(i, -1.0)?) - (at(i, 2.0)? - at(i, -2.0)?)) / (12.0 * STEP));
        (0..feeds[feed].len()).map(slope).collect()
    }
    /// The gradient of each operand as the rule has it; `None` where it says that there is none.
    fn gradients(
        &self,
        feeds: &[Array],
        cotangents: &[Option<Array>],
        needs: &[bool],
        rule: Rule,
    ) -> Result<Vec<Option<Array>>> {
        let (mut graph, mut feeds) = (self.graph.clone(), feeds.to_vec());
        let mut dy = Vec::new();
        for (i, cotangent) in cotangents.iter().enumerate() {
            let Some(cotangent) = cotangent else {
                dy.push(None);
                continue;
            };
            let untyped = || Error::new(Code::TYPES, format!("the type of result {i} was not inferred"));
            let ty = graph[graph.outputs[i]].ty.clone().ok_or_else(untyped)?;
            dy.push(Some(graph.add_input(format!("dy{i}"), ty)));
            feeds.push(cotangent.clone());
        }
        let gradients = autodiff::apply(rule, &mut graph, &self.node, &dy, needs)?;
        graph.outputs = gradients.iter().flatten().copied().collect();
        let feeds: Vec<_> = feeds.into_iter().map(Some).collect();
        let found = eval::eval(&graph, &feeds, Precision::Exact)?;
        self.check_types(&graph, &found).map_err(|e| Error::new(Code::TYPES, e))?;
        let mut found = found.into_iter();
        Ok(gradients.iter().map(|g| g.and_then(|_| found.next())).collect())
    }
}

fn compare(x: &Array, gradient: Option<&Array>, numeric: &[f64]) -> Result<(), String> {
    let zeros = Array::float(x.dtype, x.dims.clone(), vec![0.0; x.len()]);
    let gradient = gradient.unwrap_or(&zeros);
    if (gradient.dtype, &gradient.dims) != (x.dtype, &x.dims) {
        let of = |a: &Array| format!("{}{:?}", a.dtype, a.dims);
        return Err(format!("is {} and not {}", of(gradient), of(x)));
    }
    let found = gradient.floats().map_err(|e| e.to_string())?;
    for (i, (found, wanted)) in found.iter().zip(numeric).enumerate() {
        // Written so that NaN fails.
        let close = (found - wanted).abs() <= TOLERANCE * wanted.abs().max(1.0);
        if !close {
            return Err(format!("element {i} is {found}, differences give {wanted}"));
        }
    }
    Ok(())
}
