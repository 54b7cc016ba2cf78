//! A plan: the steps that run a graph for one set of input sizes, and the memory they need.
use crate::{
    arena::arrange,
    constants::{Constant, Constants},
    lower::{Lowering, Stop},
    place::Place,
    settle::{Target, settle},
    specialize::specialize,
    step::Step,
};
use graft_ir::{Graph, Result, Value};
use graft_kernels::Threads;
use std::sync::Arc;

/// What a plan is made for.
pub(crate) struct Request<'a> {
    pub(crate) graph: &'a Graph,
    /// Pairs (input, output): the output is the input's next state.
    pub(crate) aliases: &'a [(Value, Value)],
    /// The sizes of `graph.inputs`.
    pub(crate) sizes: &'a [Vec<usize>],
    pub(crate) threads: Threads,
}

/// Steps and memory.
pub(crate) struct Plan {
    /// The graph for these sizes, without its nodes: for functions and names.
    pub(crate) graph: Graph,
    pub(crate) steps: Vec<Step>,
    pub(crate) constants: Vec<Arc<Constant>>,
    /// Where each buffer lies in the arena.
    pub(crate) offsets: Vec<usize>,
    /// The bytes of the arena, with the state at its beginning.
    pub(crate) arena: usize,
    /// Where each of `graph.inputs` is to be written; state lies there already.
    pub(crate) feeds: Vec<Place>,
    /// Where each of `graph.outputs` lies after the run.
    pub(crate) outputs: Vec<Place>,
}

/// A plan, or the reason why there can be none: a shape that depends on data.
pub(crate) enum Planned {
    Plan(Box<Plan>),
    Dynamic(String),
}

/// Makes a plan. What weights and constants alone determine is computed at once and kept in `constants`; nodes that no
/// kernel serves are reported to `notice`.
pub(crate) fn plan(
    request: &Request<'_>,
    constants: &mut Constants,
    notice: &mut dyn FnMut(String),
) -> Result<Planned> {
    let concrete = specialize(request.graph, request.sizes)?;
    let states: Vec<Value> = request.aliases.iter().map(|&(input, _)| input).collect();
    let mut lowering = Lowering::new(&concrete, constants, request.threads, notice);
    let feeds = lowering.feed(&states)?;
    let outputs = match lowering.lower_all() {
        Ok(outputs) => outputs,
        Err(Stop::Dynamic(reason)) => return Ok(Planned::Dynamic(reason)),
        Err(Stop::Error(e)) => return Err(e),
    };
    let (mut steps, mut buffers, constants) = lowering.finish(&outputs);
    let graph = Graph { nodes: Vec::new(), ..concrete.graph };
    let (mut targets, mut returned) = (Vec::new(), Vec::new());
    for (v, place) in graph.outputs.iter().zip(&outputs) {
        let aliased: Vec<Value> = request.aliases.iter().filter(|a| a.1 == *v).map(|a| a.0).collect();
        if aliased.is_empty() {
            returned.extend(place.buffer());
        }
        for input in aliased {
            let state = graph.inputs.iter().zip(&feeds).find(|(i, _)| **i == input);
            targets.extend(state.map(|(_, s)| Target { state: s.clone(), from: place.clone() }));
        }
    }
    settle(&mut steps, &mut buffers, &targets, &returned);
    let (offsets, arena) = arrange(&buffers);
    Ok(Planned::Plan(Box::new(Plan { graph, steps, constants, offsets, arena, feeds, outputs })))
}
