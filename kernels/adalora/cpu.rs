//! AdaLoRA: singular values scale the ranks.
use crate::{
    Call, ViewMut,
    extended::{Extended, by_columns, check, column_dots, matrix, rows},
};
use graft_ir::Result;

/// The adapted linear; either result may be unwanted.
pub(super) fn adalora(call: &mut Call<'_>) -> Result<()> {
    let (x, w) = (rows(&call.input(0)?), matrix(&call.input(1)?)?);
    let (a, b, e) = (matrix(&call.input(2)?)?, matrix(&call.input(3)?)?, call.input(4)?);
    let linear = Extended::new([x, w, a, b], call.scalar(5)?, call.threads)?;
    let n = x.rows() * a.cols();
    check([b.rows(), e.len()] == [a.cols(); 2])?;
    let (q, spare) = call.scratch::<f32>().split_at_mut(n);
    let h = call.wanted(1).map_or(&mut spare[..n], ViewMut::elements);
    linear.project(h);
    if let Some(y) = call.wanted(0) {
        by_columns(h, e.elements(), q, call.threads);
        linear.forward(q, y.elements());
    }
    Ok(())
}

/// The gradients of [`adalora`]; work that only unwanted results need is skipped.
pub(super) fn adalora_grad(call: &mut Call<'_>) -> Result<()> {
    let (dy, x, w) = (rows(&call.input(0)?), rows(&call.input(1)?), matrix(&call.input(2)?)?);
    let (a, b) = (matrix(&call.input(3)?)?, matrix(&call.input(4)?)?);
    let (e, h) = (call.input(5)?.elements::<f32>(), call.input(7)?.elements::<f32>());
    let linear = Extended::new([x, w, a, b], call.scalar(6)?, call.threads)?;
    let n = x.rows() * a.cols();
    check([b.rows(), e.len()] == [a.cols(); 2] && h.len() == n)?;
    check(dy.cols() == w.cols() && dy.rows() == x.rows())?;
    let [dx, da, db, de] = [0, 1, 2, 3].map(|i| call.wanted(i).map(|o| o.elements::<f32>()));
    let (dq, rest) = call.scratch::<f32>().split_at_mut(n);
    let spare = &mut rest[..n];
    if let Some(db) = db {
        by_columns(h, e, spare, call.threads);
        linear.db(spare, dy, db);
    }
    if dx.is_none() && da.is_none() && de.is_none() {
        return Ok(());
    }
    linear.dq(dy, dq);
    if let Some(de) = de {
        de.iter_mut().zip(column_dots(dq, h, e.len())).for_each(|(d, sum)| *d = sum as f32);
    }
    by_columns(dq, e, spare, call.threads);
    if let Some(da) = da {
        linear.da(spare, da);
    }
    if let Some(dx) = dx {
        linear.dx(dy, spare, dx);
    }
    Ok(())
}
