//! Cases for the emulator.
use crate::convert::decode;
use graft_emulate::{Edit, Job, Sanitizer, Toolchain};
use graft_ir::{Array, random};
use graft_kernels::cuda::{Element, Sizes};
use std::path::Path;

/// Sizes of tokens, inputs and outputs that are drawn from: one, odd ones, multiples of what is copied at once, and more
/// than a block's tile.
pub(crate) const LARGE: &[usize] = &[1, 7, 24, 64, 65, 130, 136, 200];
/// Sizes that the thread sanitizer is done with in a second.
pub(crate) const SMALL: &[usize] = &[1, 17, 72];

/// Sizes from `among`, and a rank that is rounded up to `rank`.
pub(crate) fn draw_sizes(seed: u64, rank: usize, among: &[usize]) -> Sizes {
    let pick = |from: &[usize], tensor: u64| from[random::bits(seed, 0, tensor, 0) as usize % from.len()];
    let rank = if rank == 16 { pick(&[1, 3, 8, 16], 3) } else { pick(&[rank / 2 + 1, rank], 3) };
    let [tokens, n_in, n_out] = [0, 1, 2].map(|i| pick(among, i));
    Sizes { tokens, n_in, n_out, rank }
}

/// A result that is expected: its elements, and how far off each may be.
pub(crate) struct Expected {
    pub(crate) name: &'static str,
    pub(crate) element: Element,
    pub(crate) values: Array,
    pub(crate) allowed: Vec<f64>,
}

/// A job and what must come out.
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) job: Job,
    pub(crate) expected: Vec<Expected>,
}

impl Case {
    /// An error for the first element that is too far off.
    pub(crate) fn judge(&self, results: &[Vec<u8>]) -> Result<(), String> {
        for (expected, bytes) in self.expected.iter().zip(results) {
            let found = decode(expected.element, bytes);
            let values = expected.values.floats().map_err(|e| e.to_string())?;
            if found.len() != values.len() {
                return Err(format!(
                    "`{}` has {} elements, not {}",
                    expected.name,
                    found.len(),
                    values.len()
                ));
            }
            for (i, ((&f, &v), &allowed)) in found.iter().zip(values).zip(&expected.allowed).enumerate() {
                // NaN is never near enough.
                let is_near = (f - v).abs() <= allowed;
                if !is_near {
                    return Err(format!("`{}`[{i}] is {f:e}, not {v:e} ± {allowed:e}", expected.name));
                }
            }
        }
        Ok(())
    }
}

/// How far off results may be that are `exact`: each is rounded once to its element; what is rounded to `element` on the
/// way is a sum of terms of the magnitudes `rounded`; and all sums, of `terms`, are taken in f32.
pub(crate) fn expected<const N: usize>(
    sizes: Sizes,
    element: Element,
    results: [(&'static str, Element); N],
    [exact, rounded, terms]: [Vec<Array>; 3],
) -> Vec<Expected> {
    let Sizes { tokens, n_in, n_out, rank } = sizes;
    let additions = (tokens + n_in + n_out + rank + 8) as f64 * Element::F32.roundoff();
    let floats = |array: &Array| array.floats().expect("floats").to_vec();
    // Half the smallest f16.
    let smallest = 1e-7;
    let one = |i: usize, values: Array| {
        let (exact, rounded, terms) = (floats(&values), floats(&rounded[i]), floats(&terms[i]));
        let (name, own) = results[i];
        let allowed = (0..exact.len()).map(|j| {
            own.roundoff() * exact[j].abs()
                + 1.01 * element.roundoff() * rounded[j]
                + additions * terms[j]
                + smallest
        });
        Expected { name, element: own, allowed: allowed.collect(), values }
    };
    exact.into_iter().enumerate().map(|(i, values)| one(i, values)).collect()
}

#[expect(clippy::print_stderr, reason = "a skipped check says so")]
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// What builds the kernels with these faults; none, and said so, where there is no compiler.
pub(crate) fn toolchain(sanitizer: Sanitizer, edits: &[Edit]) -> Option<Toolchain> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulate");
    let Some(toolchain) = Toolchain::find(&folder, sanitizer) else {
        skip("no C++ compiler for x86-64 Linux: the CUDA kernels are not emulated");
        return None;
    };
    Some(Toolchain { edits: edits.to_vec(), ..toolchain })
}
