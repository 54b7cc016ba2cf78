//! LoRA: nothing happens in rank space.
use crate::{
    Call,
    extended::{Extended, check, matrix, rows},
};
use graft_ir::Result;

/// `h = x·a; y = x·w + scale·(h·b)`; either result may be unwanted.
pub(super) fn lora(call: &mut Call<'_>) -> Result<()> {
    let (x, w) = (rows(&call.input(0)?), matrix(&call.input(1)?)?);
    let (a, b) = (matrix(&call.input(2)?)?, matrix(&call.input(3)?)?);
    let linear = Extended::new([x, w, a, b], call.scalar(4)?, call.threads)?;
    check(a.cols() == b.rows())?;
    let h = match call.wanted(1) {
        Some(h) => h.elements::<f32>(),
        None => &mut call.scratch::<f32>()[..x.rows() * a.cols()],
    };
    linear.project(h);
    if let Some(y) = call.wanted(0) {
        linear.forward(h, y.elements());
    }
    Ok(())
}

/// The gradients of [`lora`]; work that only unwanted results need is skipped.
pub(super) fn lora_grad(call: &mut Call<'_>) -> Result<()> {
    let (dy, x, w) = (rows(&call.input(0)?), rows(&call.input(1)?), matrix(&call.input(2)?)?);
    let (a, b, h) = (matrix(&call.input(3)?)?, matrix(&call.input(4)?)?, call.input(6)?);
    let linear = Extended::new([x, w, a, b], call.scalar(5)?, call.threads)?;
    check(a.cols() == b.rows() && dy.cols() == w.cols() && dy.rows() == x.rows())?;
    check(h.len() == x.rows() * a.cols())?;
    let [dx, da, db] = [0, 1, 2].map(|i| call.wanted(i).map(|o| o.elements::<f32>()));
    if let Some(db) = db {
        linear.db(h.elements(), dy, db);
    }
    if dx.is_none() && da.is_none() {
        return Ok(());
    }
    let dh = &mut call.scratch::<f32>()[..x.rows() * a.cols()];
    linear.dq(dy, dh);
    if let Some(da) = da {
        linear.da(dh, da);
    }
    if let Some(dx) = dx {
        linear.dx(dy, dh, dx);
    }
    Ok(())
}
