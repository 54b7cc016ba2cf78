//! The text form of graphs and functions: a strict subset of ONNX's textual syntax, which the official parser reads.
//!
//! Law: `print(parse(print(g))) == print(g)`. Not in the text are the data of large tensors (weights are then elided;
//! a tensor attribute becomes [`Attr::Elided`](crate::Attr::Elided)) and the types of values between nodes, which
//! inference finds again. What ONNX's syntax has no place for stands in `#!` comments, which only our parser reads:
//!
//! ```text
//! <ir_version: 10, opset_import: ["" : 21]>
//! g (float[batch, "2*seq", 4] x) => (float[batch, "2*seq", 2] y) <
//!   float[4, 2] w,  #! graft.role: "a", graft.trainable: ""
//!   float s = {1.5}
//! > {
//!   ["/lin/MatMul"] h = MatMul (x, w)
//!   y = Mul (h, s)  #! graft.method: "lora"
//! }
//! ```
//!
//! A param that is an input too stands in both lists. Sequences, maps and optionals have no type here: such a value
//! is written without one.
mod attrs;
mod data;
mod lexer;
mod parse;
mod print;

pub use parse::{parse, parse_functions};
pub(crate) use print::print_node;
pub use print::{PrintOptions, print};

use crate::Dim;

/// A dimension in text: a number, an identifier, or a quoted polynomial.
pub(crate) fn dim(d: &Dim) -> String {
    let text = d.to_string();
    let number = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if number || text == "?" { text } else { quotable(&text) }
}

/// A name in text: as it is if it is an identifier that means nothing else, otherwise in quotes.
fn quotable(name: &str) -> String {
    if is_identifier(name) && !is_keyword(name) { name.into() } else { quoted(name) }
}

/// A string in quotes; only quotes and backslashes are escaped, as the official parser has it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Whether the official parser reads this as one word.
fn is_identifier(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Words that the official parser takes for something else where a name may stand.
fn is_keyword(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    crate::DType::from_name(word).is_some()
        || ["seq", "map", "optional", "sparse_tensor", "inf", "infinity", "nan"].contains(&lower.as_str())
}

#[cfg(test)]
mod tests;
