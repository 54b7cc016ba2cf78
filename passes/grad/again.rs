//! What the gradient computes again, because that costs less than keeping it.
use graft_ir::{Builder, Node, Result, Value};
use std::collections::HashMap;

/// Ops whose results are as large as an operand that is kept anyway, and are cheap to make of it: a dropped activation
/// is drawn again from the same numbers.
const AGAIN: &[&str] = &["graft.Dropout"];

/// Lets the nodes behind the first `n_forward` read copies of such results, each made just before it is first read.
pub(super) fn recompute(n_forward: usize, b: &mut Builder<'_>) -> Result<()> {
    let backward = b.graph.nodes.split_off(n_forward);
    let made: HashMap<Value, Node> = b
        .graph
        .nodes
        .iter()
        .filter(|n| AGAIN.contains(&n.op.as_str()))
        .filter_map(|n| Some((n.output(0)?, n.clone())))
        .collect();
    let mut copies: HashMap<Value, Value> = HashMap::new();
    for mut node in backward {
        for v in node.inputs.iter_mut().flatten() {
            let Some(original) = made.get(v) else { continue };
            if !copies.contains_key(v) {
                let name = b.graph.name(*v).to_string();
                let name = b.scope("grad.").fresh(&name);
                let copy = b.graph.add_value(name, b.graph[*v].ty.clone());
                b.append(Node { outputs: vec![Some(copy)], ..original.clone() })?;
                copies.insert(*v, copy);
            }
            *v = copies[v];
        }
        b.graph.nodes.push(node);
    }
    Ok(())
}
