//! The one random generator: counter-based, so that every backend and every exported graph draws the same numbers.
//!
//! *Squares* (Widynski 2020, arXiv 2004.06278) with a key derived from the seed; the counter is made of
//! the step, the tensor and the element.

/// The random numbers of one tensor at one step.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: u64,
    start: u64,
}

impl Stream {
    /// The stream of tensor `tensor` (below 2^12) at `step` (below 2^20).
    pub fn new(seed: u64, step: u64, tensor: u64) -> Stream {
        let key = seed.wrapping_mul(2).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Stream { key, start: (step << 44).wrapping_add(tensor << 32) }
    }
    /// The 32 random bits of element `index`.
    #[inline(always)]
    pub fn bits(self, index: u64) -> u32 {
        let y = self.start.wrapping_add(index).wrapping_mul(self.key);
        let z = y.wrapping_add(self.key);
        let round = |x: u64, add: u64| x.wrapping_mul(x).wrapping_add(add).rotate_left(32);
        let x = round(round(round(y, y), z), y);
        (x.wrapping_mul(x).wrapping_add(z) >> 32) as u32
    }
    /// A uniform draw strictly inside (0, 1), exact in `f32`.
    #[inline(always)]
    pub fn uniform(self, index: u64) -> f32 {
        ((f64::from(self.bits(index) >> 9) + 0.5) / f64::from(1u32 << 23)) as f32
    }
}

/// The 32 random bits of element `index` of tensor `tensor` (below 2^12) at `step` (below 2^20).
pub fn bits(seed: u64, step: u64, tensor: u64, index: u64) -> u32 {
    Stream::new(seed, step, tensor).bits(index)
}

/// A uniform draw strictly inside (0, 1), exact in `f32`.
pub fn uniform(seed: u64, step: u64, tensor: u64, index: u64) -> f32 {
    Stream::new(seed, step, tensor).uniform(index)
}

/// A random order of `0..n` (Fisher and Yates), a function of seed, step and tensor.
pub fn permutation(seed: u64, step: u64, tensor: u64, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        // The multiply-shift map of 32 bits onto 0..=i; its bias is below 2^-32 · i.
        let j = (u64::from(bits(seed, step, tensor, i as u64)) * (i as u64 + 1)) >> 32;
        order.swap(i, j as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_vectors() {
        assert_eq!(bits(0, 1, 0, 0), 0x82d9_4f3a);
        assert_eq!(bits(0, 1, 0, 1), 0x4017_6816);
        assert_eq!(bits(0, 1, 3, 7), 0xfaa4_3493);
        assert_eq!(bits(42, 1000, 17, 123_456), 0x9240_2891);
        assert_eq!(bits(1 << 31, (1 << 20) - 1, 4095, u64::from(u32::MAX)), 0x1572_488f);
    }

    #[test]
    fn permutes() {
        let mut order = permutation(7, 1, 0, 100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
