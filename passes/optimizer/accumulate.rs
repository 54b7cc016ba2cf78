//! Gradients over several batches: one graph sums them up, another updates the weights by their mean.
//!
//! After `grad`, the pass `accumulate` makes the first graph (state: the sums `<weight>.sum`), and
//! `optimizer{accumulate=K}` the second, which reads the sums, and sets them back to zero. With `accumulate=0` the
//! second reads from the input `batches` how many were summed.
use super::{Weight, gradients, make_input, next_of, note_state, state_input};
use crate::{Context, Options, Pass, io, meta};
use graft_ir::{Builder, DType, Graph, Node, Result, Value};

/// Replaces the gradients of a graph by state inputs `<weight>.sum` and outputs `<weight>.sum.next`.
pub const PASS: Pass =
    Pass { name: "accumulate", about: "sums the gradients over several batches", run: accumulate };

fn accumulate(graph: &Graph, options: &Options, _: &mut Context<'_>) -> Result<Graph> {
    options.expect_only(&[])?;
    let mut out = graph.clone();
    let mut state = Vec::new();
    for Weight { weight, gradient } in gradients(graph)? {
        let (sum, next) = sum_of(weight, &mut out);
        make_input(weight, &mut out);
        Builder::new(&mut out).append(Node::new("Add", &[sum, gradient], &[next]))?;
        io::drop_role(&mut out, &format!("{}.grad", graph.name(weight)))?;
        out.outputs.retain(|&v| v != gradient);
        out.outputs.push(next);
        state.push((sum, next));
    }
    note_state(&mut out, &state);
    out.sweep();
    Ok(out)
}

/// The state input for the sum of a weight's gradients, and the value it has next.
fn sum_of(weight: Value, graph: &mut Graph) -> (Value, Value) {
    let name = format!("{}.sum", graph.name(weight));
    let ty = graph[weight].ty.clone();
    let sum = state_input(&name, ty, graph);
    let next = next_of(sum, graph);
    (sum, next)
}

/// Puts the mean over `batches` (0: as many as the input of that name says) of the accumulated sums in place of the gradients; whatever else the graph returned
/// is dropped, the model with it.
pub(super) fn use_sums(
    graph: &mut Graph,
    weights: &mut [Weight],
    batches: u32,
    state: &mut Vec<(Value, Value)>,
) -> Result<()> {
    graph.inputs.clear();
    graph.outputs.clear();
    graph.nodes.clear();
    graph.meta.remove(meta::IO);
    let count = (batches == 0).then(|| io::scalar_input(graph, "batches", DType::Int64)).transpose()?;
    for weight in weights {
        let (sum, next) = sum_of(weight.weight, graph);
        let name = format!("{}.grad", graph.name(weight.weight));
        let mut b = Builder::new(graph);
        b.scope(format!("accumulate.{name}."));
        weight.gradient = match count {
            Some(count) => {
                let count = b.cast_like(count, sum)?;
                b.div(sum, count)?
            }
            None => b.scale(sum, 1.0 / f64::from(batches))?,
        };
        let zero = b.zeros_like(sum)?;
        b.append(Node::new("Identity", &[zero], &[next]))?;
        graph[weight.gradient].name = io::free_name(graph, &name);
        io::set_role(graph, &name, weight.gradient)?;
        graph.outputs.extend([weight.gradient, next]);
        state.push((sum, next));
    }
    Ok(())
}
