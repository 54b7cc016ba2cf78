//! Matrix products, behind one interface: `out = product_scale · lhs · rhs + out_scale · out`.
//!
//! `cpu.rs` fills it with the crate `gemm`; own micro-kernels, bf16 and fused epilogues are to go behind the same types.
mod cpu;
pub(crate) mod cuda;

use crate::Threads;
use std::ops::Range;

/// A matrix that is read: any strides, so that a transpose needs no copy.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix of `rows × cols` whose element (i, j) is `data[i · row_stride + j · col_stride]`.
    ///
    /// # Panics
    /// If an element lies outside of `data`.
    pub fn new(
        data: &'a [f32],
        [rows, cols]: [usize; 2],
        [row_stride, col_stride]: [usize; 2],
    ) -> Matrix<'a> {
        let extent = crate::extent(&[rows, cols], &[row_stride, col_stride]);
        assert!(extent <= data.len(), "a {rows}×{cols} matrix spans {extent} of {} elements", data.len());
        Matrix { data, rows, cols, row_stride, col_stride }
    }
    /// A row-major matrix.
    ///
    /// # Panics
    /// If an element lies outside of `data`.
    pub fn row_major(data: &'a [f32], rows: usize, cols: usize) -> Matrix<'a> {
        Matrix::new(data, [rows, cols], [cols, 1])
    }
    /// The transpose, of the same memory.
    #[must_use]
    pub fn t(self) -> Matrix<'a> {
        let Matrix { data, rows, cols, row_stride, col_stride } = self;
        Matrix { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
    /// The element in row `i` and column `j`.
    ///
    /// # Panics
    /// If it lies outside of the memory.
    pub fn at(&self, i: usize, j: usize) -> f32 {
        self.data[i * self.row_stride + j * self.col_stride]
    }
    /// The rows of `range`, of the same memory.
    ///
    /// # Panics
    /// If it goes beyond the rows.
    #[must_use]
    pub fn row_range(self, range: Range<usize>) -> Matrix<'a> {
        assert!(range.end <= self.rows, "rows {range:?} of a matrix of {}", self.rows);
        let start = (range.start * self.row_stride).min(self.data.len());
        Matrix { data: &self.data[start..], rows: range.len(), ..self }
    }
    /// Copies the rows of `range` to `out`, row-major, along the side on which elements are adjacent.
    ///
    /// # Panics
    /// If it goes beyond the rows, or `out` has another size.
    pub fn copy_rows(&self, range: Range<usize>, out: &mut [f32]) {
        let (n, part) = (range.len(), self.row_range(range));
        assert_eq!(out.len(), n * self.cols, "the size of the rows of a matrix");
        if self.row_stride == 1 {
            (0..self.cols).for_each(|j| (0..n).for_each(|i| out[i * self.cols + j] = part.at(i, j)));
        } else {
            (0..n).for_each(|i| (0..self.cols).for_each(|j| out[i * self.cols + j] = part.at(i, j)));
        }
    }
    /// The rows.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// The columns.
    pub fn cols(&self) -> usize {
        self.cols
    }
}

/// A product that is to be computed.
#[derive(Clone, Copy, Debug)]
pub struct Gemm<'a> {
    /// The left operand, m × k.
    pub lhs: Matrix<'a>,
    /// The right operand, k × n.
    pub rhs: Matrix<'a>,
    /// What the product is multiplied by.
    pub product_scale: f32,
    /// What is in the result before is multiplied by this and added; at 0 it is overwritten, NaN or not.
    pub out_scale: f32,
}

