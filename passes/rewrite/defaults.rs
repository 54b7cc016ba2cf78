//! What an ONNX op takes an attribute to be where a node does not give it, so that a rule and a model may spell a
//! node differently and mean the same.
use graft_ir::{Attr, Node};

/// Op (`Reduce*` stands for the family), attribute, default. Only what rules and exporters have been seen to spell.
const INTS: &[(&str, &str, i64)] = &[
    ("Cast", "saturate", 1),
    ("CumSum", "exclusive", 0),
    ("CumSum", "reverse", 0),
    ("DequantizeLinear", "axis", 1),
    ("DequantizeLinear", "block_size", 0),
    ("Flatten", "axis", 1),
    ("Gather", "axis", 0),
    ("Gemm", "transA", 0),
    ("Gemm", "transB", 0),
    ("LayerNormalization", "axis", -1),
    ("LayerNormalization", "stash_type", 1),
    ("LogSoftmax", "axis", -1),
    ("OneHot", "axis", -1),
    ("Reduce*", "keepdims", 1),
    ("Reduce*", "noop_with_empty_axes", 0),
    ("Reshape", "allowzero", 0),
    ("Shape", "start", 0),
    ("Softmax", "axis", -1),
    ("Split", "axis", 0),
    ("Trilu", "upper", 1),
];

const FLOATS: &[(&str, &str, f32)] =
    &[("Gemm", "alpha", 1.0), ("Gemm", "beta", 1.0), ("LayerNormalization", "epsilon", 1e-5)];

/// The attribute of `node`, or what it is by default.
pub(super) fn attr(node: &Node, name: &str) -> Option<Attr> {
    let family = if node.op.starts_with("Reduce") { "Reduce*" } else { &*node.op };
    let int = || INTS.iter().find(|row| (row.0, row.1) == (family, name)).map(|row| Attr::Int(row.2));
    let float = || FLOATS.iter().find(|row| (row.0, row.1) == (family, name)).map(|row| Attr::Float(row.2));
    node.attrs.get(name).cloned().or_else(int).or_else(float)
}
