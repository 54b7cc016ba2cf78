//! LoRA as a handful of matrix products: the adapter's up-projection accumulates into the base product.
use crate::{
    Call, View,
    gemm::{Gemm, Matrix},
};
use graft_ir::{Code, Error, Result};

/// A rank-2 operand.
fn matrix<'a>(view: &View<'a>) -> Result<Matrix<'a>> {
    match view.dims {
        [rows, cols] => Ok(Matrix::new(view.elements(), [*rows, *cols], [view.strides[0], view.strides[1]])),
        dims => Err(Error::new(Code::TYPES, format!("expected a matrix, found sizes {dims:?}"))),
    }
}

/// An activation (…, width) as rows.
fn rows<'a>(view: &View<'a>) -> Matrix<'a> {
    let width = view.dims.last().copied().unwrap_or(1);
    let rows = view.dims[..view.dims.len().saturating_sub(1)].iter().product();
    Matrix::row_major(view.elements(), rows, width)
}

fn check(fits: bool) -> Result<()> {
    let message = "the sizes of activation, weight and adapter do not fit together";
    if fits { Ok(()) } else { Err(Error::new(Code::TYPES, message)) }
}

/// `h = x·a; y = x·w + scale·(h·b)`; either result may be unwanted.
pub(super) fn lora(call: &mut Call<'_>) -> Result<()> {
    let (x, w) = (rows(&call.input(0)?), matrix(&call.input(1)?)?);
    let (a, b, scale) = (matrix(&call.input(2)?)?, matrix(&call.input(3)?)?, call.scalar(4)?);
    let threads = call.threads;
    check([w.rows(), a.rows()] == [x.cols(); 2] && a.cols() == b.rows() && b.cols() == w.cols())?;
    let h = match call.wanted(1) {
        Some(h) => h.elements::<f32>(),
        None => &mut call.scratch::<f32>()[..x.rows() * a.cols()],
    };
    Gemm::new(x, a).run(h, threads);
    if let Some(y) = call.wanted(0) {
        let y = y.elements::<f32>();
        Gemm::new(x, w).run(y, threads);
        Gemm::new(Matrix::row_major(h, x.rows(), a.cols()), b).scaled(scale).accumulated(1.0).run(y, threads);
    }
    Ok(())
}

/// The gradients of [`lora`]; work that only unwanted results need is skipped.
pub(super) fn lora_grad(call: &mut Call<'_>) -> Result<()> {
    let (dy, x, w) = (rows(&call.input(0)?), rows(&call.input(1)?), matrix(&call.input(2)?)?);
    let (a, b, scale) = (matrix(&call.input(3)?)?, matrix(&call.input(4)?)?, call.scalar(5)?);
    let (h, threads) = (rows(&call.input(6)?), call.threads);
    check([w.rows(), a.rows()] == [x.cols(); 2] && [w.cols(), b.cols()] == [dy.cols(); 2])?;
    check(a.cols() == b.rows() && h.cols() == a.cols() && [x.rows(), h.rows()] == [dy.rows(); 2])?;
    let [dx, da, db] = [0, 1, 2].map(|i| call.wanted(i).map(|o| o.elements::<f32>()));
    if let Some(db) = db {
        Gemm::new(h.t(), dy).scaled(scale).run(db, threads);
    }
    if dx.is_none() && da.is_none() {
        return Ok(());
    }
    let dh = &mut call.scratch::<f32>()[..dy.rows() * a.cols()];
    Gemm::new(dy, b.t()).scaled(scale).run(dh, threads);
    let dh = Matrix::row_major(dh, dy.rows(), a.cols());
    if let Some(da) = da {
        Gemm::new(x.t(), dh).run(da, threads);
    }
    if let Some(dx) = dx {
        Gemm::new(dy, w.t()).run(dx, threads);
        Gemm::new(dh, a.t()).accumulated(1.0).run(dx, threads);
    }
    Ok(())
}
