//! Matrix products.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::Attr;

pub(super) const ROWS: &[Row] = &[("Gemm", gemm), ("MatMul", matmul)];

/// Each term of the sum is rounded once and each partial sum too.
fn bound(inner: usize) -> Bound {
    Bound::Terms(inner as f64 + 4.0)
}

fn matmul(d: &mut Draw) -> Case {
    let [m, k, n] = [d.size(), d.size(), d.size()];
    let batch: Vec<usize> = d.shape(2).into_iter().map(|b| b.min(4)).collect();
    let lead =
        |d: &mut Draw, rows: usize, columns: usize| [d.broadcast_of(&batch), vec![rows, columns]].concat();
    let mut a = lead(d, m, k);
    let mut b = lead(d, k, n);
    match d.below(8) {
        0 => a = vec![k],
        1 => b = vec![k],
        2 => (a, b) = (vec![k], vec![k]),
        _ => {}
    }
    Case::new(bound(k), [d.floats(&a, -1.0, 1.0), d.floats(&b, -1.0, 1.0)])
}

fn gemm(d: &mut Draw) -> Case {
    let [m, k, n] = [d.size(), d.size(), d.size()];
    let [t_a, t_b] = [d.flip(), d.flip()];
    let turned =
        |turn: bool, rows: usize, columns: usize| if turn { [columns, rows] } else { [rows, columns] };
    let mut operands = vec![d.floats(&turned(t_a, m, k), -1.0, 1.0), d.floats(&turned(t_b, k, n), -1.0, 1.0)];
    if d.flip() {
        let bias = d.broadcast_of(&[m, n]);
        operands.push(d.floats(&bias, -1.0, 1.0));
    }
    let mut case = Case::new(bound(k), operands).opset(d.pick(&[11, 13, 18]));
    for (name, on) in [("transA", t_a), ("transB", t_b)] {
        // A switch that is off may be left out.
        case = if on || d.flip() { case.int(name, i64::from(on)) } else { case };
    }
    for name in ["alpha", "beta"] {
        let value = d.pick(&[0.0, 1.0, -0.5, 1.5]);
        case = if d.flip() { case.attr(name, Attr::Float(value)) } else { case };
    }
    case
}
