//! Calls that read the same operand, as one: of their launches those that are alike but for what each has of its own
//! become one launch, which reads the operand once (`stack.cuh`).
use super::{Argument, Buffer, Frame, Launch, LibraryProduct, Plan, Traffic};
use std::collections::VecDeque;

/// The most calls that one launch serves: its kernel has as many parameters for what each has of its own.
pub const MOST_CALLS: usize = 4;

/// How a launch serves several calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stack {
    /// Where among the arguments what each call has of its own begins: that of the call itself, and room for others'.
    pub own: &'static [usize],
    /// Bytes of shared memory for one call, two, and so on.
    pub shared: [usize; MOST_CALLS],
    /// What is moved and computed once, for however many calls.
    pub common: Traffic,
    /// The most calls that it serves.
    pub most: usize,
}

/// One of several calls that may be done together.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What it launches by itself.
    pub plan: &'a Plan,
    /// Which of all calls' operands each of its own is.
    pub operands: &'a [usize],
    /// Which of all calls' results its first one is.
    pub results: usize,
}

/// The launches of all calls, of which none reads what another one makes; `None` if no launch serves all of them.
///
/// Results have the same bits as those of the calls by themselves.
pub fn together(calls: &[Call<'_>]) -> Option<Plan> {
    let mut plan = Plan::default();
    let mut queues: Vec<VecDeque<Launch>> = calls.iter().map(|call| call.launches(&mut plan)).collect();
    let mut serves_all = false;
    loop {
        for queue in &mut queues {
            while let Some(alone) = next_if(queue, |launch| launch.stack.is_none()) {
                plan.launches.push(alone);
            }
        }
        // What stands first now waits for those of the other calls that are like it.
        let Some((first, stack)) = queues.iter().find_map(|q| q.front().map(Launch::without_own)).flatten()
        else {
            break;
        };
        let is_like = |launch: &Launch| launch.without_own().is_some_and(|(other, _)| other == first);
        let alike: Vec<Launch> = queues.iter_mut().filter_map(|queue| next_if(queue, is_like)).collect();
        if alike.len() > stack.most {
            return None;
        }
        serves_all |= alike.len() == calls.len();
        plan.launches.extend(stacked(&alike, stack));
    }
    serves_all.then_some(plan)
}

/// Takes the first launch, if there is one for which this holds.
fn next_if(queue: &mut VecDeque<Launch>, holds: impl Fn(&Launch) -> bool) -> Option<Launch> {
    queue.front().is_some_and(holds).then(|| queue.pop_front()).flatten()
}

/// One launch for several that are alike.
fn stacked(alike: &[Launch], stack: Stack) -> Option<Launch> {
    let [first, others @ ..] = alike else { return None };
    let mut launch = Launch { stack: None, ..first.clone() };
    for (n, other) in others.iter().enumerate() {
        stack.own.iter().for_each(|&at| launch.arguments[at + n + 1] = other.arguments[at]);
        launch.traffic = launch.traffic + (other.traffic - stack.common);
    }
    if !others.is_empty() {
        launch.module = launch.module.calls(alike.len());
        launch.shared = *stack.shared.get(others.len())?;
    }
    Some(launch)
}

/// What a call has of its own, as an argument of a kernel, and room for that of others.
pub(crate) fn each(own: Buffer) -> [Buffer; MOST_CALLS] {
    [own, Buffer::Null, Buffer::Null, Buffer::Null]
}

impl Launch {
    /// One that serves several calls like it, if it can.
    pub(crate) fn stacks(self, stack: Stack) -> Launch {
        Launch { stack: (stack.most > 1).then_some(stack), ..self }
    }
    /// The same on other memory.
    fn on(mut self, moved: impl Fn(Buffer) -> Buffer) -> Launch {
        for argument in &mut self.arguments {
            if let Argument::Buffer(buffer) = argument {
                *buffer = moved(*buffer);
            }
        }
        if let Some(tiled) = &mut self.tiled {
            tiled.to = moved(tiled.to);
        }
        for matrix in self.library.iter_mut().flat_map(LibraryProduct::matrices) {
            matrix.memory = moved(matrix.memory);
        }
        self
    }
    /// What it has in common with others like it, if it serves several calls.
    fn without_own(&self) -> Option<(Launch, Stack)> {
        let (stack, mut launch) = (self.stack?, self.clone());
        stack.own.iter().for_each(|&at| launch.arguments[at] = Argument::Buffer(Buffer::Null));
        Some((launch, stack))
    }
}

impl Call<'_> {
    /// Its launches, as those of one of several, with a workspace behind those of the calls before.
    fn launches(&self, plan: &mut Plan) -> VecDeque<Launch> {
        let Buffer::Workspace(base) = plan.reserve(self.plan.workspace) else { return VecDeque::new() };
        // One that is left out is none among all of them, too.
        let operand = |i: usize| self.operands.get(i).copied();
        let moved = |buffer: Buffer| match buffer {
            Buffer::Operand(i) => operand(i).map_or(Buffer::Null, Buffer::Operand),
            Buffer::Framed(frame) => operand(frame.operand)
                .map_or(Buffer::Null, |operand| Buffer::Framed(Frame { operand, ..frame })),
            Buffer::Result(i) => Buffer::Result(self.results + i),
            Buffer::Workspace(at) => Buffer::Workspace(base + at),
            Buffer::Null => Buffer::Null,
        };
        self.plan.launches.iter().map(|launch| launch.clone().on(moved)).collect()
    }
}
