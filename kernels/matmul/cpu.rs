//! Matrix products over strided views.
use crate::{
    Call, Threads, View,
    gemm::{Gemm, Matrix},
    strides::{Walk, broadcast},
};
use graft_ir::{Code, Error, Result};

/// Below this many multiplications a single product is not worth sharing between threads, but a batch of them is.
const SMALL: usize = 1 << 21;

/// `a @ b` with NumPy's rules: vectors are promoted to matrices, leading axes broadcast.
pub(super) fn matmul(call: &mut Call<'_>) -> Result<()> {
    let (a, b, out) = (call.input(0)?, call.input(1)?, call.output(0)?);
    let (a_dims, a_strides) = promoted(&a, true);
    let (b_dims, b_strides) = promoted(&b, false);
    let (a_rank, b_rank) = (a_dims.len(), b_dims.len());
    let (m, n) = (a_dims[a_rank - 2], b_dims[b_rank - 1]);
    let batch_rank = a_rank.max(b_rank) - 2;
    let batch = &out.dims[..batch_rank];
    let lead = |view: View<'_>, dims: &[usize], strides: &[usize]| {
        let rank = dims.len() - 2;
        broadcast(&View { dims: &dims[..rank], strides: &strides[..rank], ..view }, batch)
    };
    let (a_batch, b_batch) = (lead(a, &a_dims, &a_strides), lead(b, &b_dims, &b_strides));
    let work = Batch {
        lhs: a.elements(),
        lhs_sizes: [m, a_dims[a_rank - 1]],
        lhs_strides: [a_strides[a_rank - 2], a_strides[a_rank - 1]],
        rhs: b.elements(),
        rhs_sizes: [b_dims[b_rank - 2], n],
        rhs_strides: [b_strides[b_rank - 2], b_strides[b_rank - 1]],
        walk: Walk::new(batch, [&a_batch, &b_batch]),
    };
    batched(work, out.elements(), call.threads)
}

/// Sizes and strides of an operand as matrices: a vector becomes a row on the left, a column on the right.
fn promoted(view: &View<'_>, left: bool) -> (Vec<usize>, Vec<usize>) {
    let (mut dims, mut strides) = (view.dims.to_vec(), view.strides.to_vec());
    if dims.len() == 1 {
        let at = usize::from(!left);
        dims.insert(at, 1);
        strides.insert(at, 0);
    }
    (dims, strides)
}

/// Products of matrices, one for each element of a loop nest over both operands.
pub(super) struct Batch<'a> {
    pub(super) lhs: &'a [f32],
    pub(super) lhs_sizes: [usize; 2],
    pub(super) lhs_strides: [usize; 2],
    pub(super) rhs: &'a [f32],
    pub(super) rhs_sizes: [usize; 2],
    pub(super) rhs_strides: [usize; 2],
    pub(super) walk: Walk<2>,
}

/// Computes each product into its part of `out`, one after the other.
pub(super) fn batched(mut work: Batch<'_>, out: &mut [f32], threads: Threads) -> Result<()> {
    let ([m, k], [inner, n]) = (work.lhs_sizes, work.rhs_sizes);
    if k != inner {
        return Err(Error::new(
            Code::TYPES,
            format!("inner sizes {k} and {inner} of a matrix product differ"),
        ));
    }
    if m == 0 || n == 0 || out.is_empty() {
        return Ok(());
    }
    let (count, steps) = (work.walk.inner_len(), work.walk.inner());
    // One right operand for all, and left ones that lie below one another: a single tall product.
    if out.len() == count * m * n && steps[1] == 0 && (m == 1 || steps[0] == m * work.lhs_strides[0]) {
        work.lhs_strides[0] = if m == 1 { steps[0] } else { work.lhs_strides[0] };
        work.lhs_sizes[0] = count * m;
        let lhs = Matrix::new(work.lhs, work.lhs_sizes, work.lhs_strides);
        let rhs = Matrix::new(work.rhs, work.rhs_sizes, work.rhs_strides);
        Gemm::new(lhs, rhs).run(out, threads);
        return Ok(());
    }
    let product = |index: usize, part: &mut [f32], threads: Threads| {
        let [i, j] = work.walk.at(index);
        let (a, b) = if k == 0 { (work.lhs, work.rhs) } else { (&work.lhs[i..], &work.rhs[j..]) };
        let lhs = Matrix::new(a, work.lhs_sizes, work.lhs_strides);
        let rhs = Matrix::new(b, work.rhs_sizes, work.rhs_strides);
        Gemm::new(lhs, rhs).run(part, threads);
    };
    // The choice must depend on sizes alone.
    if m * n * k < SMALL {
        let each = out.chunks_mut(m * n).enumerate();
        threads.each(each, |(index, part)| product(index, part, Threads::ONE));
    } else {
        out.chunks_mut(m * n).enumerate().for_each(|(index, part)| product(index, part, threads));
    }
    Ok(())
}

/// `alpha · a' · b' + beta · c`, where `c` broadcasts and a prime is a transpose that attributes ask for.
pub(super) fn gemm(call: &mut Call<'_>) -> Result<()> {
    let flag = |name: &str| call.node.int(name).map(|v| v.unwrap_or(0) != 0);
    let scale = |name: &str| call.node.float(name).map(|v| v.unwrap_or(1.0));
    let (alpha, beta) = (scale("alpha")?, scale("beta")?);
    let matrix = |i: usize, transpose: bool| -> Result<Matrix<'_>> {
        let view = call.input(i)?;
        let [rows, cols] = view.dims else {
            return Err(Error::new(Code::TYPES, format!("operand {i} of Gemm is no matrix")));
        };
        let matrix = Matrix::new(view.elements(), [*rows, *cols], [view.strides[0], view.strides[1]]);
        Ok(if transpose { matrix.t() } else { matrix })
    };
    let (lhs, rhs) = (matrix(0, flag("transA")?)?, matrix(1, flag("transB")?)?);
    if lhs.cols() != rhs.rows() {
        let message = format!("inner sizes {} and {} of a matrix product differ", lhs.cols(), rhs.rows());
        return Err(Error::new(Code::TYPES, message));
    }
    let (bias, threads, out) = (call.get(2), call.threads, call.output(0)?);
    let (dims, out) = (out.dims, out.elements::<f32>());
    let product = Gemm::new(lhs, rhs).scaled(alpha);
    match bias {
        Some(c) if beta != 0.0 => {
            fill(&c, dims, out);
            product.accumulated(beta).run(out, threads);
        }
        _ => product.run(out, threads),
    }
    Ok(())
}

/// Writes `c`, broadcast to `dims`, to `out`.
fn fill(c: &View<'_>, dims: &[usize], out: &mut [f32]) {
    let walk = Walk::new(dims, [&broadcast(c, dims)]);
    let (from, [step]) = (c.elements::<f32>(), walk.inner());
    walk.runs(0, out.len(), |start, len, [i]| {
        let run = out[start..start + len].iter_mut().enumerate();
        run.for_each(|(j, y)| *y = from[i + j * step]);
    });
}
