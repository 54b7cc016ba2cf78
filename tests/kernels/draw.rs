//! Seeded choices: sizes, values, attributes.
use graft_ir::{Array, DType, random};

/// A stream of choices that one seed determines.
pub(crate) struct Draw {
    seed: u64,
    drawn: u64,
    largest: usize,
    /// Of adapted linears the number of tokens, or with blocks that of the inputs: more than a slab of a sum takes at once.
    pub(crate) long: Option<usize>,
}

/// Values that floating-point kernels must not stumble over.
const SPECIAL: [f64; 8] = [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e30, -1e-30, 1e-40];

impl Draw {
    /// Choices for sizes up to `largest`.
    pub(crate) fn new(seed: u64, largest: usize) -> Draw {
        Draw { seed, drawn: 0, largest, long: None }
    }
    /// Where adapted linears have so many tokens, or with blocks so many inputs.
    pub(crate) fn with_long(mut self, n: usize) -> Draw {
        self.long = Some(n);
        self
    }
    fn bits(&mut self) -> u32 {
        self.drawn += 1;
        random::bits(self.seed, 1, 0, self.drawn)
    }
    /// One of `0..n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n.max(1)
    }
    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    pub(crate) fn flip(&mut self) -> bool {
        self.one_in(2)
    }
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
    /// Uniform in `low..high`, exact in `f32`.
    pub(crate) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        let u = f64::from(self.bits()) / f64::from(u32::MAX);
        f64::from((low + (high - low) * u) as f32)
    }
    /// The size of an axis: mostly small, sometimes 0, sometimes beyond a vector or a block.
    pub(crate) fn size(&mut self) -> usize {
        let n = match self.below(12) {
            0 => 0,
            1 | 2 => 1,
            3..=7 => self.pick(&[2, 3, 4, 5, 7, 8]),
            8..=10 => self.pick(&[9, 16, 17, 31, 33, 64]),
            _ => self.pick(&[65, 128, 130, 257]),
        };
        n.min(self.largest)
    }
    /// As [`Draw::size`], at least 1.
    pub(crate) fn positive(&mut self) -> usize {
        self.size().max(1)
    }
    /// Sizes of `rank` axes, not too many elements in all.
    pub(crate) fn sizes(&mut self, rank: usize) -> Vec<usize> {
        let mut dims: Vec<usize> = (0..rank).map(|_| self.size()).collect();
        while dims.iter().product::<usize>() > 40_000 {
            let most = (0..rank).max_by_key(|&i| dims[i]).unwrap_or(0);
            dims[most] /= 3;
        }
        dims
    }
    /// Sizes of 0 to `most` axes.
    pub(crate) fn shape(&mut self, most: usize) -> Vec<usize> {
        let rank = self.below(most + 1);
        self.sizes(rank)
    }
    /// Sizes that broadcast to `dims`: leading axes left out, some axes 1.
    pub(crate) fn broadcast_of(&mut self, dims: &[usize]) -> Vec<usize> {
        let from = if self.one_in(3) { self.below(dims.len() + 1) } else { 0 };
        dims[from..].iter().map(|&d| if self.one_in(4) { 1 } else { d }).collect()
    }
    /// An axis of `rank`, from the front or from the end.
    pub(crate) fn axis(&mut self, rank: usize) -> i64 {
        let axis = self.below(rank) as i64;
        if self.flip() { axis } else { axis - rank as i64 }
    }
    /// `float` elements in `low..high`.
    pub(crate) fn floats(&mut self, dims: &[usize], low: f64, high: f64) -> Array {
        let data = (0..dims.iter().product()).map(|_| self.uniform(low, high)).collect();
        Array::float(DType::Float, dims.to_vec(), data)
    }
    /// `float` elements in -4..4, among them some that are special.
    pub(crate) fn wild(&mut self, dims: &[usize]) -> Array {
        let one = |d: &mut Draw| {
            let special = d.pick(&SPECIAL);
            if d.one_in(12) { f64::from(special as f32) } else { d.uniform(-4.0, 4.0) }
        };
        let data = (0..dims.iter().product()).map(|_| one(self)).collect();
        Array::float(DType::Float, dims.to_vec(), data)
    }
    /// Integer elements in `low..=high`.
    pub(crate) fn ints(&mut self, dtype: DType, dims: &[usize], low: i64, high: i64) -> Array {
        let span = (high - low + 1) as usize;
        let data = (0..dims.iter().product()).map(|_| low + self.below(span) as i64).collect();
        Array::int(dtype, dims.to_vec(), data)
    }
    /// Elements of any type, few different ones.
    pub(crate) fn elements(&mut self, dtype: DType, dims: &[usize]) -> Array {
        match dtype {
            DType::Bool => self.ints(dtype, dims, 0, 1),
            d if d.is_int() => self.ints(dtype, dims, 0, 9),
            _ => {
                // Halves are exact in every floating-point type.
                let data = (0..dims.iter().product()).map(|_| self.below(20) as f64 / 2.0 - 5.0).collect();
                Array::float(dtype, dims.to_vec(), data)
            }
        }
    }
    /// `int64` elements that are a constant operand: axes, shapes.
    pub(crate) fn list(&mut self, values: &[i64]) -> Array {
        Array::int(DType::Int64, vec![values.len()], values.to_vec())
    }
}
