//! Device memory: allocations, each of which knows which of its bytes have been written.
use std::{
    fmt,
    sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// What memory holds that nobody has written: NaN in every floating-point type.
const POISON: u64 = u64::MAX;

/// Bytes that the blocks of a launch share. Every access is atomic, so that blocks may run beside each other, as on a device.
struct Cells {
    words: Box<[AtomicU64]>,
}

impl Cells {
    fn new(bytes: usize, word: u64) -> Cells {
        Cells { words: (0..bytes.div_ceil(8)).map(|_| AtomicU64::new(word)).collect() }
    }
    #[inline(always)]
    fn bytes(&self) -> usize {
        8 * self.words.len()
    }
    /// Where the byte lies, which must be there.
    #[inline(always)]
    fn at(&self, at: usize, bytes: usize) -> *mut u8 {
        assert!(
            at.is_multiple_of(bytes) && at + bytes <= self.bytes(),
            "an access outside of its allocation"
        );
        let first = self.words.as_ptr().cast::<u8>().cast_mut();
        // SAFETY: `at` lies within the words.
        unsafe { first.add(at) }
    }
    /// The value of so many bytes: 1, 2, 4 or 8, aligned.
    #[inline(always)]
    fn load(&self, at: usize, bytes: usize) -> u64 {
        let p = self.at(at, bytes);
        // SAFETY: `p` points to as many bytes within the words, aligned as `at` checks; all accesses to them are atomic.
        unsafe {
            match bytes {
                1 => AtomicU8::from_ptr(p).load(Relaxed).into(),
                2 => AtomicU16::from_ptr(p.cast()).load(Relaxed).into(),
                4 => AtomicU32::from_ptr(p.cast()).load(Relaxed).into(),
                _ => AtomicU64::from_ptr(p.cast()).load(Relaxed),
            }
        }
    }
    #[inline(always)]
    fn store(&self, at: usize, bytes: usize, value: u64) {
        let p = self.at(at, bytes);
        // SAFETY: as for `load`.
        unsafe {
            match bytes {
                1 => AtomicU8::from_ptr(p).store(value as u8, Relaxed),
                2 => AtomicU16::from_ptr(p.cast()).store(value as u16, Relaxed),
                4 => AtomicU32::from_ptr(p.cast()).store(value as u32, Relaxed),
                _ => AtomicU64::from_ptr(p.cast()).store(value, Relaxed),
            }
        }
    }
    /// Calls `f(place, bytes)` for the widest aligned pieces of a range.
    fn pieces(at: usize, n: usize, mut f: impl FnMut(usize, usize)) {
        let (mut from, end) = (at, at + n);
        while from < end {
            let bytes = if from.is_multiple_of(8) && end - from >= 8 { 8 } else { 1 };
            f(from, bytes);
            from += bytes;
        }
    }
    fn read(&self, at: usize, to: &mut [u8]) {
        Cells::pieces(at, to.len(), |from, bytes| {
            to[from - at..from - at + bytes].copy_from_slice(&self.load(from, bytes).to_le_bytes()[..bytes]);
        });
    }
    fn write(&self, at: usize, from: &[u8]) {
        Cells::pieces(at, from.len(), |to, bytes| {
            let mut word = [0; 8];
            word[..bytes].copy_from_slice(&from[to - at..to - at + bytes]);
            self.store(to, bytes, u64::from_le_bytes(word));
        });
    }
}

/// What is wrong with an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// It lies in no allocation; the nearest one below is so many bytes long and begins so many bytes before.
    Outside {
        /// Start and size of the nearest allocation below.
        nearest: Option<(u64, usize)>,
    },
    /// It begins in an allocation and ends behind it.
    Overrun {
        /// The allocation's size in bytes.
        bytes: usize,
    },
    /// The address is no multiple of the access's size.
    Misaligned,
    /// It reads bytes that nobody has written.
    Uninitialised,
    /// It writes to what may only be read.
    ReadOnly,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Outside { nearest: None } => f.write_str("outside of every allocation"),
            Violation::Outside { nearest: Some((start, bytes)) } => {
                write!(
                    f,
                    "outside of every allocation; the nearest below has {bytes} bytes from {start:#x} on"
                )
            }
            Violation::Overrun { bytes } => write!(f, "past the end of its allocation of {bytes} bytes"),
            Violation::Misaligned => f.write_str("misaligned"),
            Violation::Uninitialised => f.write_str("a read of memory that nobody has written"),
            Violation::ReadOnly => f.write_str("a write to a variable of the module, which may only be read"),
        }
    }
}

/// An allocation.
pub(crate) struct Allocation {
    pub(crate) start: u64,
    pub(crate) bytes: usize,
    cells: Cells,
    /// One for each byte that has been written, else zero.
    written: Cells,
    read_only: bool,
}

/// As many ones as bytes.
#[inline(always)]
fn ones(bytes: usize) -> u64 {
    0x0101_0101_0101_0101 >> (64 - 8 * bytes)
}

