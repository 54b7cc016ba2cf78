//! Buffers: how long each is needed, which may share memory, and where they lie in the arena.
use graft_kernels::ALIGN;

/// A piece of memory that steps write and read.
#[derive(Clone, Debug)]
pub(crate) struct Buffer {
    pub(crate) bytes: usize,
    /// The step that uses it first, counted from 1; 0 if it is filled before the first one.
    pub(crate) first: usize,
    /// The last step that uses it, counted from 1; `usize::MAX` if it is read after the last one.
    pub(crate) last: usize,
    /// Whether it outlives the run.
    pub(crate) is_state: bool,
    /// The buffer whose memory it takes over.
    pub(crate) within: Option<usize>,
}

/// The buffer whose memory `b` uses in the end.
pub(crate) fn root(buffers: &[Buffer], b: usize) -> usize {
    let mut at = b;
    while let Some(next) = buffers[at].within {
        at = next;
    }
    at
}

/// The offsets of state buffers, in the order of the graph's inputs, and where they end: the same in every plan.
pub(crate) fn arrange_state(bytes: impl Iterator<Item = usize>) -> (Vec<usize>, usize) {
    let mut end = 0usize;
    let place = |n: usize| {
        let at = end;
        end += n.next_multiple_of(ALIGN);
        at
    };
    (bytes.map(place).collect(), end)
}

/// The offsets of all buffers and the arena's size: state first, then, largest first, each buffer at the lowest offset
/// where nothing that lives at the same time lies.
pub(crate) fn arrange(buffers: &[Buffer]) -> (Vec<usize>, usize) {
    let round = |n: usize| n.next_multiple_of(ALIGN);
    let mut offsets = vec![0; buffers.len()];
    let states: Vec<usize> = (0..buffers.len()).filter(|&i| buffers[i].is_state).collect();
    let (places, state) = arrange_state(states.iter().map(|&i| buffers[i].bytes));
    states.iter().zip(places).for_each(|(&i, at)| offsets[i] = at);
    let mut order: Vec<usize> =
        (0..buffers.len()).filter(|&i| !buffers[i].is_state && buffers[i].within.is_none()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].bytes), buffers[i].first));
    // Placed buffers, by offset.
    let mut placed: Vec<(usize, usize, usize)> = Vec::new();
    let mut size = state;
    for i in order {
        let b = &buffers[i];
        let mut at = state;
        for &(from, to, other) in &placed {
            let overlaps = buffers[other].first <= b.last && b.first <= buffers[other].last;
            if overlaps && from < at + round(b.bytes) && at < to {
                at = to;
            }
        }
        offsets[i] = at;
        let end = at + round(b.bytes);
        size = size.max(end);
        let position = placed.partition_point(|&(from, ..)| from <= at);
        placed.insert(position, (at, end, i));
    }
    for i in 0..buffers.len() {
        offsets[i] = offsets[root(buffers, i)];
    }
    (offsets, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(bytes: usize, first: usize, last: usize) -> Buffer {
        Buffer { bytes, first, last, is_state: false, within: None }
    }

    #[test]
    fn buffers_that_live_at_different_times_share_memory() {
        let state = Buffer { is_state: true, ..buffer(10, 0, 9) };
        let buffers = [buffer(100, 0, 1), state, buffer(60, 1, 2), buffer(100, 2, 3), buffer(64, 3, 3)];
        let (offsets, size) = arrange(&buffers);
        assert_eq!((offsets, size), (vec![64, 0, 192, 64, 192], 256));
    }

    #[test]
    fn nothing_that_lives_at_the_same_time_overlaps() {
        let draw = |i: u64, below: u64| u64::from(graft_ir::random::bits(3, 0, 0, i)) % below;
        for round in 0..50u64 {
            let buffers: Vec<Buffer> = (0..40)
                .map(|i| {
                    let at = round * 1000 + i * 3;
                    let first = draw(at, 30) as usize;
                    buffer(draw(at + 1, 500) as usize, first, first + draw(at + 2, 10) as usize)
                })
                .collect();
            let (offsets, size) = arrange(&buffers);
            for (i, a) in buffers.iter().enumerate() {
                assert!(offsets[i] + a.bytes <= size);
                for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                    let together = a.first <= b.last && b.first <= a.last;
                    let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    assert!(!together || apart, "{a:?} at {} and {b:?} at {}", offsets[i], offsets[j]);
                }
            }
        }
    }
}
