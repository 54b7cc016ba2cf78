//! SaLoRA: gates scale the ranks.
use crate::{
    Call, View, ViewMut,
    extended::{Extended, by_columns, check, column_dots, matrix, rows},
    math,
};
use graft_ir::Result;

/// `t` and `g` for the logits and draws of the gates.
fn gates(logits: &[f32], draws: &[f32], t: &mut [f32], g: &mut [f32]) {
    let given = logits.iter().zip(draws);
    for ((t, g), (&logit, &draw)) in t.iter_mut().zip(g).zip(given) {
        let noise = f64::from(draw).ln() - (1.0 - f64::from(draw)).ln();
        *t = math::sigmoid((f64::from(logit) + noise) as f32);
        let stretched = (f64::from(*t) * 12.0 - 1.0) / 10.0;
        *g = (if stretched < 0.0 { 0.0 } else { stretched }).min(1.0) as f32;
    }
}

/// The adapted linear; any result may be unwanted.
pub(super) fn salora(call: &mut Call<'_>) -> Result<()> {
    let (x, w) = (rows(&call.input(0)?), matrix(&call.input(1)?)?);
    let (a, b) = (matrix(&call.input(2)?)?, matrix(&call.input(3)?)?);
    let (gate, draw, threads) = (call.input(4)?, call.input(5)?, call.threads);
    let linear = Extended::new([x, w, a, b], call.scalar(6)?, threads)?;
    let (rank, n) = (a.cols(), x.rows() * a.cols());
    check(b.rows() == rank && [gate.len(), draw.len()] == [rank; 2])?;
    let (spare_h, rest) = call.scratch::<f32>().split_at_mut(n);
    let (q, rest) = rest.split_at_mut(n);
    let (spare_t, spare_g) = rest.split_at_mut(rank);
    let [h, t, g] = [(1, spare_h), (2, spare_t), (3, &mut spare_g[..rank])]
        .map(|(i, spare)| call.wanted(i).map_or(spare, ViewMut::elements));
    gates(gate.elements(), draw.elements(), t, g);
    linear.project(h);
    if let Some(y) = call.wanted(0) {
        by_columns(h, g, q, threads);
        linear.forward(q, y.elements());
    }
    Ok(())
}

/// The gradients of [`salora`]; work that only unwanted results need is skipped.
pub(super) fn salora_grad(call: &mut Call<'_>) -> Result<()> {
    let (dy, x, w) = (rows(&call.input(0)?), rows(&call.input(1)?), matrix(&call.input(2)?)?);
    let (a, b) = (matrix(&call.input(3)?)?, matrix(&call.input(4)?)?);
    let [h, t, g] = [call.input(8)?, call.input(9)?, call.input(10)?].map(|v: View<'_>| v.elements::<f32>());
    let threads = call.threads;
    let linear = Extended::new([x, w, a, b], call.scalar(7)?, threads)?;
    let (rank, n) = (a.cols(), x.rows() * a.cols());
    check(b.rows() == rank && dy.cols() == w.cols() && dy.rows() == x.rows())?;
    check(h.len() == n && [t.len(), g.len()] == [rank; 2])?;
    let [dx, da, db, dgate] = [0, 1, 2, 3].map(|i| call.wanted(i).map(|o| o.elements::<f32>()));
    let (dq, rest) = call.scratch::<f32>().split_at_mut(n);
    let spare = &mut rest[..n];
    if let Some(db) = db {
        by_columns(h, g, spare, threads);
        linear.db(spare, dy, db);
    }
    if dx.is_none() && da.is_none() && dgate.is_none() {
        return Ok(());
    }
    linear.dq(dy, dq);
    if let Some(dgate) = dgate {
        gate_gradient(dq, h, t, g, dgate);
    }
    by_columns(dq, g, spare, threads);
    if let Some(da) = da {
        linear.da(spare, da);
    }
    if let Some(dx) = dx {
        linear.dx(dy, spare, dx);
    }
    Ok(())
}

/// `dgate`, which sums over all tokens in their order.
fn gate_gradient(dq: &[f32], h: &[f32], t: &[f32], g: &[f32], dgate: &mut [f32]) {
    let sums = column_dots(dq, h, g.len());
    for (i, d) in dgate.iter_mut().enumerate() {
        let t = f64::from(t[i]);
        let is_free = g[i] > 0.0 && g[i] < 1.0;
        *d = if is_free { (sums[i] * 1.2 * t * (1.0 - t)) as f32 } else { 0.0 };
    }
}
