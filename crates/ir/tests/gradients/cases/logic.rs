//! Selection.
use super::{Case, case};

pub(crate) const CASES: &[Case] = &[case("Where", |d| {
    let dims = d.dims(0, 3);
    let (condition, a, b) = (d.narrowed(&dims), d.narrowed(&dims), d.narrowed(&dims));
    let condition = d.bools(&condition);
    let (a, b) = (d.any(&a), d.any(&b));
    d.node().fed(condition).x(a).x(b)
})];
