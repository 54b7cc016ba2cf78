//! The text form: a strict subset of ONNX's textual syntax.
use crate::Dim;

/// A dimension in text: a number, an identifier, or a quoted polynomial.
pub(crate) fn dim(d: &Dim) -> String {
    let text = d.to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || text == "?";
    if plain { text } else { format!("\"{text}\"") }
}
