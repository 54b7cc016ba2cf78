//! Where a value lies: which memory, and how it is seen there.
use graft_ir::DType;
use graft_kernels::{extent, is_row_major, row_major};

/// A piece of memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Storage {
    /// A constant of the plan.
    Constant(usize),
    /// A buffer of the plan's arena.
    Buffer(usize),
}

/// A tensor in memory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Place {
    pub(crate) storage: Storage,
    pub(crate) dtype: DType,
    /// The first element, counted in elements.
    pub(crate) offset: usize,
    pub(crate) dims: Vec<usize>,
    /// Elements between neighbours along each axis; 0 where the axis is broadcast.
    pub(crate) strides: Vec<usize>,
}

impl Place {
    /// The whole of a memory, row-major.
    pub(crate) fn whole(storage: Storage, dtype: DType, dims: Vec<usize>) -> Place {
        Place { storage, dtype, offset: 0, strides: row_major(&dims), dims }
    }
    pub(crate) fn is_row_major(&self) -> bool {
        is_row_major(&self.dims, &self.strides)
    }
    pub(crate) fn len(&self) -> usize {
        self.dims.iter().product()
    }
    /// The bytes of one element.
    pub(crate) fn element(&self) -> usize {
        self.dtype.bits() / 8
    }
    /// The bytes that it spans within its memory.
    pub(crate) fn bytes(&self) -> std::ops::Range<usize> {
        let from = self.offset * self.element();
        from..from + extent(&self.dims, &self.strides) * self.element()
    }
    /// The buffer, if it lies in one.
    pub(crate) fn buffer(&self) -> Option<usize> {
        match self.storage {
            Storage::Buffer(b) => Some(b),
            Storage::Constant(_) => None,
        }
    }
    /// The same memory under other sizes, if their row-major order is the same without a copy.
    pub(crate) fn reshaped(&self, dims: &[usize]) -> Option<Place> {
        let strides = reshape(&self.dims, &self.strides, dims)?;
        Some(Place { dims: dims.to_vec(), strides, ..self.clone() })
    }
}

/// The strides that make `new` sizes of a strided tensor, if the elements' order allows it.
fn reshape(dims: &[usize], strides: &[usize], new: &[usize]) -> Option<Vec<usize>> {
    if is_row_major(dims, strides) {
        return Some(row_major(new));
    }
    let old: Vec<(usize, usize)> =
        dims.iter().copied().zip(strides.iter().copied()).filter(|&(d, _)| d != 1).collect();
    let mut result = vec![0; new.len()];
    let (mut i, mut j) = (0, 0);
    while i < old.len() {
        // The shortest runs of old and new axes that hold the same number of elements.
        let (first, from) = (i, j);
        let (mut held, mut wanted) = (old[i].0, 1);
        i += 1;
        while wanted != held {
            if wanted < held {
                wanted *= new.get(j)?;
                j += 1;
            } else {
                held *= old.get(i)?.0;
                i += 1;
            }
        }
        let even = old[first..i].windows(2).all(|pair| pair[0].1 == pair[1].0 * pair[1].1);
        if !even {
            return None;
        }
        let mut stride = old[i - 1].1;
        for axis in (from..j).rev() {
            result[axis] = stride;
            stride *= new[axis];
        }
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshapes_without_a_copy_where_the_order_allows() {
        // A (2, 3, 4) tensor seen as (3, 2, 4): the last two axes of (2, 4) do not merge, 4 splits.
        assert_eq!(reshape(&[3, 2, 4], &[4, 12, 1], &[3, 2, 2, 2]), Some(vec![4, 12, 2, 1]));
        assert_eq!(reshape(&[3, 2, 4], &[4, 12, 1], &[3, 8]), None);
        // Strides of axes of size 1 are never used.
        assert_eq!(reshape(&[3, 2], &[1, 3], &[1, 3, 1, 2]).map(|s| (s[1], s[3])), Some((1, 3)));
        // A broadcast axis splits, but merges with nothing.
        assert_eq!(reshape(&[6, 2], &[0, 1], &[2, 3, 2]), Some(vec![0, 0, 1]));
        assert_eq!(reshape(&[6, 2], &[0, 1], &[12]), None);
        assert_eq!(reshape(&[2, 3], &[3, 1], &[6]), Some(vec![1]));
    }
}
