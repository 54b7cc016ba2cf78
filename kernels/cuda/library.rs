//! Products that a library may compute in a kernel's place: what has to be known of one, as plain data. The kernel stays in
//! the plan beside it, so that whatever runs plans without the library computes the same.
use super::{Buffer, Element};

/// Whether there is a library of products, and when it is taken.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Library {
    /// There is none, or nobody has asked for it.
    #[default]
    Absent,
    /// Where it was measured to be faster than every tile; a model of cycles knows nothing of it.
    Measured,
    /// Wherever it serves, whatever was measured: to measure it.
    Always,
}

/// A matrix in memory, row after row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Matrix {
    /// Where it lies.
    pub memory: Buffer,
    /// How many elements apart the beginnings of neighbouring rows are.
    pub stride: usize,
    /// Whether the product takes the transpose of what lies there.
    pub is_turned: bool,
}

impl Matrix {
    /// One that the product takes as it lies.
    pub fn new(memory: Buffer, stride: usize) -> Matrix {
        Matrix { memory, stride, is_turned: false }
    }
    /// One whose transpose the product takes.
    pub fn turned(memory: Buffer, stride: usize) -> Matrix {
        Matrix { is_turned: true, ..Matrix::new(memory, stride) }
    }
}

/// `result (m, n) = alpha·left (m, k)·right (k, n)`, summed in f32 (never by TF32) and rounded once.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LibraryProduct {
    /// The element type of both factors and the result.
    pub element: Element,
    /// Rows and columns of the result, and the length of the sums.
    pub sizes: [usize; 3],
    /// (m, k), or (k, m) where it is turned.
    pub left: Matrix,
    /// (k, n), or (n, k) where it is turned.
    pub right: Matrix,
    /// (m, n), never turned.
    pub result: Matrix,
    /// What the sums are multiplied with.
    pub alpha: f32,
}

impl LibraryProduct {
    /// Both factors and the result.
    pub(crate) fn matrices(&mut self) -> [&mut Matrix; 3] {
        [&mut self.left, &mut self.right, &mut self.result]
    }
    /// Itself if rows do not overlap (the library refuses them), and begin at multiples of 16 bytes as far as that is up to
    /// strides (its tensor cores read no others); what is otherwise is left to kernels.
    pub(crate) fn aligned(self) -> Option<LibraryProduct> {
        let [m, n, k] = self.sizes;
        let is_aligned = |(matrix, rows, cols): (&Matrix, usize, usize)| {
            let length = if matrix.is_turned { rows } else { cols };
            matrix.stride >= length && (matrix.stride * self.element.bytes()).is_multiple_of(16)
        };
        [(&self.left, m, k), (&self.right, k, n), (&self.result, m, n)]
            .into_iter()
            .all(is_aligned)
            .then_some(self)
    }
}
