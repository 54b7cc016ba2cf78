//! Matrix products.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::Attr;
use std::collections::BTreeMap;

pub(super) const ROWS: &[Row] = &[("Einsum", einsum), ("Gemm", gemm), ("MatMul", matmul)];

/// Each term of the sum is rounded once and each partial sum too.
fn bound(inner: usize) -> Bound {
    Bound::Terms(inner as f64 + 4.0)
}

fn matmul(d: &mut Draw) -> Case {
    // Now and then a sum that is long enough to be cut.
    let k = if d.one_in(6) { 256 + d.below(200) } else { d.size() };
    let [m, n] = [d.size(), d.size()];
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

/// What models write, and what the gradients of it are.
const EQUATIONS: &[&str] = &[
    "ij,jk->ik",
    "bij,bjk->bik",
    "bhqd,bhkd->bhqk",
    "bhqk,bhkd->bqhd",
    "bnk,krs->brsn",
    "...h,...r,hro->...o",
    "...o,...r,hro->...h",
    "bth,btr,bto->hro",
    "...ij,...jk->...ik",
    "bn,anm,bm->ba",
    "i,j->ij",
    "i,i",
    "ii->i",
    "ii",
    "ij->ji",
    "ij->j",
    "abc->",
    "iij,jk->ki",
    "ab,bc,cd->ad",
    "i...->...",
    "ij,ij->ij",
    "ba,ca->cb",
];

/// A known equation, or one of any labels; `...` broadcasts.
fn einsum(d: &mut Draw) -> Case {
    let equation = if d.flip() { d.pick(EQUATIONS).to_string() } else { any_equation(d) };
    let most = if equation.contains("...") { 6 } else { 17 };
    let sizes: BTreeMap<char, usize> = ('a'..='z').map(|label| (label, d.size().min(most))).collect();
    let spread: Vec<usize> = d.shape(2).into_iter().map(|n| n.min(6)).collect();
    let terms = equation.split("->").next().unwrap_or_default();
    let operands: Vec<_> = terms
        .split(',')
        .map(|term| {
            let (before, after) = term.split_once("...").map_or((term, None), |(b, a)| (b, Some(a)));
            let of = |labels: &str| labels.chars().map(|label| sizes[&label]).collect::<Vec<_>>();
            let middle = after.map_or(Vec::new(), |_| d.broadcast_of(&spread));
            let dims = [of(before), middle, of(after.unwrap_or_default())].concat();
            d.floats(&dims, -1.0, 1.0)
        })
        .collect();
    let terms: usize = sizes.iter().filter(|(label, _)| equation.contains(**label)).map(|(_, n)| n).product();
    Case::new(Bound::Terms(terms as f64 + 8.0), operands).attr("equation", Attr::Str(equation))
}

/// Up to three terms of four labels, some twice in a term, and a result of some of them in any order.
fn any_equation(d: &mut Draw) -> String {
    let any = |d: &mut Draw| {
        let labels: String = (0..d.below(4)).map(|_| d.pick(&['a', 'b', 'c', 'd'])).collect();
        if d.one_in(4) { format!("{labels}...") } else { labels }
    };
    let terms: Vec<String> = (0..1 + d.below(3)).map(|_| any(d)).collect();
    let mut labels: Vec<char> = terms.concat().replace('.', "").chars().collect();
    labels.sort_unstable();
    labels.dedup();
    let mut result = String::new();
    while !labels.is_empty() {
        let label = labels.remove(d.below(labels.len()));
        result.extend(d.flip().then_some(label));
    }
    let spread = if terms.iter().any(|term| term.contains('.')) { "..." } else { "" };
    if d.flip() {
        format!("{}->{spread}{result}", terms.join(","))
    } else {
        format!("{}->{result}{spread}", terms.join(","))
    }
}
