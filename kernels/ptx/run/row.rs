//! Rows: the same value of all lanes of a warp, and functions of them. The loops are plain, so that the compiler makes vector
//! instructions of them wherever these functions are inlined.

/// 32-bit values.
pub(crate) type Row = [u32; 32];
/// 64-bit values.
pub(crate) type WideRow = [u64; 32];

/// The bit of each lane.
const LANES: Row = {
    let mut bits = [0; 32];
    let mut i = 0;
    while i < 32 {
        bits[i] = 1 << i;
        i += 1;
    }
    bits
};

/// `f` of each lane's value.
#[inline(always)]
pub(crate) fn map<A: Copy, B: Copy + Default>(a: &[A; 32], f: impl Fn(A) -> B) -> [B; 32] {
    let mut out = [B::default(); 32];
    for i in 0..32 {
        out[i] = f(a[i]);
    }
    out
}

/// `f` of each lane's two values.
#[inline(always)]
pub(crate) fn zip<A: Copy, B: Copy, C: Copy + Default>(
    a: &[A; 32],
    b: &[B; 32],
    f: impl Fn(A, B) -> C,
) -> [C; 32] {
    let mut out = [C::default(); 32];
    for i in 0..32 {
        out[i] = f(a[i], b[i]);
    }
    out
}

/// `f` of each lane's three values.
#[inline(always)]
pub(crate) fn zip3<A: Copy + Default>(
    a: &[A; 32],
    b: &[A; 32],
    c: &[A; 32],
    f: impl Fn(A, A, A) -> A,
) -> [A; 32] {
    let mut out = [A::default(); 32];
    for i in 0..32 {
        out[i] = f(a[i], b[i], c[i]);
    }
    out
}

/// The lanes for which `f` holds.
#[inline(always)]
pub(crate) fn mask<A: Copy>(a: &[A; 32], b: &[A; 32], f: impl Fn(A, A) -> bool) -> u32 {
    let mut mask = 0;
    for i in 0..32 {
        mask |= if f(a[i], b[i]) { LANES[i] } else { 0 };
    }
    mask
}

/// `a` in the lanes of `mask`, else `b`.
#[inline(always)]
pub(crate) fn select<A: Copy + Default>(mask: u32, a: &[A; 32], b: &[A; 32]) -> [A; 32] {
    let mut out = [A::default(); 32];
    for i in 0..32 {
        out[i] = if mask & LANES[i] != 0 { a[i] } else { b[i] };
    }
    out
}

/// The lanes of a mask.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |i| mask >> i & 1 != 0)
}
