//! Runs of neighbouring element-wise steps, each made one launch: what one step makes for the next stays in registers,
//! and is stored only if others read it too.
use crate::{
    device::COPY,
    place::{Place, Storage},
    step::{Launches, Step, Work},
};
use graft_ir::{Code, Error, Node, Result};
use graft_kernels::{
    Chain, Source,
    cuda::{Shape, Target},
};
use std::{collections::HashMap, sync::Arc};

/// The most operands and results of a launch: its parameters, with strides along several axes, have to fit into 4 KiB.
const MOST: usize = 24;

/// Makes launches of all element-wise steps; what lies at `read` is read after the last step.
pub(crate) fn chain(steps: Vec<Step>, read: &[&Place], target: Target) -> Result<Vec<Step>> {
    let mut last: HashMap<usize, usize> = HashMap::new();
    for (k, step) in steps.iter().enumerate() {
        last.extend(step.inputs.iter().flatten().filter_map(|p| Some((p.buffer()?, k))));
    }
    last.extend(read.iter().filter_map(|p| Some((p.buffer()?, usize::MAX))));
    let mut done = Vec::with_capacity(steps.len());
    let mut rest = steps.into_iter().enumerate().peekable();
    while let Some((mut k, step)) = rest.next() {
        if !matches!(step.work, Work::Map(_)) {
            done.push(step);
            continue;
        }
        let mut run = Run::default();
        run.push(step);
        while let Some((next, step)) = rest.next_if(|(_, next)| run.takes(next)) {
            run.push(step);
            k = next;
        }
        done.push(run.launch(|buffer| last.get(&buffer).is_some_and(|&by| by > k), target)?);
    }
    Ok(done)
}

/// Makes launches of all steps that copy.
pub(crate) fn launch_copies(steps: Vec<Step>, target: Target) -> Result<Vec<Step>> {
    let copy = |step: Step| {
        if !matches!(step.work, Work::Copy) {
            return Ok(step);
        }
        let mut run = Run::default();
        run.push(Step { work: Work::Map(COPY.into()), ..step });
        run.launch(|_| true, target)
    };
    steps.into_iter().map(copy).collect()
}

/// Steps that become one.
#[derive(Default)]
struct Run {
    steps: Vec<Step>,
    /// What is read from memory.
    inputs: Vec<Place>,
    /// The steps by the buffers that they write.
    made: HashMap<Storage, usize>,
}

impl Run {
    fn result(step: &Step) -> Option<&Place> {
        step.outputs.first().and_then(Option::as_ref)
    }
    /// Whether a step can join: its result has the same sizes, and what it reads of the run it reads element by element.
    fn takes(&self, step: &Step) -> bool {
        let (Work::Map(_), Some(result)) = (&step.work, Run::result(step)) else { return false };
        let same = |p: &Place| {
            let maker = self.made.get(&p.storage).map(|&k| &self.steps[k]);
            maker.is_none_or(|maker| Run::result(maker) == Some(p))
        };
        let fresh = step.inputs.iter().flatten().filter(|p| !self.inputs.contains(p)).count();
        Run::result(&self.steps[0]).is_some_and(|first| first.dims == result.dims)
            && step.inputs.iter().flatten().all(same)
            && self.inputs.len() + fresh + self.steps.len() < MOST
    }
    fn push(&mut self, step: Step) {
        for place in step.inputs.iter().flatten().filter(|p| !self.made.contains_key(&p.storage)) {
            if !self.inputs.contains(place) {
                self.inputs.push(place.clone());
            }
        }
        self.made.extend(Run::result(&step).map(|p| (p.storage, self.steps.len())));
        self.steps.push(step);
    }
    /// One step for all; results are stored where `is_read` says of their buffers that others read them.
    fn launch(self, is_read: impl Fn(usize) -> bool, target: Target) -> Result<Step> {
        let Run { steps, inputs, made } = self;
        let dims = Run::result(&steps[0]).map_or(&[][..], |place| &place.dims);
        let mut chain = Chain::new(dims);
        for (i, Place { dtype, dims, strides, .. }) in inputs.iter().enumerate() {
            chain.input(Shape { dtype: *dtype, dims, strides, known: None }, i);
        }
        let mut results = Vec::new();
        let mut outputs = Vec::new();
        for (k, step) in steps.iter().enumerate() {
            // One that is left out has no place in a text.
            let source = |place: &Option<Place>| {
                let place = place.as_ref();
                let made = place.and_then(|p| made.get(&p.storage)).filter(|&&by| by < k);
                let input = || inputs.iter().position(|p| Some(p) == place).unwrap_or(usize::MAX);
                made.map_or_else(|| Source::Input(input()), |&by| Source::Made(by))
            };
            let sources: Vec<Source> = step.inputs.iter().map(source).collect();
            let (Work::Map(text), Some(result)) = (&step.work, Run::result(step)) else { continue };
            chain.op(text, &sources, result.dtype);
            if result.buffer().is_some_and(&is_read) {
                results.push(k);
                outputs.push(Some(result.clone()));
            }
        }
        let plan = chain.plan(&results, target);
        let node = label(&steps);
        let none = || Error::new(Code::DEVICE, "no kernel can be made of it").at(format!("`{}`", node.op));
        // An operand is read before any result is stored, by the same thread.
        let pairs = (0..inputs.len()).flat_map(|i| (0..outputs.len()).map(move |o| (i, o))).collect();
        let work = Work::Launches(Launches { plan: Arc::new(plan.ok_or_else(none)?), pairs, kernel: None });
        Ok(Step { work, inputs: inputs.into_iter().map(Some).collect(), outputs, ..Step::of(&node) })
    }
}

/// A node that stands for several, by the name of the last one.
fn label(steps: &[Step]) -> Node {
    let ops: Vec<&str> = steps.iter().map(|step| step.node.op.as_str()).collect();
    let last = steps.last().map(|step| step.node.clone()).unwrap_or_default();
    Node { op: ops.join("+"), attrs: Default::default(), ..last }
}
