//! Operands in one form: constants stand last where the order does not matter, and the bounds of a `Slice` are constants
//! where its operand's shape tells them.
use crate::{constant, rewrite::is_commutative};
use graft_ir::{Builder, Dim, Graph, Node, Result, Tensor, Value, infer};

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

/// Bounds that are computed from shapes, and known all the same, as constants; the last axis counted from the end.
pub(super) fn known_bounds(graph: &Graph) -> Result<Graph> {
    let constants = constant::values(graph);
    let mut out = graph.clone();
    let mut b = Builder::new(&mut out);
    let mut is_changed = false;
    for mut node in std::mem::take(&mut b.graph.nodes) {
        for i in 1..if node.op == "Slice" { node.inputs.len() } else { 0 } {
            let Some(found) = bound(b.graph, &node, i) else { continue };
            let given = node.inputs[i].filter(|v| constants.contains(v));
            if given.and_then(|v| numbers(b.graph, v)).as_ref() != Some(&found) {
                let scope = crate::inline::scope(b.graph, &node);
                let bound = b.scope(scope).constant("bound", Tensor::i64(&[found.len()], &found))?;
                node.inputs[i] = Some(bound);
                is_changed = true;
            }
        }
        b.graph.nodes.push(node);
    }
    // What computed them is of no use now.
    if is_changed {
        out.sweep();
    }
    Ok(out)
}

/// What operand `i` of a `Slice` holds, where it is known.
fn bound(graph: &Graph, node: &Node, i: usize) -> Option<Vec<i64>> {
    let mut found = numbers(graph, node.input(i)?)?;
    let rank = node.input(0).and_then(|x| graph.shape(x)).map(|dims| dims.len() as i64);
    if let (3, [axis], Some(rank)) = (i, &mut found[..], rank)
        && *axis == rank - 1
    {
        *axis = -1;
    }
    Some(found)
}

fn numbers(graph: &Graph, v: Value) -> Option<Vec<i64>> {
    infer::known(graph, v)?.iter().map(Dim::as_const).collect()
}
