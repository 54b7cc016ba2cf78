//! Random shapes, choices and elements, made from a list of bytes so that proptest can shrink them.
use graft_ir::{Array, DType, Dim, random};

/// The number of bytes that an example may consume; later choices are 0.
pub(crate) const CHOICES: usize = 64;

/// Sizes by likelihood; the first is what failures shrink to.
const SIZES: &[usize] = &[2, 3, 1, 4, 2, 3, 1, 5, 2, 0];

/// Where the spelling of some op changes, and the ends of what the library serves: before 14 no shape can be said to
/// hold a zero, which gradients of empty tensors need.
const OPSETS: &[i64] = &[17, 14, 18, 20, 16, 21, 23, 24];

/// How the graph declares the sizes of its inputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sizes {
    /// As numbers.
    Numbers,
    /// Equal sizes by the same symbol (1 as a number): what is equal is provably so.
    Shared,
    /// A mixture of numbers and of symbols that never recur: nothing is provable.
    Unrelated,
}

/// The source of one example.
#[derive(Debug)]
pub(crate) struct Draw {
    choices: Vec<u8>,
    next: usize,
    seed: u64,
    tensors: u64,
    symbols: usize,
    /// The opset of the graph.
    pub(crate) opset: i64,
    /// How sizes are declared.
    pub(crate) sizes: Sizes,
}

impl Draw {
    /// `since`: the first opset that has the op.
    pub(crate) fn new(choices: Vec<u8>, seed: u64, since: i64) -> Draw {
        let mut draw =
            Draw { choices, next: 0, seed, tensors: 0, symbols: 0, opset: 0, sizes: Sizes::Numbers };
        let opsets: Vec<i64> = OPSETS.iter().copied().filter(|&v| v >= since).collect();
        draw.opset = draw.one_of(&opsets);
        draw.sizes = draw.one_of(&[Sizes::Numbers, Sizes::Shared, Sizes::Unrelated]);
        draw
    }
    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let choice = self.choices.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        usize::from(choice) % n
    }
    /// True or false.
    pub(crate) fn coin(&mut self) -> bool {
        self.below(2) == 1
    }
    /// One of some values.
    pub(crate) fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
    /// A size from 0 to 5.
    pub(crate) fn size(&mut self) -> usize {
        self.one_of(SIZES)
    }
    /// A size from 1 to 5.
    pub(crate) fn positive(&mut self) -> usize {
        self.size().max(1)
    }
    /// A shape of a rank between `lowest` and `highest`.
    pub(crate) fn dims(&mut self, lowest: usize, highest: usize) -> Vec<usize> {
        let rank = lowest + self.below(highest - lowest + 1);
        (0..rank).map(|_| self.size()).collect()
    }
    /// A shape that broadcasts with others of the same call to `dims`: some sizes become 1, some leading axes go.
    pub(crate) fn narrowed(&mut self, dims: &[usize]) -> Vec<usize> {
        let dropped = self.below(dims.len() + 1) * self.below(2);
        dims[dropped..].iter().map(|&n| if self.below(3) == 2 { 1 } else { n }).collect()
    }
    /// An axis of a shape of rank `rank` (at least 1), counted from either end.
    pub(crate) fn axis(&mut self, rank: usize) -> i64 {
        let axis = self.below(rank) as i64;
        if self.coin() { axis - rank as i64 } else { axis }
    }
    /// Some axes of a shape of rank `rank`, in order, some counted from the end.
    pub(crate) fn axes(&mut self, rank: usize) -> Vec<i64> {
        let chosen: Vec<usize> = (0..rank).filter(|_| self.coin()).collect();
        chosen.iter().map(|&a| if self.coin() { a as i64 - rank as i64 } else { a as i64 }).collect()
    }
    /// Uniform elements between `low` and `high`.
    pub(crate) fn floats(&mut self, dims: &[usize], low: f64, high: f64) -> Array {
        self.tensors += 1;
        let n = dims.iter().product::<usize>() as u64;
        let draw = |i| low + (high - low) * f64::from(random::uniform(self.seed, 1, self.tensors, i));
        Array::float(DType::Float, dims.to_vec(), (0..n).map(draw).collect())
    }
    /// Elements between -2 and 2.
    pub(crate) fn any(&mut self, dims: &[usize]) -> Array {
        self.floats(dims, -2.0, 2.0)
    }
    /// Elements at least 0.1 away from 0, of both signs: for functions with a kink or a pole there.
    pub(crate) fn nonzero(&mut self, dims: &[usize]) -> Array {
        let signs = self.any(dims);
        let sizes = self.floats(dims, 0.1, 2.0);
        let pairs = signs.floats().unwrap().iter().zip(sizes.floats().unwrap());
        Array::float(DType::Float, dims.to_vec(), pairs.map(|(s, x)| x.copysign(*s)).collect())
    }
    /// Elements that differ pairwise by at least 0.1, also from those of other `lane`s (below 5) by at least 0.02:
    /// for functions with a kink where two elements are equal.
    pub(crate) fn distinct(&mut self, dims: &[usize], lane: usize) -> Array {
        self.tensors += 1;
        let n = dims.iter().product::<usize>();
        let order = random::permutation(self.seed, 1, self.tensors, n);
        let value = |k: usize| 0.1 * (k as f64 - n as f64 / 2.0) + 0.02 * lane as f64 + 0.013;
        Array::float(DType::Float, dims.to_vec(), order.into_iter().map(value).collect())
    }
    /// Integers from `low` up to below `high`.
    pub(crate) fn ints(&mut self, dims: &[usize], low: i64, high: i64) -> Array {
        let draws = self.floats(dims, low as f64, high as f64);
        let floor = draws.floats().unwrap().iter().map(|x| x.floor() as i64).collect();
        Array::int(DType::Int64, dims.to_vec(), floor)
    }
    /// Random truth values.
    pub(crate) fn bools(&mut self, dims: &[usize]) -> Array {
        Array { dtype: DType::Bool, ..self.ints(dims, 0, 2) }
    }
    /// How an axis of size `size` is declared, and the symbol's value.
    pub(crate) fn declare(&mut self, size: usize) -> Dim {
        self.symbols += 1;
        let named = match self.sizes {
            Sizes::Numbers => None,
            Sizes::Shared => (size != 1).then(|| format!("n{size}")),
            Sizes::Unrelated => (self.below(3) != 2).then(|| format!("s{}", self.symbols)),
        };
        named.map_or_else(|| Dim::from(size), |name| Dim::symbol(&name))
    }
}