impl<'a> Gemm<'a> {
    /// `out = lhs · rhs`.
    pub fn new(lhs: Matrix<'a>, rhs: Matrix<'a>) -> Gemm<'a> {
        Gemm { lhs, rhs, product_scale: 1.0, out_scale: 0.0 }
    }
    /// The product times `scale`.
    #[must_use]
    pub fn scaled(mut self, scale: f32) -> Gemm<'a> {
        self.product_scale = scale;
        self
    }
    /// The product plus what is in the result already, times `scale`.
    #[must_use]
    pub fn accumulated(mut self, scale: f32) -> Gemm<'a> {
        self.out_scale = scale;
        self
    }
    /// Computes it into `out`, row-major m × n. The bits do not depend on `threads`.
    ///
    /// # Panics
    /// If the operands' sizes do not fit together, or `out` has another length than m · n.
    pub fn run(&self, out: &mut [f32], threads: Threads) {
        let (rows, cols) = (self.lhs.rows, self.rhs.cols);
        assert_eq!(rows * cols, out.len(), "the result of a matrix product has another size");
        self.run_spaced(out, cols, threads);
    }
    /// The same into rows that begin `stride` elements apart; what lies between them is left alone.
    ///
    /// # Panics
    /// If the operands' sizes do not fit together, or the rows overlap or do not lie in `out`.
    pub fn run_spaced(&self, out: &mut [f32], stride: usize, threads: Threads) {
        assert_eq!(self.lhs.cols, self.rhs.rows, "inner sizes of a matrix product differ");
        let (rows, cols) = (self.lhs.rows, self.rhs.cols);
        if rows == 0 || cols == 0 {
            return;
        }
        let fits = stride >= cols && crate::extent(&[rows, cols], &[stride, 1]) <= out.len();
        assert!(fits, "{rows} rows of {cols} do not lie {stride} apart in {} elements", out.len());
        if self.lhs.cols > 0 {
            return cpu::run(self, out, stride, threads);
        }
        let scale = self.out_scale;
        // An empty sum; NaN in a result that is overwritten must not survive.
        for y in out.chunks_mut(stride).take(rows).flat_map(|row| &mut row[..cols]) {
            *y = if scale == 0.0 { 0.0 } else { *y * scale };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        (0..n).map(|i| graft_ir::random::uniform(seed, 0, 0, i as u64) - 0.5).collect()
    }

    #[test]
    fn agrees_with_the_sum_of_products_for_any_layout_and_threads() {
        let sizes = [0usize, 1, 2, 3, 8, 17, 33];
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        for (m, k, n) in sizes.iter().flat_map(|&m| sizes.iter().flat_map(move |&k| sizes.map(|n| (m, k, n))))
        {
            let (a, b, c) = (random(m * k, 1), random(k * n, 2), random(m * n, 3));
            for layout in 0..4 {
                let lhs = if layout & 1 == 0 {
                    Matrix::row_major(&a, m, k)
                } else {
                    Matrix::row_major(&a, k, m).t()
                };
                let rhs = if layout & 2 == 0 {
                    Matrix::row_major(&b, k, n)
                } else {
                    Matrix::row_major(&b, n, k).t()
                };
                let gemm = Gemm::new(lhs, rhs).scaled(0.5).accumulated(2.0);
                let mut out = c.clone();
                gemm.run(&mut out, Threads::ONE);
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let sum: f64 = (0..k).map(|l| f64::from(lhs.at(i, l)) * f64::from(rhs.at(l, j))).sum();
                    let exact = 0.5 * sum + 2.0 * f64::from(c[i * n + j]);
                    assert!((f64::from(out[i * n + j]) - exact).abs() < 1e-5, "{m}×{k}×{n} at {i}, {j}");
                }
                for threads in [2, 4] {
                    let mut other = c.clone();
                    pool.install(|| gemm.run(&mut other, Threads::new(threads)));
                    assert_eq!(out, other, "{m}×{k}×{n} on {threads} threads");
                }
                let row = |i: usize| [&c[i * n..(i + 1) * n], &[7.0; 2]].concat();
                let mut apart: Vec<f32> = (0..m).flat_map(row).collect();
                gemm.run_spaced(&mut apart, n + 2, Threads::ONE);
                // Which operand is packed goes by the strides of the result, and with it the order of a sum.
                for (i, row) in apart.chunks(n + 2).enumerate() {
                    let near = row[..n].iter().zip(&out[i * n..]).all(|(x, y)| (x - y).abs() < 1e-6);
                    assert!(near && row[n..] == [7.0; 2], "{m}×{k}×{n}, rows {} apart", n + 2);
                }
            }
        }
    }

    #[test]
    fn large_products_have_the_same_bits_on_any_number_of_threads() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        for (m, k, n) in [(129, 700, 65), (512, 96, 8), (8, 1000, 300), (1, 513, 1030), (700, 3, 700)] {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let gemm = Gemm::new(Matrix::row_major(&a, m, k), Matrix::row_major(&b, n, k).t());
            let mut one = vec![f32::NAN; m * n];
            gemm.run(&mut one, Threads::ONE);
            for threads in [2, 3, 4] {
                let mut more = vec![f32::NAN; m * n];
                pool.install(|| gemm.run(&mut more, Threads::new(threads)));
                assert_eq!(one, more, "{m}×{k}×{n} on {threads} threads");
            }
        }
    }
}