impl Allocation {
    fn new(start: u64, bytes: usize) -> Allocation {
        let (cells, written) = (Cells::new(bytes, POISON), Cells::new(bytes, 0));
        Allocation { start, bytes, cells, written, read_only: false }
    }
    /// Memory that kernels may only read.
    pub(crate) fn constant(start: u64, content: &[u8]) -> Allocation {
        let allocation = Allocation { read_only: true, ..Allocation::new(start, content.len()) };
        allocation.write(0, content);
        allocation
    }
    fn write(&self, at: usize, from: &[u8]) {
        self.cells.write(at, from);
        self.mark(at, from.len());
    }
    fn mark(&self, at: usize, n: usize) {
        Cells::pieces(at, n, |to, bytes| self.written.store(to, bytes, ones(bytes)));
    }
    /// Whether an access of so many bytes is as it should be.
    pub(crate) fn check(&self, address: u64, bytes: usize) -> Result<usize, Violation> {
        let at = (address - self.start) as usize;
        if at + bytes > self.bytes { Err(Violation::Overrun { bytes: self.bytes }) } else { Ok(at) }
    }
    /// The value of aligned bytes, and whether all of them have been written.
    #[inline(always)]
    pub(crate) fn load(&self, at: usize, bytes: usize) -> (u64, bool) {
        (self.cells.load(at, bytes), self.written.load(at, bytes) == ones(bytes))
    }
    #[inline(always)]
    pub(crate) fn store(&self, at: usize, bytes: usize, value: u64) {
        self.cells.store(at, bytes, value);
        self.written.store(at, bytes, ones(bytes));
    }
    /// Whether somebody has written the bytes at all of these places, each a multiple of so many.
    #[inline(always)]
    pub(crate) fn are_written(&self, places: &[u64; 32], bytes: usize) -> bool {
        let piece = bytes.min(8);
        let mut all = u64::MAX;
        for at in (0..bytes).step_by(8) {
            for &place in places {
                all &= self.written.load(place as usize + at, piece);
            }
        }
        all & ones(piece) == ones(piece)
    }
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }
}

/// The memory of a device. Addresses are never given twice, so that a use after a free is found.
#[derive(Default)]
pub struct Memory {
    /// In the order of their addresses.
    allocations: Vec<Allocation>,
    next: u64,
}

/// Where the first allocation lies.
const FIRST: u64 = 0x10_0000_0000;
/// Between allocations lies at least so much that belongs to none: more than a tile of a matrix.
const GAP: u64 = 1 << 16;

impl Memory {
    /// No allocation yet.
    pub fn new() -> Memory {
        Memory::default()
    }
    /// Allocates `bytes`, aligned to 256; they hold NaN.
    pub fn allocate(&mut self, bytes: usize) -> u64 {
        let start = self.next.max(FIRST);
        self.next = (start + bytes as u64 + GAP).next_multiple_of(256);
        self.allocations.push(Allocation::new(start, bytes));
        start
    }
    /// Frees the allocation that begins at `start`.
    ///
    /// # Errors
    /// If there is none.
    pub fn free(&mut self, start: u64) -> Result<(), Violation> {
        match self.allocations.binary_search_by_key(&start, |a| a.start) {
            Ok(i) => {
                self.allocations.remove(i);
                Ok(())
            }
            Err(_) => Err(self.outside(start)),
        }
    }
    /// Memory without allocations that gives none of the addresses that this one has given.
    #[must_use]
    pub fn emptied(&self) -> Memory {
        Memory { allocations: Vec::new(), next: self.next }
    }
    /// Start and size of all allocations.
    pub fn allocations(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.allocations.iter().map(|a| (a.start, a.bytes))
    }
    /// The allocation that holds the address.
    #[inline]
    pub(crate) fn find(&self, address: u64) -> Option<&Allocation> {
        let behind = self.allocations.partition_point(|a| a.start <= address);
        let nearest = self.allocations.get(behind.checked_sub(1)?)?;
        (address - nearest.start < nearest.bytes as u64).then_some(nearest)
    }
    pub(crate) fn outside(&self, address: u64) -> Violation {
        let below = self.allocations.iter().rfind(|a| a.start <= address);
        Violation::Outside { nearest: below.map(|a| (a.start, a.bytes)) }
    }
    fn place(&self, address: u64, bytes: usize) -> Result<(&Allocation, usize), Violation> {
        let allocation = self.find(address).ok_or_else(|| self.outside(address))?;
        Ok((allocation, allocation.check(address, bytes)?))
    }
    /// Copies `from` to an address.
    ///
    /// # Errors
    /// If it does not lie within one allocation.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), Violation> {
        if from.is_empty() {
            return Ok(());
        }
        let (allocation, at) = self.place(address, from.len())?;
        allocation.write(at, from);
        Ok(())
    }
    /// Copies what lies at an address; bytes that nobody has written are 0xff.
    ///
    /// # Errors
    /// If it does not lie within one allocation.
    pub fn read(&self, address: u64, to: &mut [u8]) -> Result<(), Violation> {
        if to.is_empty() {
            return Ok(());
        }
        let (allocation, at) = self.place(address, to.len())?;
        allocation.cells.read(at, to);
        Ok(())
    }
    /// Copies within the memory; what was not written stays so.
    ///
    /// # Errors
    /// If one of both does not lie within one allocation.
    pub fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Violation> {
        if bytes == 0 {
            return Ok(());
        }
        let (source, source_at) = self.place(from, bytes)?;
        let (target, target_at) = self.place(to, bytes)?;
        let mut content = vec![0; bytes];
        for (a, b) in [(&source.cells, &target.cells), (&source.written, &target.written)] {
            a.read(source_at, &mut content);
            b.write(target_at, &content);
        }
        Ok(())
    }
}
