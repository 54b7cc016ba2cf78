//! Products of matrices.
use super::{Case, case};
use crate::{draw::Draw, example::Example};
use graft_ir::Attr;

pub(crate) const CASES: &[Case] =
    &[case("MatMul", matmul), case("MatMul", vectors), case("Gemm", gemm), case("Einsum", einsum)];

/// Stacks of matrices whose leading axes broadcast.
fn matmul(d: &mut Draw) -> Example {
    let batch = d.dims(0, 2);
    let (m, k, n) = (d.size(), d.size(), d.size());
    let (a, b) = (d.narrowed(&batch), d.narrowed(&batch));
    let (a, b) = (d.any(&[&a[..], &[m, k]].concat()), d.any(&[&b[..], &[k, n]].concat()));
    d.node().x(a).x(b)
}

/// A vector on at least one side.
fn vectors(d: &mut Draw) -> Example {
    let (lead, k) = (d.dims(0, 2), d.size());
    let rows = [&lead[..], &[k]].concat();
    let columns = if lead.is_empty() { vec![k] } else { [&lead[1..], &[k, lead[0]]].concat() };
    let (a, b) = match d.below(3) {
        0 => (rows, vec![k]),
        1 => (vec![k], columns),
        _ => (vec![k], vec![k]),
    };
    let (a, b) = (d.any(&a), d.any(&b));
    d.node().x(a).x(b)
}

fn gemm(d: &mut Draw) -> Example {
    let (m, k, n) = (d.size(), d.size(), d.size());
    let (trans_a, trans_b) = (d.coin(), d.coin());
    let a = d.any(&if trans_a { [k, m] } else { [m, k] });
    let b = d.any(&if trans_b { [n, k] } else { [k, n] });
    let mut example = d.node().x(a).x(b);
    if d.coin() {
        let c = d.narrowed(&[m, n]);
        example = example.x(d.any(&c));
    }
    if d.coin() {
        example = example.with("alpha", Attr::Float(0.5)).with("beta", Attr::Float(-1.5));
    }
    example.int("transA", trans_a.into()).int("transB", trans_b.into())
}

/// Equations with everything that changes how the gradient is written: sums of one operand alone, diagonals, outer
/// products, results left to be inferred, ellipses that broadcast, in front and in the middle.
const EQUATIONS: &[&str] = &[
    "ij,jk->ik",
    "...h,...r,hro->...o",
    "bij,bjk",
    "ij->",
    "ij->j",
    "ii->i",
    "ii",
    "iij,jk->ki",
    "i,j->ij",
    "b n d, b m d -> b n m",
    "a...b,b...->a...",
    "...,...",
    "...i,...i->...",
];

fn einsum(d: &mut Draw) -> Example {
    let equation = d.one_of(EQUATIONS);
    let (spread, letters) = (d.dims(0, 2), [d.size(), d.size(), d.size(), d.size()]);
    let mut example = d.node().with("equation", Attr::Str(equation.into()));
    let left = equation.split("->").next().unwrap_or("").replace(' ', "");
    for term in left.split(',') {
        let mut dims = Vec::new();
        let (before, after) = term.split_once("...").map_or((term, None), |(b, a)| (b, Some(a)));
        let size = |letter: char| letters[letter as usize % letters.len()];
        dims.extend(before.chars().map(size));
        if let Some(after) = after {
            dims.extend(d.narrowed(&spread));
            dims.extend(after.chars().map(size));
        }
        example = example.x(d.any(&dims));
    }
    example
}
