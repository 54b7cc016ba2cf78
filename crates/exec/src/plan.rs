//! A plan: the steps that run a graph for one set of input sizes, and the memory they need.
use crate::{
    arena::arrange,
    chain::{chain, launch_copies},
    constants::{Constant, Constants},
    cuda::Loaded,
    group::group,
    lower::{Lowering, Stop},
    place::{Place, Storage},
    settle::{Next, settle},
    specialize::specialize,
    step::Step,
};
use graft_ir::{DType, Graph, Result, Value};
use graft_kernels::{Threads, cuda::Target};
use std::{ops::Range, sync::Arc};

/// What a plan is made for.
pub(crate) struct Request<'a> {
    pub(crate) graph: &'a Graph,
    /// Pairs (input, output): the output is the input's next state.
    pub(crate) aliases: &'a [(Value, Value)],
    /// The sizes of `graph.inputs`.
    pub(crate) sizes: &'a [Vec<usize>],
    pub(crate) threads: Threads,
    /// What launches are planned for, if steps are to be launches.
    pub(crate) target: Option<Target>,
    /// How floats are stored.
    pub(crate) format: DType,
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
    /// What a device keeps of it.
    pub(crate) loaded: Loaded,
}

impl Plan {
    /// The bytes of memory that a place in a buffer spans; none if it is a constant.
    pub(crate) fn range(&self, place: &Place) -> Option<Range<usize>> {
        let (base, within) = (self.offsets[place.buffer()?], place.bytes());
        Some(base + within.start..base + within.end)
    }
    /// The bytes that a place in a constant spans; none if it lies in a buffer.
    pub(crate) fn constant(&self, place: &Place) -> &[u8] {
        match place.storage {
            Storage::Constant(c) => &self.constants[c].bytes()[place.bytes()],
            Storage::Buffer(_) => &[],
        }
    }
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
    let concrete = specialize(request.graph, request.sizes, request.target)?;
    let states: Vec<Value> = request.aliases.iter().map(|&(input, _)| input).collect();
    let mut lowering = Lowering::new(&concrete, constants, request, notice);
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
            targets.extend(state.map(|(_, s)| Next { state: s.clone(), from: place.clone() }));
        }
    }
    if let Some(target) = request.target {
        let read: Vec<&Place> = outputs.iter().chain(targets.iter().map(|t| &t.from)).collect();
        steps = group(chain(steps, &read, target)?, &mut buffers);
    }
    settle(&mut steps, &mut buffers, &targets, &returned);
    if let Some(target) = request.target {
        steps = launch_copies(steps, target)?;
    }
    let (offsets, arena) = arrange(&buffers);
    Ok(Planned::Plan(Box::new(Plan {
        graph,
        steps,
        constants,
        offsets,
        arena,
        feeds,
        outputs,
        loaded: Loaded::default(),
    })))
}
