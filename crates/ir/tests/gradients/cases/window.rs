//! Pooling of whole channels.
use super::{Case, case};
use crate::draw::Draw;
use graft_ir::Array;

pub(crate) const CASES: &[Case] = &[
    case("GlobalAveragePool", |d| {
        let dims = image(d);
        let x = d.any(&dims);
        d.node().x(x)
    }),
    case("GlobalMaxPool", |d| {
        let dims = image(d);
        let x: Array = d.distinct(&dims, 0);
        d.node().x(x)
    }),
];

/// Batch, channels and up to two axes that are not empty.
fn image(d: &mut Draw) -> Vec<usize> {
    let (lead, behind) = ([d.size(), d.size()], d.dims(1, 2));
    lead.into_iter().chain(behind.into_iter().map(|n| n.max(1))).collect()
}
