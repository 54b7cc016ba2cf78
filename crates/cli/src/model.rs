//! Reading models for commands: load, infer types, say what is odd.
use crate::ui::Ui;
use graft_ir::{Code, DType, Error, Graph, Result, Tensor, check, infer, parse};
use graft_onnx::Model;
use std::{io::Read as _, path::Path};

/// Loads a model (from stdin for `-`), verifies it, infers its types and warns of what a user should know.
pub(crate) fn load(path: &Path, ui: &Ui) -> Result<Model> {
    let place = || format!("model `{}`", path.display());
    let model = if path.as_os_str() == "-" { from_stdin() } else { graft_onnx::load(path) };
    let model = model.and_then(with_types).map_err(|e| e.at(place()))?;
    for line in &model.warnings {
        ui.warn(&format!("{}: {line}", path.display()));
    }
    let broken = non_finite(&model.graph);
    if !broken.is_empty() {
        ui.warn(&format!(
            "{}: weights with NaN or infinite values: `{}`",
            path.display(),
            broken.join("`, `")
        ));
    }
    Ok(model)
}

/// The model with the types of all its values, once it is known to be valid.
pub(crate) fn with_types(mut model: Model) -> Result<Model> {
    check(&model.graph)?;
    infer::infer(&mut model.graph)?;
    Ok(model)
}

/// ONNX, or ONNX text: no model in binary form begins with one of the characters that text begins with.
fn from_stdin() -> Result<Model> {
    let failed = |e| Error::new(Code::IO, format!("standard input cannot be read: {e}"));
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(failed)?;
    match bytes.trim_ascii_start().first() {
        None => Err(Error::new(Code::DECODE, "standard input is empty")),
        Some(b'<' | b'#') => {
            let not_text = |_| Error::new(Code::TEXT, "standard input is not UTF-8");
            let graph = parse(std::str::from_utf8(&bytes).map_err(not_text)?)?;
            Ok(Model { graph, origin: None, warnings: Vec::new() })
        }
        Some(_) => graft_onnx::decode(bytes.into(), None),
    }
}

/// The weights that hold NaN or infinite values.
fn non_finite(graph: &Graph) -> Vec<&str> {
    let broken = |t: &Tensor| t.dtype().is_float() && has_non_finite(t);
    let params = graph.params.iter().filter(|&&p| graph[p].tensor.as_ref().is_some_and(broken));
    params.map(|&p| graph.name(p)).collect()
}

/// Looks at exponents only, so that nothing is converted: all ones means NaN or infinite.
fn has_non_finite(t: &Tensor) -> bool {
    let data = t.data();
    match t.dtype() {
        DType::Float => data.chunks_exact(4).any(|c| c[3] & 0x7f == 0x7f && c[2] & 0x80 == 0x80),
        DType::Double => data.chunks_exact(8).any(|c| c[7] & 0x7f == 0x7f && c[6] & 0xf0 == 0xf0),
        DType::Float16 => data.chunks_exact(2).any(|c| c[1] & 0x7c == 0x7c),
        DType::Bfloat16 => data.chunks_exact(2).any(|c| c[1] & 0x7f == 0x7f && c[0] & 0x80 == 0x80),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_not_finite() {
        for dtype in [DType::Float, DType::Double, DType::Float16, DType::Bfloat16] {
            for (value, broken) in [(1.5, false), (6e4, false), (f64::NAN, true), (f64::INFINITY, true)] {
                let t = Tensor::from_f64(dtype, &[2], [0.0, value]).unwrap();
                assert_eq!(has_non_finite(&t), broken, "{dtype} {value}");
            }
        }
    }
}
