//! The safetensors format; the crate of that name checks the header (sizes, offsets, no gaps, no overlaps).
use bytes::Bytes;
use graft_ir::{Code, DType, Error, Result, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::{BTreeMap, HashMap};

/// The header entry that holds a note of ours.
pub(crate) const NOTE: &str = "graft";

/// Their element types and ours.
const DTYPES: &[(Dtype, DType)] = &[
    (Dtype::BOOL, DType::Bool),
    (Dtype::U8, DType::Uint8),
    (Dtype::I8, DType::Int8),
    (Dtype::U16, DType::Uint16),
    (Dtype::I16, DType::Int16),
    (Dtype::U32, DType::Uint32),
    (Dtype::I32, DType::Int32),
    (Dtype::U64, DType::Uint64),
    (Dtype::I64, DType::Int64),
    (Dtype::F16, DType::Float16),
    (Dtype::BF16, DType::Bfloat16),
    (Dtype::F32, DType::Float),
    (Dtype::F64, DType::Double),
    (Dtype::C64, DType::Complex64),
    (Dtype::F8_E4M3, DType::Float8e4m3fn),
    (Dtype::F8_E4M3FNUZ, DType::Float8e4m3fnuz),
    (Dtype::F8_E5M2, DType::Float8e5m2),
    (Dtype::F8_E5M2FNUZ, DType::Float8e5m2fnuz),
    (Dtype::F8_E8M0, DType::Float8e8m0),
];

/// The tensors in `bytes`, which they share, and the entry `note` of the header's notes.
pub(crate) fn decode(bytes: &Bytes, note: &str) -> Result<(BTreeMap<String, Tensor>, Option<String>)> {
    let damaged = |e: safetensors::SafeTensorError| {
        Error::new(Code::DATA, format!("not a safetensors file, or a damaged one: {e}"))
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let note = header.metadata().as_ref().and_then(|notes| notes.get(note).cloned());
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let tensor = |(name, view): (&str, TensorView<'_>)| {
        let dtype = dtype(view.dtype()).map_err(|e| e.at(format!("tensor `{name}`")))?;
        let tensor = Tensor::new(dtype, view.shape().to_vec(), bytes.slice_ref(view.data()));
        Ok((
            name.to_string(),
            tensor.map_err(|e| Error { code: Code::DATA, ..e }.at(format!("tensor `{name}`")))?,
        ))
    };
    Ok((file.iter().map(tensor).collect::<Result<_>>()?, note))
}

/// The bytes of a file with these tensors, and one entry of notes. (Only one, because the crate keeps them in a map
/// whose order differs from run to run.)
pub(crate) fn encode(tensors: &BTreeMap<String, Tensor>, note: Option<(&str, &str)>) -> Result<Vec<u8>> {
    let view = |(name, t): (&String, &'_ Tensor)| {
        let theirs = DTYPES.iter().find(|row| row.1 == t.dtype()).map(|row| row.0);
        let unsupported = || {
            Error::new(Code::DATA, format!("tensor `{name}`: {} cannot be stored as safetensors", t.dtype()))
        };
        Ok((name.clone(), theirs.ok_or_else(unsupported)?, t.clone()))
    };
    let rows = tensors.iter().map(view).collect::<Result<Vec<_>>>()?;
    let failed = |e: safetensors::SafeTensorError| Error::new(Code::DATA, format!("cannot be stored: {e}"));
    let views = rows
        .iter()
        .map(|(name, dtype, t)| Ok((name.as_str(), TensorView::new(*dtype, t.dims().to_vec(), t.data())?)))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(failed)?;
    let notes = note.map(|(key, value)| HashMap::from([(key.to_string(), value.to_string())]));
    safetensors::serialize(views, notes).map_err(failed)
}

fn dtype(theirs: Dtype) -> Result<DType> {
    let ours = DTYPES.iter().find(|row| row.0 == theirs).map(|row| row.1);
    ours.ok_or_else(|| Error::new(Code::DATA, format!("elements of type {theirs:?} are not supported")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this header and `n` bytes of data.
    fn file(header: &str, n: usize) -> Bytes {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; n]);
        bytes.into()
    }

    #[test]
    fn hostile_headers_are_errors() {
        for (header, n) in [
            (r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#, 4),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4),
            (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8),
            (
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
                4,
            ),
            (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999]}}"#, 4),
            (r#"{"a":{"dtype":"F9","shape":[1],"data_offsets":[0,4]}}"#, 4),
            (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 5),
            ("[]", 0),
        ] {
            assert_eq!(decode(&file(header, n), NOTE).unwrap_err().code, Code::DATA, "{header}");
        }
        let mut lying = u64::MAX.to_le_bytes().to_vec();
        lying.extend(b"{}");
        assert_eq!(decode(&lying.into(), NOTE).unwrap_err().code, Code::DATA);
    }

    #[test]
    fn tensors_share_the_file() {
        let tensors = BTreeMap::from([("a".to_string(), Tensor::f32(&[2], &[1.0, 2.0]))]);
        let bytes = Bytes::from(encode(&tensors, Some((NOTE, "a note"))).unwrap());
        let (read, note) = decode(&bytes, NOTE).unwrap();
        assert_eq!(read, tensors);
        assert_eq!(note.as_deref(), Some("a note"));
        assert!(bytes.as_ptr_range().contains(&read["a"].data().as_ptr()));
    }
}
