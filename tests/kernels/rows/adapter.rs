//! Adapted linears and their gradients.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::Array;

pub(super) const ROWS: &[Row] = &[("graft.Lora", lora), ("graft.LoraGrad", lora_grad)];

/// Activation sizes (…, width) and the sizes of the weights.
struct Sizes {
    rows: Vec<usize>,
    d_in: usize,
    d_out: usize,
    rank: usize,
}

impl Sizes {
    fn draw(d: &mut Draw) -> Sizes {
        let n_axes = 1 + d.below(2);
        Sizes { rows: d.sizes(n_axes), d_in: d.size(), d_out: d.size(), rank: d.pick(&[1, 2, 4, 8, 16]) }
    }
    fn wide(&self, width: usize) -> Vec<usize> {
        self.rows.iter().copied().chain([width]).collect()
    }
    /// Roundings of a result: each sum over rows, inputs, outputs and ranks adds one for each term.
    fn bound(&self) -> Bound {
        let terms = self.rows.iter().product::<usize>() + self.d_in + self.d_out + self.rank;
        Bound::Terms(terms as f64 + 8.0)
    }
}

/// x, w, a, b, scale.
fn operands(s: &Sizes, d: &mut Draw) -> [Array; 5] {
    [
        d.floats(&s.wide(s.d_in), -1.0, 1.0),
        d.floats(&[s.d_in, s.d_out], -1.0, 1.0),
        d.floats(&[s.d_in, s.rank], -1.0, 1.0),
        d.floats(&[s.rank, s.d_out], -1.0, 1.0),
        d.floats(&[], -2.0, 2.0),
    ]
}

fn lora(d: &mut Draw) -> Case {
    let s = Sizes::draw(d);
    Case::new(s.bound(), operands(&s, d)).results(2)
}

fn lora_grad(d: &mut Draw) -> Case {
    let s = Sizes::draw(d);
    let dy = d.floats(&s.wide(s.d_out), -1.0, 1.0);
    let h = d.floats(&s.wide(s.rank), -1.0, 1.0);
    let forward = operands(&s, d);
    Case::new(s.bound(), [dy].into_iter().chain(forward).chain([h])).results(3)
}
