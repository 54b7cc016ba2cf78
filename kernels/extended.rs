//! The rank-extended product that adapters are made of: `y = [x | q]·[w ; b]`, where `q` is what a method makes of `x` in
//! rank space; backwards `dx = [dy | dp]·[wᵀ ; aᵀ]`. A method's kernel adds its own step in rank space to these.
//!
//! All activations are row-major (…, width) and read as rows; weights may be strided.
use crate::{
    Threads, View, floats,
    gemm::{Gemm, Matrix},
    math::vectorised,
    threads::rows_per_piece,
};
use graft_ir::{Code, Error, Result, Type};

/// A linear with an adapter of one projection: x (tokens, in), w (in, out), a (in, rank), b (rank, out).
#[derive(Clone, Copy)]
pub(crate) struct Extended<'a> {
    pub(crate) x: Matrix<'a>,
    pub(crate) w: Matrix<'a>,
    pub(crate) a: Matrix<'a>,
    pub(crate) b: Matrix<'a>,
    pub(crate) scale: f32,
    pub(crate) threads: Threads,
}

impl<'a> Extended<'a> {
    /// The operands, if their sizes fit together.
    pub(crate) fn new([x, w, a, b]: [Matrix<'a>; 4], scale: f32, threads: Threads) -> Result<Extended<'a>> {
        check([w.rows(), a.rows()] == [x.cols(); 2] && b.cols() == w.cols())?;
        Ok(Extended { x, w, a, b, scale, threads })
    }
    /// `h = x·a`, the projection.
    pub(crate) fn project(&self, h: &mut [f32]) {
        Gemm::new(self.x, self.a).run(h, self.threads);
    }
    /// `y = x·w + scale·q·b`.
    pub(crate) fn forward(&self, q: &[f32], y: &mut [f32]) {
        let q = Matrix::row_major(q, self.x.rows(), self.b.rows());
        Gemm::new(self.x, self.w).run(y, self.threads);
        Gemm::new(q, self.b).scaled(self.scale).accumulated(1.0).run(y, self.threads);
    }
    /// `dq = scale·dy·bᵀ`.
    pub(crate) fn dq(&self, dy: Matrix<'_>, dq: &mut [f32]) {
        Gemm::new(dy, self.b.t()).scaled(self.scale).run(dq, self.threads);
    }
    /// `db = scale·qᵀ·dy`.
    pub(crate) fn db(&self, q: &[f32], dy: Matrix<'_>, db: &mut [f32]) {
        let q = Matrix::row_major(q, dy.rows(), self.b.rows());
        Gemm::new(q.t(), dy).scaled(self.scale).run(db, self.threads);
    }
    /// `da = xᵀ·dp`.
    pub(crate) fn da(&self, dp: &[f32], da: &mut [f32]) {
        Gemm::new(self.x.t(), self.projected(dp)).run(da, self.threads);
    }
    /// `dx = dy·wᵀ + dp·aᵀ`.
    pub(crate) fn dx(&self, dy: Matrix<'_>, dp: &[f32], dx: &mut [f32]) {
        Gemm::new(dy, self.w.t()).run(dx, self.threads);
        Gemm::new(self.projected(dp), self.a.t()).accumulated(1.0).run(dx, self.threads);
    }
    /// A matrix of the projection's size.
    fn projected<'p>(&self, p: &'p [f32]) -> Matrix<'p> {
        Matrix::row_major(p, self.x.rows(), self.a.cols())
    }
}

/// Calls `work(i, row)` on each row of `out`, of `n` elements.
pub(crate) fn by_rows(out: &mut [f32], n: usize, threads: Threads, work: impl Fn(usize, &mut [f32]) + Sync) {
    let n = n.max(1);
    threads.pieces(out, rows_per_piece(n) * n, |start, piece| {
        piece.chunks_mut(n).enumerate().for_each(|(i, row)| work(start / n + i, row));
    });
}

/// Row `i` of a matrix with `n` columns.
pub(crate) fn row(matrix: &[f32], i: usize, n: usize) -> &[f32] {
    &matrix[i * n..][..n]
}

