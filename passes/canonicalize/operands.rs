//! The order of operands where it does not matter: constants stand last.
use crate::{constant, rewrite::is_commutative};
use graft_ir::Graph;

/// `Add (bias, h)` → `Add (h, bias)`, and so for every commutative op.
pub(super) fn constants_last(graph: &Graph) -> Graph {
    let constants = constant::values(graph);
    let mut out = graph.clone();
    for node in out.nodes.iter_mut().filter(|n| is_commutative(&n.op)) {
        if let [Some(a), Some(b)] = node.inputs[..]
            && constants.contains(&a)
            && !constants.contains(&b)
        {
            node.inputs.swap(0, 1);
        }
    }
    out
}
