//! Products by the crate `gemm`, which packs blocks of both operands for the micro-kernels of this machine.
use super::Gemm;
use crate::Threads;

/// `out = product_scale · lhs · rhs + out_scale · out`, in rows `row_stride` apart; the caller has checked sizes, and none
/// is 0.
pub(super) fn run(product: &Gemm<'_>, out: &mut [f32], row_stride: usize, threads: Threads) {
    let Gemm { lhs, rhs, product_scale, out_scale } = product;
    let stride = |s: usize| isize::try_from(s).expect("a slice spans less than isize::MAX elements");
    let (m, n, k) = (lhs.rows, rhs.cols, lhs.cols);
    // SAFETY: `Matrix::new` has checked that each operand's last element lies inside of its slice, and `Gemm::run_spaced`
    // that the rows of the result do not overlap and lie in `out`. `out` is borrowed mutably, so it does not overlap the
    // operands. All elements are initialised `f32`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride(row_stride),
            *out_scale != 0.0,
            lhs.data.as_ptr(),
            stride(lhs.col_stride),
            stride(lhs.row_stride),
            rhs.data.as_ptr(),
            stride(rhs.col_stride),
            stride(rhs.row_stride),
            *out_scale,
            *product_scale,
            false,
            false,
            false,
            threads.parallelism(),
        );
    }
}