/// `out[i, k] = m[i, k]·v[k]`.
pub(crate) fn by_columns(m: &[f32], v: &[f32], out: &mut [f32], threads: Threads) {
    by_rows(out, v.len(), threads, |i, out| {
        out.iter_mut().zip(row(m, i, v.len())).zip(v).for_each(|((out, m), v)| *out = m * v);
    });
}

/// `Σ p[i, k]·q[i, k]` over the rows i, in their order, for each of `n` columns k.
pub(crate) fn column_dots(p: &[f32], q: &[f32], n: usize) -> Vec<f64> {
    let mut sums = vec![0.0f64; n];
    for (p, q) in p.chunks(n.max(1)).zip(q.chunks(n.max(1))) {
        let products = p.iter().zip(q).map(|(&p, &q)| f64::from(p) * f64::from(q));
        sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
    }
    sums
}

/// `out[k] = Σ x[j]` over the columns j that agree with k modulo `n`, for each row of `x`, of `width` elements.
pub(crate) fn fold(x: &[f32], width: usize, n: usize, out: &mut [f32], threads: Threads) {
    by_rows(out, n, threads, |i, out| {
        vectorised(
            #[inline(always)]
            || {
                out.fill(0.0);
                for part in row(x, i, width).chunks(n.max(1)) {
                    for (y, x) in out.iter_mut().zip(part) {
                        *y += x;
                    }
                }
            },
        );
    });
}

/// `y[j] += q[j modulo n]` for each row of `y`, of `width` elements.
pub(crate) fn repeat(q: &[f32], n: usize, y: &mut [f32], width: usize, threads: Threads) {
    by_rows(y, width, threads, |i, y| {
        vectorised(
            #[inline(always)]
            || {
                for part in y.chunks_mut(n.max(1)) {
                    for (y, q) in part.iter_mut().zip(row(q, i, n)) {
                        *y += q;
                    }
                }
            },
        );
    });
}

/// A rank-2 operand.
pub(crate) fn matrix<'a>(view: &View<'a>) -> Result<Matrix<'a>> {
    match view.dims {
        [rows, cols] => Ok(Matrix::new(view.elements(), [*rows, *cols], [view.strides[0], view.strides[1]])),
        dims => Err(Error::new(Code::TYPES, format!("expected a matrix, found sizes {dims:?}"))),
    }
}

/// An activation (…, width) as rows.
pub(crate) fn rows<'a>(view: &View<'a>) -> Matrix<'a> {
    let width = view.dims.last().copied().unwrap_or(1);
    Matrix::row_major(view.elements(), n_rows(view.dims), width)
}

/// An error if the sizes of a call's operands do not fit together.
pub(crate) fn check(fits: bool) -> Result<()> {
    if fits { Ok(()) } else { Err(misfit()) }
}

/// The error for operands whose sizes do not fit together.
pub(crate) fn misfit() -> Error {
    Error::new(Code::TYPES, "the sizes of activation, weight and adapter do not fit together")
}

/// Whether all of `n` operands are `float`, those at `activations` of at least two axes, and those at `weights` matrices.
pub(crate) fn supports(types: &[Option<Type>], n: usize, activations: &[usize], weights: &[usize]) -> bool {
    let rank = |i: usize| types[i].as_ref().and_then(|t| t.shape.as_ref()).map(Vec::len);
    types.len() == n
        && floats(types, n)
        && activations.iter().all(|&i| rank(i).is_some_and(|r| r >= 2))
        && weights.iter().all(|&i| rank(i) == Some(2))
}

/// The rows of an activation (…, width).
pub(crate) fn n_rows(dims: &[usize]) -> usize {
    dims[..dims.len().saturating_sub(1)].iter().product()
}

/// Operations of the products of the rows of operand 0 with the matrices of `weights`.
pub(crate) fn flops(operands: &[&[usize]], weights: &[usize]) -> u64 {
    let matrices: usize = weights.iter().map(|&i| operands[i].iter().product::<usize>()).sum();
    2 * (n_rows(operands[0]) * matrices) as u64
}

/// Bytes of `n` elements.
pub(crate) fn bytes(n: usize) -> usize {
    n * size_of::<f32>()
}
