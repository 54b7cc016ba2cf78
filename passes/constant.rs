//! Which values of a graph are the same in every run, and what they hold.
use crate::meta;
use graft_ir::{Array, Attr, DType, Data, Graph, Node, Tensor, Value};
use std::collections::HashSet;

/// Ops whose results differ from run to run although their operands do not.
const RANDOM: &[&str] = &["Bernoulli", "Dropout", "Multinomial", "RandomNormalLike", "RandomUniformLike"];

/// The values that are constant expressions: frozen weights, `Constant` nodes, and what is computed from these only.
///
/// A weight that is an input too can be overridden, and one that is trained changes: neither is constant.
pub fn values(graph: &Graph) -> HashSet<Value> {
    let inputs: HashSet<Value> = graph.inputs.iter().copied().collect();
    let frozen = |v: &Value| !inputs.contains(v) && !graph[*v].meta.contains_key(meta::TRAINABLE);
    let mut constant: HashSet<Value> = graph.params.iter().copied().filter(frozen).collect();
    for node in &graph.nodes {
        let mut reads = node.reads().peekable();
        let computed = reads.peek().is_some() && !RANDOM.contains(&&*node.op);
        if node.op == "Constant" || (computed && reads.all(|v| constant.contains(&v))) {
            constant.extend(node.defines());
        }
    }
    constant
}

/// The data of a weight that is frozen and cannot be overridden, unless it is elided.
pub fn of_param(graph: &Graph, v: Value) -> Option<&Tensor> {
    let data = &graph[v];
    let is_frozen = !data.meta.contains_key(meta::TRAINABLE) && !graph.inputs.contains(&v);
    data.tensor.as_ref().filter(|_| is_frozen)
}

/// What a `Constant` node holds; `None` for strings, sparse tensors and references to a call's attribute.
pub fn of_node(node: &Node) -> Option<Array> {
    let float =
        |dims, v: &[f32]| Array::float(DType::Float, dims, v.iter().copied().map(f64::from).collect());
    Some(match node.attrs.iter().next().filter(|_| node.op == "Constant")? {
        (key, Attr::Tensor(t)) if key == "value" => Array::from_tensor(t).ok()?,
        (key, Attr::Float(v)) if key == "value_float" => float(vec![], &[*v]),
        (key, Attr::Floats(v)) if key == "value_floats" => float(vec![v.len()], v),
        (key, Attr::Int(v)) if key == "value_int" => Array::int(DType::Int64, vec![], vec![*v]),
        (key, Attr::Ints(v)) if key == "value_ints" => Array::int(DType::Int64, vec![v.len()], v.clone()),
        _ => return None,
    })
}

/// Whether two constants are the same number or the same list of integers, whatever floating-point type each has:
/// a model in half precision holds rounded numbers, and one of 64 bits may hold more digits than a rule.
///
/// A list of one number counts as a number.
pub fn agree(a: &Array, b: &Array) -> bool {
    match (&a.data, &b.data) {
        (Data::Int(x), Data::Int(y)) => a.dims == b.dims && x == y,
        (Data::Float(x), Data::Float(y)) => {
            let number = |a: &Array| a.len() == 1 && a.dims.len() <= 1;
            number(a) && number(b) && (round(x[0], b.dtype) == y[0] || round(y[0], a.dtype) == x[0])
        }
        _ => false,
    }
}

/// `x`, rounded to a floating-point type.
fn round(x: f64, dtype: DType) -> f64 {
    Array::float(dtype, vec![], vec![x]).to_tensor().ok().and_then(|t| t.to_f64()).map_or(x, |v| v[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_across_types() {
        let number = |dtype, dims: &[usize], x| Array::float(dtype, dims.to_vec(), vec![round(x, dtype)]);
        let single = number(DType::Float, &[], std::f64::consts::SQRT_2);
        for dtype in [DType::Float16, DType::Bfloat16, DType::Float, DType::Double] {
            for dims in [&[][..], &[1]] {
                let other = number(dtype, dims, std::f64::consts::SQRT_2);
                assert!(agree(&single, &other) && agree(&other, &single), "{dtype}");
                assert!(!agree(&single, &number(dtype, dims, 1.5)), "{dtype}");
            }
        }
        assert!(!agree(&single, &number(DType::Float, &[1, 1], std::f64::consts::SQRT_2)));
    }

    #[test]
    fn integers_agree_with_their_shape() {
        let ints = |dims: &[usize], v: &[i64]| Array::int(DType::Int64, dims.to_vec(), v.to_vec());
        assert!(agree(&ints(&[1], &[-1]), &ints(&[1], &[-1])));
        assert!(!agree(&ints(&[1], &[-1]), &ints(&[], &[-1])));
        assert!(!agree(&ints(&[1], &[-1]), &Array::float(DType::Float, vec![1], vec![-1.0])));
    }
}
