//! Maps of named tensors as files: safetensors and npz, told apart by the extension.
use crate::{npz, safetensors};
use bytes::Bytes;
use graft_ir::{Code, Error, Result, Tensor};
use std::{collections::BTreeMap, path::Path};

/// A format of named tensors.
enum Format {
    Safetensors,
    Npz,
}

/// Reads a `.safetensors` or `.npz` file. A damaged one is a [`Code::DATA`] error that names the file.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let format = Format::of(path)?;
    let place = |e: Error| e.at(path.display().to_string());
    let bytes = std::fs::read(path).map_err(|e| place(Error::new(Code::IO, format!("cannot read: {e}"))))?;
    match format {
        Format::Safetensors => {
            safetensors::decode(&Bytes::from(bytes), safetensors::NOTE).map(|(tensors, _)| tensors)
        }
        Format::Npz => npz::decode(&bytes),
    }
    .map_err(place)
}

/// Refuses a name that is neither `.safetensors` nor `.npz`.
pub fn check_name(path: &Path) -> Result<()> {
    Format::of(path).map(drop)
}

/// Writes a `.safetensors` or `.npz` file under a temporary name that is then renamed; the same tensors always give
/// the same bytes.
pub fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let bytes = match Format::of(path)? {
        Format::Safetensors => safetensors::encode(tensors, None)?,
        Format::Npz => npz::encode(tensors)?,
    };
    graft_onnx::atomic_write(path, &bytes)
}

/// Reads a safetensors file that carries a note of ours: its tensors and the note.
pub fn read_with_note(path: &Path) -> Result<(BTreeMap<String, Tensor>, Option<String>)> {
    let place = |e: Error| e.at(path.display().to_string());
    let bytes = std::fs::read(path).map_err(|e| place(Error::new(Code::IO, format!("cannot read: {e}"))))?;
    safetensors::decode(&Bytes::from(bytes), safetensors::NOTE).map_err(place)
}

/// Writes a safetensors file that carries a note of ours (JSON, say) in its header.
pub fn write_with_note(path: &Path, tensors: &BTreeMap<String, Tensor>, note: &str) -> Result<()> {
    let bytes = safetensors::encode(tensors, Some((safetensors::NOTE, note)))?;
    graft_onnx::atomic_write(path, &bytes)
}

impl Format {
    fn of(path: &Path) -> Result<Format> {
        match path.extension().and_then(|e| e.to_str()) {
            Some("safetensors") => Ok(Format::Safetensors),
            Some("npz") => Ok(Format::Npz),
            _ => {
                let message = format!("`{}` is neither `.safetensors` nor `.npz`", path.display());
                Err(Error::new(Code::USAGE, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_ir::DType;

    fn sample() -> BTreeMap<String, Tensor> {
        let half = Tensor::from_f64(DType::Float16, &[3], [1.0, -0.5, 2.0]).unwrap();
        let flags = Tensor::from_f64(DType::Bool, &[2, 1], [1.0, 0.0]).unwrap();
        BTreeMap::from([
            ("ids".into(), Tensor::i64(&[2, 2], &[1, 2, 3, -4])),
            ("x/y:0".into(), Tensor::f32(&[], &[0.25])),
            ("half".into(), half),
            ("flags".into(), flags),
            ("none".into(), Tensor::f32(&[0, 4], &[])),
        ])
    }

    #[test]
    fn both_formats_keep_everything_and_are_deterministic() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.safetensors", "a.npz"] {
            let path = dir.path().join(name);
            write(&path, &sample()).unwrap();
            assert_eq!(read(&path).unwrap(), sample(), "{name}");
            let first = std::fs::read(&path).unwrap();
            write(&path, &sample()).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), first, "{name}");
        }
    }

    #[test]
    fn damaged_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.safetensors", "a.npz"] {
            let path = dir.path().join(name);
            write(&path, &sample()).unwrap();
            let whole = std::fs::read(&path).unwrap();
            for cut in 0..whole.len() {
                std::fs::write(&path, &whole[..cut]).unwrap();
                // A zip directory stands at the end, so a cut file has none; a safetensors file ends with its data.
                let error = read(&path).expect_err("a cut file");
                assert_eq!(error.code, Code::DATA, "{name} cut at {cut}: {error}");
            }
        }
    }

    #[test]
    fn other_extensions_are_refused() {
        assert_eq!(read(Path::new("a.bin")).unwrap_err().code, Code::USAGE);
    }
}
