//! Ops of ONNX Runtime that its optimiser puts in place of ONNX's own (domain `com.microsoft`, and two that it adds to
//! ONNX's domain), each written with ONNX's own again. Formulas: docs/ContribOperators.md of ONNX Runtime, and where
//! that is silent its CPU kernels, by which the file tests of these ops are judged.
mod activation;
mod attention;
mod grouped;
mod matmul;
mod norm;

use super::{attention::part, composed::composed};
use crate::{Attr, Builder, Code, Error, Node, OpDef, Result, Value};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    composed("com.microsoft.Attention", 1, attention::packed, "attention of x·w + bias, cut in q, k and v"),
    composed("com.microsoft.BiasGelu", 1, activation::bias_gelu, "y = gelu(x + bias)"),
    composed(
        "com.microsoft.EmbedLayerNormalization",
        1,
        norm::embed_layer_norm,
        "y = the layer norm of the sum of a token's, its place's and its segment's embedding",
    ),
    composed("com.microsoft.FastGelu", 1, activation::fast_gelu, "y = gelu(x + bias), by tanh"),
    composed("com.microsoft.FusedGemm", 1, matmul::fused_gemm, "y = activation(alpha · a' · b' + beta · c)"),
    composed(
        "com.microsoft.FusedMatMul",
        1,
        matmul::fused_matmul,
        "y = alpha · a' · b', operands transposed",
    ),
    composed("com.microsoft.Gelu", 1, activation::gelu_alone, "y = x/2 · (1 + erf(x/√2))"),
    composed(
        "com.microsoft.GroupQueryAttention",
        1,
        grouped::group_query,
        "causal attention of q to k and v of fewer heads, rotated or not",
    ),
    composed("com.microsoft.MultiHeadAttention", 1, attention::multi_head, "attention of q, k and v"),
    composed("com.microsoft.QuickGelu", 1, activation::quick_gelu, "y = x · σ(alpha · x)"),
    composed("com.microsoft.RotaryEmbedding", 1, attention::rotary, "pairs (a, b) of x turned by an angle"),
    composed(
        "com.microsoft.SkipLayerNormalization",
        1,
        norm::skip_layer_norm,
        "y = the layer norm of x + skip + bias",
    ),
    composed(
        "com.microsoft.SkipSimplifiedLayerNormalization",
        1,
        norm::skip_rms_norm,
        "y = the RMS norm of x + skip + bias",
    ),
    composed(
        "SimplifiedLayerNormalization",
        1,
        norm::rms_norm_alone,
        "y = x / √(mean of x² + epsilon) · scale",
    ),
];

/// Operand `i`; an error if it is left out.
fn operand(node: &Node, i: usize) -> Result<Value> {
    node.input(i).ok_or_else(|| Error::new(Code::TYPES, format!("operand {i} is missing")))
}

/// `x + term`; `x` where there is no term.
fn plus(b: &mut Builder<'_>, x: Value, term: Option<Value>) -> Result<Value> {
    term.map_or(Ok(x), |term| b.add(x, term))
}

/// Whether an attribute that is 0 or 1 is 1; it is 0 where it is left out.
fn is_set(node: &Node, attr: &str) -> Result<bool> {
    Ok(node.int(attr)?.unwrap_or(0) != 0)
}

/// Refuses what this form of an op would need, by name.
fn refuse<T>(what: &str) -> Result<T> {
    Err(Error::new(Code::UNKNOWN_OP, format!("{what} is not supported"))
        .help("the op can be carried along in this form, but not run or differentiated"))
}

/// Consecutive parts of the last axis of `x`.
fn cut(b: &mut Builder<'_>, x: Value, sizes: &[i64]) -> Result<Vec<Value>> {
    let mut from = 0;
    let mut next = |&size: &i64| {
        from += size;
        part(b, x, from - size, from, 1)
    };
    sizes.iter().map(&mut next).collect()
}

/// Element `at` of `x` along axis `axis`, without that axis.
fn element(b: &mut Builder<'_>, x: Value, axis: i64, at: i64) -> Result<Value> {
    let index = b.constant("at", crate::Tensor::i64(&[], &[at]))?;
    b.push("element", Node::new("Gather", &[x, index], &[]).with("axis", Attr::Int(axis)))
}
