//! Optimiser steps, each element in `f64` and rounded once.
use crate::{Call, math::vectorised, threads::PIECE};
use graft_ir::Result;

/// The coefficients of AdamW.
#[derive(Clone, Copy)]
struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
    decay: f64,
    lr: f64,
}

impl AdamW {
    /// The bias corrections at a step.
    fn corrections(self, step: i64) -> (f64, f64) {
        (1.0 - self.beta1.powf(step as f64), 1.0 - self.beta2.powf(step as f64))
    }
    /// Updates a piece, each element with its bias corrections.
    #[inline(always)]
    fn update(
        self,
        p: &mut [f32],
        (m, v): (&mut [f32], &mut [f32]),
        g: &[f32],
        corrections: impl Iterator<Item = (f64, f64)>,
    ) {
        let moments = m.iter_mut().zip(v.iter_mut());
        for (((p, (m, v)), &g), (correct1, correct2)) in p.iter_mut().zip(moments).zip(g).zip(corrections) {
            let g = f64::from(g);
            let m_next = self.beta1 * f64::from(*m) + (1.0 - self.beta1) * g;
            let v_next = self.beta2 * f64::from(*v) + (1.0 - self.beta2) * g * g;
            let update = m_next / correct1 / ((v_next / correct2).sqrt() + self.eps);
            let value = f64::from(*p);
            *p = (value - self.lr * self.decay * value - self.lr * update) as f32;
            (*m, *v) = (m_next as f32, v_next as f32);
        }
    }
}

/// `graft.AdamW (p, g, m, v, lr, step) => (p', m', v')` with decoupled decay and bias correction (Loshchilov, Hutter,
/// arXiv 1711.05101): `m' = β₁m + (1−β₁)g`, `v' = β₂v + (1−β₂)g²`,
/// `p' = p − lr·decay·p − lr·(m'/(1−β₁ᵗ)) / (√(v'/(1−β₂ᵗ)) + ε)`. There is one step t for all elements, or one for each.
pub(super) fn adamw(call: &mut Call<'_>) -> Result<()> {
    let attr = |name: &str, default: f32| call.node.float(name).map(|v| f64::from(v.unwrap_or(default)));
    let (beta1, beta2) = (attr("beta1", 0.9)?, attr("beta2", 0.999)?);
    let (eps, decay) = (attr("epsilon", 1e-8)?, attr("weight_decay", 0.01)?);
    let rule = AdamW { beta1, beta2, eps, decay, lr: f64::from(call.scalar(4)?) };
    let steps = call.input(5)?.elements::<i64>();
    let g = call.input(1)?.elements::<f32>();
    let (p, m, v) = (call.seeded(0, 0)?, call.seeded(2, 1)?, call.seeded(3, 2)?);
    let state = m.chunks_mut(PIECE).zip(v.chunks_mut(PIECE));
    let pieces = p.chunks_mut(PIECE).zip(state).zip(g.chunks(PIECE));
    if let &[step] = steps {
        let same = rule.corrections(step);
        call.threads.each(pieces, |((p, state), g)| {
            vectorised(
                #[inline(always)]
                || rule.update(p, state, g, std::iter::repeat(same)),
            );
        });
        return Ok(());
    }
    call.threads.each(pieces.zip(steps.chunks(PIECE)), |(((p, state), g), steps)| {
        let corrections = each_correction(rule, steps);
        rule.update(p, state, g, corrections.into_iter());
    });
    Ok(())
}

/// The bias corrections of each element; few steps differ, and powers are dear.
fn each_correction(rule: AdamW, steps: &[i64]) -> Vec<(f64, f64)> {
    let mut known: Vec<(i64, (f64, f64))> = Vec::new();
    let mut of = |step: i64| match known.iter().find(|(k, _)| *k == step) {
        Some(&(_, corrections)) => corrections,
        None => {
            known.push((step, rule.corrections(step)));
            rule.corrections(step)
        }
    };
    steps.iter().map(|&step| of(step)).collect()
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
