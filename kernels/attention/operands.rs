//! Sizes and operands of an attention: matrices of one head, and the mask's rows.
use crate::{View, gemm::Matrix, strides::broadcast};

/// Elements of the scores that one block of rows holds.
const BLOCK: usize = 1 << 15;

/// The sizes of q (batch, heads, queries, size), k (batch, shared heads, keys, size) and v (batch, shared heads, keys, width).
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) shared: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) size: usize,
    pub(super) width: usize,
}

impl Sizes {
    /// The sizes, where those of q, k, v and bias fit together and none is 0.
    pub(super) fn new(operands: &[&[usize]]) -> Option<Sizes> {
        let &[&[batch, heads, queries, size], k, &[.., keys, width], bias] = operands else { return None };
        let (v, shared) = (operands[2], *k.get(1)?);
        let scores = [batch, heads, queries, keys];
        let repeats = |(&n, &m): (&usize, &usize)| n == 1 || n == m;
        let fits = k == [batch, shared, keys, size]
            && v == [batch, shared, keys, width]
            && scores.iter().chain(&[shared, size, width]).all(|&n| n > 0)
            && heads % shared == 0
            && bias.len() <= 4
            && bias.iter().rev().zip(scores.iter().rev()).all(repeats);
        fits.then_some(Sizes { batch, heads, shared, queries, keys, size, width })
    }
    /// How many heads of queries share one of keys and values.
    pub(super) fn times(&self) -> usize {
        self.heads / self.shared
    }
    /// The rows of a block.
    pub(super) fn rows(&self) -> usize {
        (BLOCK / self.keys).clamp(8, 128).min(self.queries)
    }
    /// Operations of products between queries and keys with `inner` multiplications each.
    pub(super) fn products(&self, inner: usize) -> u64 {
        2 * (self.batch * self.heads * self.queries * self.keys * inner) as u64
    }
}

/// The matrix of head `head` in row `batch` of a tensor of rank 4.
pub(super) fn matrix<'a>(view: &View<'a>, batch: usize, head: usize) -> Matrix<'a> {
    let (dims, strides) = (view.dims, view.strides);
    let data = &view.elements::<f32>()[batch * strides[0] + head * strides[1]..];
    Matrix::new(data, [dims[2], dims[3]], [strides[2], strides[3]])
}

/// What is added to the scores.
#[derive(Clone)]
pub(super) struct Bias<'a> {
    data: &'a [f32],
    strides: Vec<usize>,
}

impl<'a> Bias<'a> {
    pub(super) fn new(view: &View<'a>, sizes: &Sizes) -> Bias<'a> {
        let strides = broadcast(view, &[sizes.batch, sizes.heads, sizes.queries, sizes.keys]);
        Bias { data: view.elements(), strides }
    }
    /// Adds row `query` of a head to its scores.
    #[inline(always)]
    pub(super) fn add(&self, [batch, head, query]: [usize; 3], scores: &mut [f32]) {
        let [by_batch, by_head, by_query, step] = self.strides[..] else { return };
        let row = &self.data[batch * by_batch + head * by_head + query * by_query..];
        match step {
            0 => scores.iter_mut().for_each(|s| *s += row[0]),
            1 => scores.iter_mut().zip(row).for_each(|(s, b)| *s += b),
            _ => scores.iter_mut().zip(row.iter().step_by(step)).for_each(|(s, b)| *s += b),
        }
    }
}

/// Hands `jobs` to as many lanes as there are pieces of `len` elements in `scratch`, in turn. Which job is in which lane
/// depends on sizes alone, and on results it has no influence.
pub(super) fn lanes<J>(
    jobs: impl Iterator<Item = J>,
    scratch: &mut [f32],
    len: usize,
) -> Vec<(Vec<J>, &mut [f32])> {
    let mut lanes: Vec<(Vec<J>, &mut [f32])> =
        scratch.chunks_exact_mut(len).map(|part| (Vec::new(), part)).collect();
    let n = lanes.len();
    jobs.enumerate().for_each(|(i, job)| lanes[i % n].0.push(job));
    lanes
}

/// The most lanes: enough for the threads of a machine to share them evenly.
const LANES: usize = 32;

/// Bytes of scratch memory for `jobs` jobs in lanes of `len` elements.
pub(super) fn lane_bytes(jobs: usize, len: usize) -> usize {
    jobs.min(LANES) * len * size_of::<f32>()
}
