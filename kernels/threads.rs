//! Threads: work is cut into the same pieces whatever their number, so that results never depend on it.
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::sync::{Mutex, PoisonError};

/// How many threads a kernel may use; they are those of the rayon pool that the caller runs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threads(usize);

/// Elements that one piece of element-wise work covers.
pub(crate) const PIECE: usize = 8192;

impl Threads {
    /// The calling thread alone.
    pub const ONE: Threads = Threads(1);

    /// `n` threads, at least one.
    pub fn new(n: usize) -> Threads {
        Threads(n.max(1))
    }
    /// Their number.
    pub fn count(self) -> usize {
        self.0
    }
    /// Calls `work` on every job; the jobs must not depend on the number of threads.
    pub(crate) fn each<J: Send>(self, jobs: impl Iterator<Item = J>, work: impl Fn(J) + Sync) {
        let jobs: Vec<_> = jobs.map(|job| Mutex::new(Some(job))).collect();
        self.share(jobs.len(), &|i| {
            let job = jobs[i].lock().unwrap_or_else(PoisonError::into_inner).take();
            job.into_iter().for_each(&work);
        });
    }
    /// Calls `work` on every number below `n`. Not generic: rayon's machinery would otherwise be compiled for each loop.
    fn share(self, n: usize, work: &(dyn Fn(usize) + Sync)) {
        if self.0 == 1 || n == 1 {
            return (0..n).for_each(work);
        }
        (0..n).into_par_iter().for_each(work);
    }
    /// Calls `work(start, piece)` on pieces of `out` of `size` elements.
    pub(crate) fn pieces<T: Send>(self, out: &mut [T], size: usize, work: impl Fn(usize, &mut [T]) + Sync) {
        let size = size.max(1);
        self.each(out.chunks_mut(size).enumerate(), |(i, piece)| work(i * size, piece));
    }
    pub(crate) fn parallelism(self) -> gemm::Parallelism {
        if self.0 == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(self.0) }
    }
}

/// How many rows of `len` elements make one piece.
pub(crate) fn rows_per_piece(len: usize) -> usize {
    (PIECE / len.max(1)).max(1)
}

/// Pieces of an optional result: endlessly `None` if nobody wants it.
pub(crate) fn optional_pieces<T>(
    out: Option<&mut [T]>,
    size: usize,
) -> impl Iterator<Item = Option<&mut [T]>> {
    let wanted = out.is_some();
    let pieces = out.unwrap_or_default().chunks_mut(size.max(1)).map(Some);
    let nothing = std::iter::repeat_with(|| None).take(if wanted { 0 } else { usize::MAX });
    pieces.chain(nothing)
}
