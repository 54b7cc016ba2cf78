//! NumPy's npz format: a zip archive of `.npy` arrays.
use graft_ir::{Code, DType, Error, Result, Tensor, count};
use npyz::{Endianness, NpyHeader, Order, TypeChar};
use std::{
    collections::BTreeMap,
    io::{Cursor, Read, Write},
};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// Our element types, NumPy's letter and size.
const DTYPES: &[(DType, TypeChar, u64)] = &[
    (DType::Bool, TypeChar::Bool, 1),
    (DType::Uint8, TypeChar::Uint, 1),
    (DType::Uint16, TypeChar::Uint, 2),
    (DType::Uint32, TypeChar::Uint, 4),
    (DType::Uint64, TypeChar::Uint, 8),
    (DType::Int8, TypeChar::Int, 1),
    (DType::Int16, TypeChar::Int, 2),
    (DType::Int32, TypeChar::Int, 4),
    (DType::Int64, TypeChar::Int, 8),
    (DType::Float16, TypeChar::Float, 2),
    (DType::Float, TypeChar::Float, 4),
    (DType::Double, TypeChar::Float, 8),
    (DType::Complex64, TypeChar::Complex, 8),
    (DType::Complex128, TypeChar::Complex, 16),
];

/// The arrays in an archive, by name.
pub(crate) fn decode(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|e| damaged(format!("not an npz file: {e}")))?;
    let mut tensors = BTreeMap::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| damaged(format!("entry {i} cannot be read: {e}")))?;
        let name = entry.name().map_err(|e| damaged(format!("entry {i} has no proper name: {e}")))?;
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_string();
        let tensor = array(&mut entry).map_err(|e| e.at(format!("array `{name}`")))?;
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(damaged(format!("array `{name}` stands there twice")));
        }
    }
    Ok(tensors)
}

/// One `.npy` file. Memory grows with the data that is there, not with what the header promises.
fn array(file: &mut impl Read) -> Result<Tensor> {
    let header = NpyHeader::from_reader(&mut *file).map_err(|e| damaged(format!("not an array: {e}")))?;
    let dtype = dtype(&header)?;
    let sizes: Option<Vec<usize>> = header.shape().iter().map(|&n| usize::try_from(n).ok()).collect();
    let sizes = sizes.ok_or_else(|| damaged("a size is larger than memory".into()))?;
    let wanted = count(&sizes).and_then(|n| dtype.byte_len(n));
    let wanted = wanted.ok_or_else(|| damaged("the sizes multiply to more than memory".into()))?;
    if header.order() == Order::Fortran && sizes.iter().filter(|&&n| n > 1).count() > 1 {
        return Err(damaged(
            "arrays in Fortran order are not supported; save it with `np.ascontiguousarray`".into(),
        ));
    }
    let mut data = Vec::new();
    let read = file.take(wanted as u64).read_to_end(&mut data);
    read.map_err(|e| damaged(format!("the data cannot be read: {e}")))?;
    // Reading on to the end makes the archive check its sum.
    let rest =
        std::io::copy(file, &mut std::io::sink()).map_err(|e| damaged(format!("damaged data: {e}")))?;
    if data.len() != wanted || rest != 0 {
        return Err(damaged(format!(
            "{dtype}{sizes:?} needs {wanted} bytes, found {}",
            data.len() as u64 + rest
        )));
    }
    Tensor::new(dtype, sizes, data.into()).map_err(|e| Error { code: Code::DATA, ..e })
}

fn dtype(header: &NpyHeader) -> Result<DType> {
    let npyz::DType::Plain(plain) = header.dtype() else {
        return Err(damaged("arrays of records are not supported".into()));
    };
    let row = DTYPES.iter().find(|row| row.1 == plain.type_char() && row.2 == plain.size_field());
    match row {
        Some(row) if row.2 == 1 || plain.endianness() == Endianness::Little => Ok(row.0),
        _ => Err(damaged(format!("elements of type `{plain}` are not supported"))),
    }
}

fn damaged(message: String) -> Error {
    Error::new(Code::DATA, message)
}

/// The bytes of an archive with these arrays, stored as `np.savez` does.
pub(crate) fn encode(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default());
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, tensor) in tensors {
        let failed = |e: &dyn std::fmt::Display| damaged(format!("array `{name}` cannot be stored: {e}"));
        let header = header(tensor).ok_or_else(|| failed(&format!("NumPy has no {}", tensor.dtype())))?;
        let options = options.large_file(tensor.data().len() >= 1 << 31);
        archive.start_file(format!("{name}.npy"), options).map_err(|e| failed(&e))?;
        archive.write_all(&header).and_then(|()| archive.write_all(tensor.data())).map_err(|e| failed(&e))?;
    }
    let file = archive.finish().map_err(|e| damaged(format!("the archive cannot be written: {e}")))?;
    Ok(file.into_inner())
}

/// The header of a `.npy` file of version 1.0: magic, length, a Python dictionary padded to 64 bytes.
fn header(tensor: &Tensor) -> Option<Vec<u8>> {
    let (_, letter, size) = DTYPES.iter().find(|row| row.0 == tensor.dtype())?;
    let endian = if *size == 1 { '|' } else { '<' };
    let sizes: String = tensor.dims().iter().map(|n| format!("{n}, ")).collect();
    let letter = letter.to_str();
    let text = format!("{{'descr': '{endian}{letter}{size}', 'fortran_order': False, 'shape': ({sizes}), }}");
    let padded = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(u16::try_from(padded).ok()?.to_le_bytes());
    header.extend(text.bytes());
    header.extend(std::iter::repeat_n(b' ', padded - text.len() - 1));
    header.push(b'\n');
    Some(header)
}
