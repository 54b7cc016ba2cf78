//! Optimiser steps, each element in `f64` and rounded once.
use crate::{Call, math::vectorised, threads::PIECE};
use graft_ir::Result;

/// `graft.AdamW (p, g, m, v, lr, step) => (p', m', v')` with decoupled decay and bias correction (Loshchilov, Hutter,
/// arXiv 1711.05101): `m' = β₁m + (1−β₁)g`, `v' = β₂v + (1−β₂)g²`,
/// `p' = p − lr·decay·p − lr·(m'/(1−β₁ᵗ)) / (√(v'/(1−β₂ᵗ)) + ε)`.
pub(super) fn adamw(call: &mut Call<'_>) -> Result<()> {
    let attr = |name: &str, default: f32| call.node.float(name).map(|v| f64::from(v.unwrap_or(default)));
    let (beta1, beta2) = (attr("beta1", 0.9)?, attr("beta2", 0.999)?);
    let (eps, decay) = (attr("epsilon", 1e-8)?, attr("weight_decay", 0.01)?);
    let lr = f64::from(call.scalar(4)?);
    let step = call.input(5)?.elements::<i64>().first().copied().unwrap_or(1) as f64;
    let (correct1, correct2) = (1.0 - beta1.powf(step), 1.0 - beta2.powf(step));
    let g = call.input(1)?.elements::<f32>();
    let (p, m, v) = (call.seeded(0, 0)?, call.seeded(2, 1)?, call.seeded(3, 2)?);
    let state = m.chunks_mut(PIECE).zip(v.chunks_mut(PIECE));
    call.threads.each(p.chunks_mut(PIECE).zip(state).zip(g.chunks(PIECE)), |((p, (m, v)), g)| {
        vectorised(
            #[inline(always)]
            || {
                let moments = m.iter_mut().zip(v.iter_mut());
                for ((p, (m, v)), &g) in p.iter_mut().zip(moments).zip(g) {
                    let g = f64::from(g);
                    let m_next = beta1 * f64::from(*m) + (1.0 - beta1) * g;
                    let v_next = beta2 * f64::from(*v) + (1.0 - beta2) * g * g;
                    let update = m_next / correct1 / ((v_next / correct2).sqrt() + eps);
                    let value = f64::from(*p);
                    *p = (value - lr * decay * value - lr * update) as f32;
                    (*m, *v) = (m_next as f32, v_next as f32);
                }
            },
        );
    });
    Ok(())
}

/// `graft.Sgd (p, g, lr) => (p')`: `p' = p − lr·(g + decay·p)`.
pub(super) fn sgd(call: &mut Call<'_>) -> Result<()> {
    let decay = f64::from(call.node.float("weight_decay")?.unwrap_or(0.0));
    let lr = f64::from(call.scalar(2)?);
    let g = call.input(1)?.elements::<f32>();
    let p = call.seeded(0, 0)?;
    call.threads.pieces(p, PIECE, |start, piece| {
        for (p, &g) in piece.iter_mut().zip(&g[start..]) {
            let value = f64::from(*p);
            *p = (value - lr * (f64::from(g) + decay * value)) as f32;
        }
    });
    Ok(())
}
