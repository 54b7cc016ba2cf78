//! Walking over broadcast and strided operands in the order of a row-major result.
use crate::View;

/// The loop nest that reads `N` operands in the order of a row-major result: axes of size 1 are dropped, and
/// neighbouring axes that every operand steps through evenly are one loop.
pub(crate) struct Walk<const N: usize> {
    dims: Vec<usize>,
    strides: [Vec<usize>; N],
}

/// The strides of `view` seen with the sizes `dims`, to which it broadcasts.
pub(crate) fn broadcast(view: &View<'_>, dims: &[usize]) -> Vec<usize> {
    repeated(view.dims, view.strides, dims)
}

/// The strides of a tensor of the sizes `own`, seen with the sizes `dims`, to which it broadcasts.
pub(crate) fn repeated(own: &[usize], strides: &[usize], dims: &[usize]) -> Vec<usize> {
    let missing = dims.len() - own.len();
    let stride = |i: usize| match i.checked_sub(missing) {
        Some(j) if own[j] != 1 => strides[j],
        _ => 0,
    };
    (0..dims.len()).map(stride).collect()
}

impl<const N: usize> Walk<N> {
    /// A walk over `dims`, outermost first, with each operand's strides.
    pub(crate) fn new(dims: &[usize], strides: [&[usize]; N]) -> Walk<N> {
        let mut walk = Walk { dims: Vec::new(), strides: strides.map(|_| Vec::new()) };
        for (axis, &d) in dims.iter().enumerate().filter(|&(_, &d)| d != 1) {
            // One loop may step over both axes if a step of the outer one is `d` steps of the inner one.
            let merges = !walk.dims.is_empty()
                && (0..N).all(|n| walk.strides[n].last().copied() == Some(strides[n][axis] * d));
            if merges {
                *walk.dims.last_mut().expect("just seen not to be empty") *= d;
                for (of, given) in walk.strides.iter_mut().zip(&strides) {
                    *of.last_mut().expect("as many as dims") = given[axis];
                }
            } else {
                walk.dims.push(d);
                for (of, given) in walk.strides.iter_mut().zip(&strides) {
                    of.push(given[axis]);
                }
            }
        }
        if walk.dims.is_empty() {
            walk.dims.push(1);
            walk.strides.iter_mut().for_each(|s| s.push(0));
        }
        walk
    }
    /// The sizes of the loops, outermost first, and each operand's strides along them.
    pub(crate) fn axes(&self) -> (&[usize], [&[usize]; N]) {
        (&self.dims, self.strides.each_ref().map(Vec::as_slice))
    }
    /// The operands' strides along the innermost loop.
    pub(crate) fn inner(&self) -> [usize; N] {
        std::array::from_fn(|n| self.strides[n][self.dims.len() - 1])
    }
    /// The length of the innermost loop.
    pub(crate) fn inner_len(&self) -> usize {
        self.dims[self.dims.len() - 1]
    }
    /// The operands' offsets at element `index` of the result.
    pub(crate) fn at(&self, index: usize) -> [usize; N] {
        let mut rest = index;
        let mut offsets = [0; N];
        for axis in (0..self.dims.len()).rev() {
            let i = rest % self.dims[axis];
            rest /= self.dims[axis];
            for (offset, strides) in offsets.iter_mut().zip(&self.strides) {
                *offset += i * strides[axis];
            }
        }
        offsets
    }
    /// Calls `visit(from, len, offsets)` for each run of the innermost loop within elements `start..start + len` of the
    /// result; `from` counts from `start`.
    #[inline(always)]
    pub(crate) fn runs(&self, start: usize, len: usize, mut visit: impl FnMut(usize, usize, [usize; N])) {
        let inner = self.inner_len();
        let mut done = 0;
        while done < len {
            let at = start + done;
            let run = (inner - at % inner).min(len - done);
            visit(done, run, self.at(at));
            done += run;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_axes_and_visits_in_order() {
        // A (2, 3, 4) result; one operand row-major, one that broadcasts over the first axis, one transposed.
        let walk = Walk::new(&[2, 1, 3, 4], [&[12, 12, 4, 1], &[0, 9, 4, 1]]);
        assert_eq!(walk.dims, [2, 12]);
        let mut seen = Vec::new();
        walk.runs(5, 14, |from, len, offsets| seen.push((from, len, offsets)));
        assert_eq!(seen, [(0, 7, [5, 5]), (7, 7, [12, 0])]);
        let transposed = Walk::new(&[3, 4], [&[1, 3]]);
        assert_eq!((transposed.at(5), transposed.inner()), ([4], [3]));
        assert_eq!(Walk::new(&[], [&[]]).inner_len(), 1);
    }
}
