//! Which results overwrite what, how state is written back, and how long each buffer is needed.
use crate::{
    arena::{Buffer, root},
    place::Place,
    step::Step,
};

/// The next content of a state buffer.
pub(crate) struct Next {
    /// The whole state buffer.
    pub(crate) state: Place,
    /// What it is to hold after the run; never in a state buffer itself.
    pub(crate) from: Place,
}

/// Lets results overwrite operands that nobody needs any more, writes state back, and fills in the buffers' lives.
/// `returned` are buffers that are read after the last step.
pub(crate) fn settle(steps: &mut Vec<Step>, buffers: &mut [Buffer], targets: &[Next], returned: &[usize]) {
    let mut last = last_uses(steps, buffers.len(), returned);
    let direct: Vec<bool> =
        targets.iter().map(|target| write_through(steps, buffers, &last, target)).collect();
    for (target, _) in targets.iter().zip(&direct).filter(|(_, direct)| !**direct) {
        // Read by a copy after the last step.
        target.from.buffer().map(|b| last[b] = usize::MAX).unwrap_or_default();
    }
    overwrite(steps, buffers, &mut last);
    for (target, _) in targets.iter().zip(direct).filter(|(_, direct)| !direct) {
        steps.push(Step::copy(target.from.clone(), target.state.clone()));
    }
    live(steps, buffers, returned);
}

/// The buffers that a step uses.
fn used(step: &Step) -> impl Iterator<Item = usize> + '_ {
    let places = step.inputs.iter().chain(&step.outputs).flatten().filter_map(Place::buffer);
    places.chain(step.scratch.map(|(b, _)| b))
}

/// The last step that uses each buffer; `usize::MAX` for those read after the last one.
fn last_uses(steps: &[Step], n: usize, returned: &[usize]) -> Vec<usize> {
    let mut last = vec![0; n];
    for (k, step) in steps.iter().enumerate() {
        used(step).for_each(|b| last[b] = k);
    }
    returned.iter().for_each(|&b| last[b] = usize::MAX);
    last
}

/// Whether `place` is all of its buffer.
fn is_whole(place: &Place, buffers: &[Buffer]) -> bool {
    let bytes = place.bytes();
    place.buffer().is_some_and(|b| buffers[b].bytes == bytes.end) && bytes.start == 0 && place.is_row_major()
}

/// Whether operand `i` of `step` is the only one in its memory.
fn is_sole_reader(step: &Step, buffers: &[Buffer], i: usize) -> bool {
    let at = |p: &Place| p.buffer().map(|b| root(buffers, b));
    let own = step.inputs[i].as_ref().and_then(at);
    let others = step.inputs.iter().enumerate().filter(|&(j, _)| j != i);
    own.is_some() && others.flat_map(|(_, p)| p.as_ref().and_then(at)).all(|b| Some(b) != own)
}

/// Lets the step that makes the next state write it where the state lies, if nobody reads the old state by then.
fn write_through(steps: &mut [Step], buffers: &mut [Buffer], last: &[usize], target: &Next) -> bool {
    let (Some(state), Some(from)) = (target.state.buffer(), target.from.buffer()) else { return false };
    let writes = |step: &Step| step.outputs.iter().flatten().position(|p| p.buffer() == Some(from));
    let Some(k) = steps.iter().position(|step| writes(step).is_some()) else { return false };
    let fits = is_whole(&target.from, buffers) && buffers[from].bytes == buffers[state].bytes;
    if !fits || buffers[from].within.is_some() || last[state] > k {
        return false;
    }
    if last[state] == k && steps[k].inputs.iter().flatten().any(|p| p.buffer() == Some(state)) {
        let step = &steps[k];
        let result = |o: usize| step.outputs.get(o).and_then(|p| p.as_ref()).and_then(Place::buffer);
        let pair = step.pairs().iter().find(|&&(i, o)| {
            result(o) == Some(from)
                && step.inputs.get(i).and_then(|p| p.as_ref()) == Some(&target.state)
                && is_sole_reader(step, buffers, i)
        });
        let Some(&pair) = pair else { return false };
        steps[k].in_place.push(pair);
    }
    buffers[from].within = Some(state);
    true
}

/// Lets kernels overwrite operands that nobody needs after them.
fn overwrite(steps: &mut [Step], buffers: &mut [Buffer], last: &mut [usize]) {
    for (k, step) in steps.iter_mut().enumerate() {
        for (i, o) in step.pairs().to_vec() {
            let place = |places: &[Option<Place>], n: usize| places.get(n).cloned().flatten();
            let (Some(x), Some(y)) = (place(&step.inputs, i), place(&step.outputs, o)) else { continue };
            let (Some(from), Some(to)) = (x.buffer(), y.buffer()) else { continue };
            let from = root(buffers, from);
            let free = !buffers[from].is_state && last[from] == k && buffers[to].within.is_none();
            let same =
                is_whole(&x, buffers) && buffers[from].bytes == buffers[to].bytes && x.dtype == y.dtype;
            let taken = step.in_place.iter().any(|&(j, p)| j == i || p == o);
            if free && same && !taken && x.len() > 0 && is_sole_reader(step, buffers, i) {
                buffers[to].within = Some(from);
                last[from] = last[to];
                step.in_place.push((i, o));
            }
        }
    }
}

/// Fills in the first and last step of each buffer; a buffer lives as long as all that lie within it.
fn live(steps: &[Step], buffers: &mut [Buffer], returned: &[usize]) {
    let fed: Vec<bool> = buffers.iter().map(|b| b.first == 0).collect();
    buffers.iter_mut().zip(&fed).for_each(|(b, fed)| b.first = if *fed { 0 } else { usize::MAX });
    for (k, step) in steps.iter().enumerate() {
        for b in used(step) {
            let b = root(buffers, b);
            buffers[b].first = buffers[b].first.min(k + 1);
            buffers[b].last = buffers[b].last.max(k + 1);
        }
    }
    for &b in returned {
        let b = root(buffers, b);
        buffers[b].last = usize::MAX;
    }
}
