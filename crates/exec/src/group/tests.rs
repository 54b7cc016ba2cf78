//! Grouping changes neither what a plan computes nor what it computes with: random steps in an arena, with state and with
//! results in place of operands, run by themselves and grouped.
use super::*;
use crate::{
    arena::arrange,
    place::Storage,
    settle::{Next, settle},
};
use graft_ir::{DType, random};
use graft_kernels::cuda::{self, Argument, Launch, Module, Stack, Traffic};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The bytes of a value: a word of memory, here.
const CELL: usize = 64;
/// Values that are fed, and those that are state.
const FED: usize = 2;
const STATES: usize = 2;
/// The most calls that `down` serves.
const MOST: usize = 3;

/// Random steps: a word for each value.
struct World {
    seed: u64,
    drawn: u64,
    steps: Vec<Step>,
    buffers: Vec<Buffer>,
    values: Vec<Place>,
}

fn launch(kernel: &'static str, buffers: &[cuda::Buffer]) -> Launch {
    Launch {
        tiled: None,
        kernel,
        module: Module::file("none"),
        grid: [1; 3],
        block: 32,
        shared: 0,
        arguments: buffers.iter().map(|&b| Argument::Buffer(b)).collect(),
        library: None,
        traffic: Traffic::default(),
        stack: None,
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World { seed, drawn: 0, steps: vec![], buffers: vec![], values: vec![] };
        for i in 0..FED + STATES {
            let place = world.place(CELL);
            (world.buffers[i].first, world.buffers[i].is_state) = (0, i >= FED);
            world.values.push(place);
        }
        world
    }
    fn below(&mut self, n: usize) -> usize {
        self.drawn += 1;
        random::bits(self.seed, 0, 0, self.drawn) as usize % n
    }
    fn place(&mut self, bytes: usize) -> Place {
        let buffer = Buffer { bytes, first: usize::MAX, last: 0, is_state: false, within: None };
        self.buffers.push(buffer);
        Place::whole(Storage::Buffer(self.buffers.len() - 1), DType::Float, vec![bytes / 4])
    }
    /// A value that is there, mostly one of the last.
    fn value(&mut self) -> Place {
        let near = self.values.len().min(6);
        let from = if self.below(3) == 0 { 0 } else { self.values.len() - near };
        let at = from + self.below(self.values.len() - from);
        self.values[at].clone()
    }
    /// Adds a step that launches this on so many values, of which the first are given, and makes so many.
    fn push(&mut self, plan: Plan, given: &[Place], reads: usize, makes: usize, pairs: Vec<(usize, usize)>) {
        let mut inputs: Vec<Option<Place>> = given.iter().cloned().map(Some).collect();
        while inputs.len() < reads {
            inputs.push(Some(self.value()));
        }
        let outputs: Vec<Place> = (0..makes).map(|_| self.place(CELL)).collect();
        let scratch = (plan.workspace > 0).then(|| {
            self.place(plan.workspace);
            (self.buffers.len() - 1, plan.workspace)
        });
        self.values.extend(outputs.iter().cloned());
        let node = Node::new(plan.launches[0].kernel, &[], &[]);
        let work = Work::Launches(Launches {
            plan: Arc::new(plan),
            pairs,
            kernel: None,
            product: None,
            calls: Vec::new(),
        });
        let outputs = outputs.into_iter().map(Some).collect();
        self.steps.push(Step { work, inputs, outputs, scratch, ..Step::of(&node) });
    }
    /// An element-wise step, which may overwrite what it reads.
    fn map(&mut self) {
        use cuda::Buffer::{Operand, Result};
        let reads = 1 + self.below(2);
        let buffers: Vec<_> = (0..reads).map(Operand).chain([Result(0)]).collect();
        let plan = Plan { launches: vec![launch("map", &buffers)], workspace: 0 };
        self.push(plan, &[], reads, 1, (0..reads).map(|i| (i, 0)).collect());
    }
    /// A step that projects x and adds a third operand, which the result may overwrite.
    fn project(&mut self, x: &Place) {
        use cuda::Buffer::{Null, Operand, Result, Workspace};
        let (h, makes) = if self.below(2) == 0 { (Workspace(0), 1) } else { (Result(1), 2) };
        let mut down = launch("down", &[Operand(0), Operand(1), Null, Null, Null, h, Null, Null, Null]);
        down.stack = Some(Stack { own: &[1, 5], shared: [0; 4], common: Traffic::default(), most: MOST });
        let up = launch("up", &[h, Operand(2), Result(0)]);
        let mut launches = vec![down, up];
        // Sometimes what is projected is made first.
        if self.below(2) == 0 {
            launches.insert(0, launch("pre", &[Operand(1), Operand(2), Workspace(256)]));
            launches[1].arguments[1] = Argument::Buffer(Workspace(256));
        }
        self.push(Plan { launches, workspace: 512 }, std::slice::from_ref(x), 3, makes, vec![(2, 0)]);
    }
    /// So many steps, of which those that project often have the same x.
    fn grow(&mut self, n: usize) {
        let mut x = self.value();
        for _ in 0..n {
            match self.below(6) {
                0 => x = self.value(),
                1 | 2 => self.map(),
                _ => self.project(&x),
            }
        }
    }
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Does a launch: each result is a hash of the kernel's name and of what it is made of.
fn execute(launch: &Launch, cells: &mut [u64], cell: &dyn Fn(cuda::Buffer) -> Option<usize>) {
    let at = |i: usize| match launch.arguments[i] {
        Argument::Buffer(buffer) => cell(buffer),
        _ => None,
    };
    let read = |cells: &[u64], i: usize| at(i).map(|c| cells[c]);
    if launch.kernel == "down" {
        for call in 0..4 {
            let value = hash(("down", read(cells, 0), read(cells, 1 + call)));
            at(5 + call).into_iter().for_each(|c| cells[c] = value);
        }
    } else {
        let last = launch.arguments.len() - 1;
        let value = hash((launch.kernel, (0..last).map(|i| read(cells, i)).collect::<Vec<_>>()));
        at(last).into_iter().for_each(|c| cells[c] = value);
    }
}

/// What lies at `places` after all steps.
fn run(steps: &[Step], buffers: &[Buffer], places: &[Place]) -> Vec<u64> {
    let (offsets, size) = arrange(buffers);
    let mut cells: Vec<u64> = vec![0; size / CELL + 1];
    let cell_of = |place: &Place| place.buffer().map(|b| offsets[b] / CELL);
    for (i, offset) in offsets.iter().enumerate().take(FED + STATES) {
        cells[offset / CELL] = hash(("fed", i));
    }
    for step in steps {
        let cell = |buffer: cuda::Buffer| match buffer {
            cuda::Buffer::Operand(i) => step.inputs[i].as_ref().and_then(cell_of),
            cuda::Buffer::Result(i) => step.outputs[i].as_ref().and_then(cell_of),
            cuda::Buffer::Workspace(at) => step.scratch.map(|(b, bytes)| {
                assert!(at < bytes && bytes <= buffers[b].bytes, "outside of the workspace");
                (offsets[b] + at) / CELL
            }),
            cuda::Buffer::Framed(_) | cuda::Buffer::Null => None,
        };
        match &step.work {
            Work::Launches(Launches { plan, .. }) => {
                plan.launches.iter().for_each(|launch| execute(launch, &mut cells, &cell));
            }
            _ => {
                let [from, to] = [&step.inputs, &step.outputs].map(|p| p[0].as_ref().and_then(cell_of));
                cells[to.expect("a place")] = cells[from.expect("a place")];
            }
        }
    }
    places.iter().filter_map(cell_of).map(|c| cells[c]).collect()
}

#[test]
fn what_is_grouped_computes_the_same() {
    let (mut before, mut after, mut largest) = (0, 0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        world.grow(40);
        let states = world.values[FED..FED + STATES].to_vec();
        let made = FED + STATES..world.values.len();
        let mut pick = || world.below(made.len()) + made.start;
        let (next, seen) = ([pick(), pick()], [pick(), pick(), pick()]);
        let next = next.map(|i| world.values[i].clone());
        let seen = seen.map(|i| world.values[i].clone());
        let targets: Vec<Next> =
            states.iter().zip(next).map(|(state, from)| Next { state: state.clone(), from }).collect();
        let returned: Vec<usize> = seen.iter().filter_map(Place::buffer).collect();
        let looked_at: Vec<Place> = states.iter().chain(&seen).cloned().collect();
        let results = [false, true].map(|is_grouped| {
            let (mut steps, mut buffers) = (world.steps.clone(), world.buffers.clone());
            if is_grouped {
                steps = group(steps, &mut buffers);
                (before, after) = (before + world.steps.len(), after + steps.len());
                let calls: usize = steps.iter().map(|step| step.calls().len()).sum();
                assert_eq!(calls, world.steps.len(), "seed {seed}: every step is done once");
                largest = largest.max(steps.iter().map(|step| step.calls().len()).max().unwrap_or(0));
            }
            settle(&mut steps, &mut buffers, &targets, &returned);
            run(&steps, &buffers, &looked_at)
        });
        assert_eq!(results[0], results[1], "seed {seed}");
    }
    assert!(after * 5 < before * 4, "{before} steps, {after} grouped");
    assert_eq!(largest, MOST);
}

#[test]
fn what_waits_for_others_is_not_grouped_with_them() {
    let mut world = World::new(0);
    let x = world.values[0].clone();
    world.project(&x);
    let y = world.steps[0].outputs[0].clone();
    world.project(&x);
    let mut grouped = |read: Option<Place>| {
        world.steps[1].inputs[2] = read;
        group(world.steps.clone(), &mut world.buffers).len()
    };
    assert_eq!((grouped(y), grouped(Some(x))), (2, 1));
}
