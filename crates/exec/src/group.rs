//! Steps whose launches read the same operand, made one step that reads it once: the projections of q, k and v, or of gate
//! and up, and the gradients of their weights.
#[cfg(test)]
mod tests;

use crate::{
    arena::Buffer,
    place::Place,
    step::{Launches, Step, Work},
};
use graft_ir::Node;
use graft_kernels::cuda::{Call, Plan, together};
use std::{collections::HashSet, sync::Arc};

/// How many steps lie at most from the first to the last one that become one. What is further apart belongs to different
/// layers: what is ready first would stay in memory until the last one is.
const REACH: usize = 48;

/// Groups all steps that can be done together. Each buffer must be written by one step at most.
pub(crate) fn group(mut steps: Vec<Step>, buffers: &mut [Buffer]) -> Vec<Step> {
    let mut first = 0;
    while first < steps.len() {
        let end = steps.len().min(first + REACH);
        let Some((roles, plan)) = roles(&steps[first..end]) else {
            first += 1;
            continue;
        };
        let window: Vec<Step> = steps.drain(first..first + roles.len()).collect();
        let in_order = join(window.into_iter().zip(roles), |members| merge(members, plan, buffers));
        steps.splice(first..first, in_order);
    }
    steps
}

/// What becomes of a step among those that are grouped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// It needs nothing that the group makes, and comes before it.
    Before,
    /// It is one of the group.
    Member,
    /// It needs what the group makes, or what such a step does, and comes after it.
    After,
}

/// The roles of the first step, which is grouped with others, and of those up to the last of these; and what the group
/// launches. `None` if there are no others.
fn roles(window: &[Step]) -> Option<(Vec<Role>, Plan)> {
    let (first, others) = window.split_first().filter(|(first, _)| can_share(first))?;
    let (mut roles, mut members, mut together) = (vec![Role::Member], vec![first], None);
    let mut made: HashSet<usize> = writes(first).collect();
    for step in others {
        let needs = reads(step).any(|buffer| made.contains(&buffer));
        let joined = || {
            let all = [&members[..], &[step]].concat();
            Some((launches(&all)?, all))
        };
        let role = match (!needs && can_share(step)).then(joined).flatten() {
            _ if needs => Role::After,
            None => Role::Before,
            Some((plan, all)) => {
                (members, together) = (all, Some(plan));
                Role::Member
            }
        };
        if role != Role::Before {
            made.extend(writes(step));
        }
        roles.push(role);
    }
    let last = roles.iter().rposition(|role| *role == Role::Member)?;
    roles.truncate(last + 1);
    Some((roles, together?))
}

/// The steps by their roles, the members as one.
fn join(window: impl Iterator<Item = (Step, Role)>, merge: impl FnOnce(Vec<Step>) -> Step) -> Vec<Step> {
    let (mut before, mut members, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for (step, role) in window {
        match role {
            Role::Before => before.push(step),
            Role::Member => members.push(step),
            Role::After => after.push(step),
        }
    }
    before.push(merge(members));
    before.extend(after);
    before
}

/// One step for all, which launches `plan`.
fn merge(members: Vec<Step>, plan: Plan, buffers: &mut [Buffer]) -> Step {
    let (inputs, operands) = operands(members.iter());
    let mut pairs = Vec::new();
    let mut outputs = Vec::new();
    for (member, own) in members.iter().zip(&operands) {
        // What several of them read none may overwrite.
        let is_own = |i: &usize| operands.iter().filter(|of| of.contains(i)).count() == 1;
        let pair = |&(i, o): &(usize, usize)| Some((*own.get(i).filter(|i| is_own(i))?, o + outputs.len()));
        pairs.extend(member.pairs().iter().filter_map(pair));
        outputs.extend(member.outputs.iter().cloned());
    }
    let mut scratches = members.iter().filter_map(|member| Some(member.scratch?.0));
    let scratch = scratches.next().map(|b| (b, plan.workspace));
    scratches.for_each(|b| buffers[b].bytes = 0);
    scratch.iter().for_each(|&(b, bytes)| buffers[b].bytes = bytes);
    let node = label(&members);
    let work =
        Work::Launches(Launches { plan: Arc::new(plan), pairs, kernel: None, product: None, calls: members });
    Step { work, inputs, outputs, scratch, ..Step::of(&node) }
}

/// What the steps launch together, if they can.
fn launches(members: &[&Step]) -> Option<Plan> {
    let (_, operands) = operands(members.iter().copied());
    let mut results = 0;
    let mut calls = Vec::with_capacity(members.len());
    for (member, operands) in members.iter().zip(&operands) {
        let Work::Launches(Launches { plan, .. }) = &member.work else { return None };
        calls.push(Call { plan, operands, results });
        results += member.outputs.len();
    }
    together(&calls)
}

/// All that the steps read, each place once, and for each step which of these its operands are.
fn operands<'a>(members: impl Iterator<Item = &'a Step>) -> (Vec<Option<Place>>, Vec<Vec<usize>>) {
    let mut inputs: Vec<Option<Place>> = Vec::new();
    let mut number = |place: &Option<Place>| {
        let at = inputs.iter().position(|other| other == place).unwrap_or(inputs.len());
        if at == inputs.len() {
            inputs.push(place.clone());
        }
        at
    };
    let operands = members.map(|member| member.inputs.iter().map(&mut number).collect()).collect();
    (inputs, operands)
}

/// Whether a launch of the step can serve others too.
fn can_share(step: &Step) -> bool {
    let Work::Launches(launches) = &step.work else { return false };
    launches.plan.launches.iter().any(|launch| launch.stack.is_some())
}

fn reads(step: &Step) -> impl Iterator<Item = usize> + '_ {
    step.inputs.iter().flatten().filter_map(Place::buffer)
}

fn writes(step: &Step) -> impl Iterator<Item = usize> + '_ {
    step.outputs.iter().flatten().filter_map(Place::buffer)
}

/// A node that stands for several, by the name of the last one: `3×graft.Lora`.
fn label(members: &[Step]) -> Node {
    let ops: Vec<&str> = members.iter().map(|member| member.node.op.as_str()).collect();
    let are_same = ops.windows(2).all(|pair| pair[0] == pair[1]);
    let op = if are_same { format!("{}×{}", ops.len(), ops[0]) } else { ops.join("+") };
    let last = members.last().map(|member| member.node.clone()).unwrap_or_default();
    Node { op, attrs: Default::default(), ..last }
}
