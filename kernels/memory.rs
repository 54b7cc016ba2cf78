//! Aligned memory, and borrowing many disjoint parts of it at once.
use bytemuck::{Pod, Zeroable};
use std::ops::Range;

/// The alignment of every buffer: a cache line, and a vector register of AVX-512.
pub const ALIGN: usize = 64;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; ALIGN]);

/// Owned bytes that start at a multiple of [`ALIGN`].
#[derive(Clone, Default)]
pub struct Memory(Vec<Line>);

impl Memory {
    /// `len` bytes, all zero; the length is rounded up to a multiple of [`ALIGN`].
    pub fn zeroed(len: usize) -> Memory {
        Memory(vec![Line::zeroed(); len.div_ceil(ALIGN)])
    }
    /// The same, or `None` where there is not that much memory.
    pub fn try_zeroed(len: usize) -> Option<Memory> {
        let n = len.checked_next_multiple_of(ALIGN)? / ALIGN;
        let mut probe = Vec::<Line>::new();
        // The probe is given back, because only memory that is asked for as zeros comes without being written.
        probe.try_reserve_exact(n).ok()?;
        drop(probe);
        Some(Memory::zeroed(len))
    }
    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Memory {
        let mut memory = Memory::zeroed(bytes.len());
        memory.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        memory
    }
    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
    /// All bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.0.len() * ALIGN
    }
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Borrows parts of `memory`: `reads` may overlap one another, `writes` nothing.
///
/// # Panics
/// If a write overlaps anything, or a part lies outside of `memory`: the planner guarantees that neither happens.
pub fn borrow<'a>(
    memory: &'a mut [u8],
    reads: &[Range<usize>],
    writes: &[Range<usize>],
) -> (Vec<&'a [u8]>, Vec<&'a mut [u8]>) {
    let mut read_parts: Vec<&[u8]> = reads.iter().map(|_| &[][..]).collect();
    let mut write_parts: Vec<&mut [u8]> = writes.iter().map(|_| &mut [][..]).collect();
    let reading = reads.iter().enumerate().map(|(i, r)| (r.clone(), false, i));
    let writing = writes.iter().enumerate().map(|(i, r)| (r.clone(), true, i));
    let mut parts: Vec<_> = reading.chain(writing).filter(|(r, ..)| !r.is_empty()).collect();
    parts.sort_by_key(|(range, write, _)| (range.start, *write));
    let (mut rest, mut at) = (memory, 0);
    let mut parts = parts.into_iter().peekable();
    while let Some((range, write, i)) = parts.next() {
        let mut group = vec![(range.clone(), i)];
        let mut end = range.end;
        while let Some((next, next_write, j)) = parts.next_if(|(next, ..)| next.start < end) {
            assert!(!write && !next_write, "a buffer is written while it is in use");
            end = end.max(next.end);
            group.push((next, j));
        }
        let (head, tail) = std::mem::take(&mut rest).split_at_mut(end - at);
        let part = &mut head[range.start - at..];
        (rest, at) = (tail, end);
        if write {
            write_parts[i] = part;
            continue;
        }
        let shared: &'a [u8] = part;
        for (r, j) in group {
            read_parts[j] = &shared[r.start - range.start..r.end - range.start];
        }
    }
    (read_parts, write_parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borrows_disjoint_writes_and_overlapping_reads() {
        let mut bytes: Vec<u8> = (0..16).collect();
        let (reads, writes) = borrow(&mut bytes, &[4..8, 6..10, 0..0, 4..8], &[12..14, 0..2]);
        assert_eq!(reads, [&[4, 5, 6, 7][..], &[6, 7, 8, 9], &[], &[4, 5, 6, 7]]);
        assert_eq!(writes, [&[12, 13][..], &[0, 1]]);
    }

    #[test]
    #[should_panic(expected = "while it is in use")]
    fn refuses_to_write_what_is_read() {
        borrow(&mut [0; 16], &[4..8, 0..1], &[7..9, 12..13]);
    }

    #[test]
    fn memory_is_aligned() {
        let memory = Memory::copy_of(&[1, 2, 3]);
        assert_eq!(memory.bytes().as_ptr() as usize % ALIGN, 0);
        assert_eq!(&memory.bytes()[..4], [1, 2, 3, 0]);
    }
}
