//! Tensors: from ONNX's many ways to store elements to bytes, and back to the one that we write.
use crate::{
    external::External,
    proto::{TensorProto, tensor_proto::DataLocation},
};
use bytes::Bytes;
use graft_ir::{Code, DType, Error, Result, Tensor, count};

/// The tensor; `None` where its element type is one that the graph cannot express, so that only the original can be
/// carried along. Raw and external data are shared, typed data are converted.
pub(crate) fn read(proto: &TensorProto, external: &External) -> Result<Option<Tensor>> {
    if proto.segment.is_some() {
        return Err(Error::new(
            Code::MODEL,
            "the tensor is one segment of a larger one, which ONNX reserves",
        ));
    }
    let number = proto.data_type.unwrap_or(0);
    if number <= 0 {
        return Err(Error::new(Code::MODEL, "the tensor has no element type"));
    }
    let Some(dtype) = DType::from_onnx(number) else { return Ok(None) };
    let dims = sizes(&proto.dims)?;
    let is_external = proto.data_location == Some(DataLocation::External as i32);
    let data = if is_external {
        let wanted = count(&dims).and_then(|n| dtype.byte_len(n)).filter(|_| dtype != DType::String);
        let unknown = || Error::new(Code::EXTERNAL, format!("{dtype}{dims:?} cannot have external data"));
        external.read(proto, wanted.ok_or_else(unknown)?)?
    } else {
        stored(dtype, &dims, proto)?
    };
    Tensor::new(dtype, dims, data).map(Some)
}

/// Sizes that are not negative.
pub(crate) fn sizes(dims: &[i64]) -> Result<Vec<usize>> {
    let negative = |d: &i64| Error::new(Code::MODEL, format!("the tensor has a dimension of {d}"));
    dims.iter().map(|d| usize::try_from(*d).map_err(|_| negative(d))).collect()
}

/// The data within the message itself.
fn stored(dtype: DType, dims: &[usize], proto: &TensorProto) -> Result<Bytes> {
    if dtype == DType::String {
        return strings(dims, proto);
    }
    match &proto.raw_data {
        Some(raw) if !raw.is_empty() => Ok(raw.clone()),
        _ => Ok(typed(dtype, proto)),
    }
}

/// The typed field that ONNX prescribes for `dtype`, as bytes: narrow types lie in the low bits of wider numbers.
fn typed(dtype: DType, proto: &TensorProto) -> Bytes {
    let bytes = match dtype {
        DType::Float | DType::Complex64 => proto.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::Double | DType::Complex128 => proto.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::Int64 => proto.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::Uint64 => proto.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::Uint32 => proto.uint64_data.iter().flat_map(|v| (*v as u32).to_le_bytes()).collect(),
        DType::Int32 => proto.int32_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        _ if dtype.bits() == 16 => proto.int32_data.iter().flat_map(|v| (*v as u16).to_le_bytes()).collect(),
        _ => proto.int32_data.iter().map(|v| *v as u8).collect::<Vec<u8>>(),
    };
    bytes.into()
}

/// A string tensor's elements in the graph's form: each with its length before it.
fn strings(dims: &[usize], proto: &TensorProto) -> Result<Bytes> {
    if count(dims) != Some(proto.string_data.len()) {
        let message = format!("string{dims:?} does not fit {} strings", proto.string_data.len());
        return Err(Error::new(Code::MODEL, message));
    }
    let mut data = Vec::new();
    for s in &proto.string_data {
        data.extend((s.len() as u64).to_le_bytes());
        data.extend_from_slice(s);
    }
    Ok(data.into())
}

/// The message for a tensor: raw data, shared with it; strings one by one.
pub(crate) fn write(name: &str, tensor: &Tensor) -> Result<TensorProto> {
    let mut proto = TensorProto {
        dims: tensor.dims().iter().map(|&d| d as i64).collect(),
        data_type: Some(tensor.dtype() as i32),
        name: (!name.is_empty()).then(|| name.into()),
        ..TensorProto::default()
    };
    if tensor.dtype() == DType::String {
        proto.string_data = split_strings(tensor.data())?;
    } else {
        proto.raw_data = Some(tensor.data().clone());
    }
    Ok(proto)
}

fn split_strings(data: &Bytes) -> Result<Vec<Bytes>> {
    let broken = || Error::new(Code::GRAPH, "a string tensor's lengths do not fit its data");
    let (mut at, mut out) = (0, Vec::new());
    while at < data.len() {
        let length = data.get(at..at + 8).and_then(|b| Some(u64::from_le_bytes(b.try_into().ok()?)));
        let length = length.and_then(|n| usize::try_from(n).ok()).ok_or_else(broken)?;
        let end = (at + 8).checked_add(length).filter(|end| *end <= data.len()).ok_or_else(broken)?;
        out.push(data.slice(at + 8..end));
        at = end;
    }
    Ok(out)
}
