//! Elements of tensors in text: numbers, strings, and the bits of small floats, as the official parser has them.
use crate::{DType, Tensor, tensor::count};

/// A constant as written.
pub(super) enum Literal<'a> {
    Number(&'a str),
    Text(String),
}

/// The tensor with these elements; the error says what is wrong with them.
pub(super) fn read(dtype: DType, dims: &[usize], elements: &[Literal<'_>]) -> Result<Tensor, String> {
    if count(dims) != Some(elements.len()) {
        return Err(format!("{dtype}{dims:?} does not hold {} elements", elements.len()));
    }
    let mut bytes = Vec::new();
    for element in elements {
        let wrong = |text: &str| format!("`{text}` is no element of a tensor of {dtype}");
        match element {
            Literal::Number(text) => push(dtype, text, &mut bytes).ok_or_else(|| wrong(text))?,
            Literal::Text(text) if dtype == DType::String => {
                bytes.extend((text.len() as u64).to_le_bytes());
                bytes.extend(text.as_bytes());
            }
            Literal::Text(text) => return Err(wrong(text)),
        }
    }
    Tensor::new(dtype, dims.to_vec(), bytes.into()).map_err(|e| e.message)
}

/// Appends one number; `None` if it is none of this type.
fn push(dtype: DType, text: &str, out: &mut Vec<u8>) -> Option<()> {
    match dtype {
        DType::Float => out.extend(text.parse::<f32>().ok()?.to_le_bytes()),
        DType::Double => out.extend(text.parse::<f64>().ok()?.to_le_bytes()),
        DType::Bool => out.push(u8::from(text.parse::<u8>().ok().filter(|&b| b < 2)? == 1)),
        _ => {
            let (low, high) = range(dtype)?;
            let value = text.parse::<i128>().ok().filter(|v| (low..=high).contains(v))?;
            out.extend(value.to_le_bytes().get(..dtype.bits() / 8)?);
        }
    }
    Some(())
}

/// The integers that stand for elements of a type; small floats are given by their bits.
fn range(dtype: DType) -> Option<(i128, i128)> {
    let bits = dtype.bits();
    let signed = matches!(dtype, DType::Int8 | DType::Int16 | DType::Int32 | DType::Int64);
    let whole = dtype.is_int()
        || matches!(dtype, DType::Float16 | DType::Bfloat16)
        || (bits == 8 && dtype != DType::Bool);
    match (whole, signed) {
        (false, _) => None,
        (true, true) => Some((-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)),
        (true, false) => Some((0, (1i128 << bits) - 1)),
    }
}

/// The elements as [`read`] takes them, separated by commas; `None` for types that text cannot give.
pub(super) fn write(tensor: &Tensor) -> Option<String> {
    let elements: Vec<String> = match tensor.dtype() {
        DType::Float => tensor.to_f32()?.iter().map(|v| short(&float(*v))).collect(),
        DType::Double => tensor.to_f64()?.iter().map(|v| short(&format!("{v:?}").to_lowercase())).collect(),
        DType::String => strings(tensor)?.iter().map(|s| super::quoted(s)).collect(),
        DType::Uint64 => tensor.to_i64()?.iter().map(|v| (*v as u64).to_string()).collect(),
        DType::Float16 | DType::Bfloat16 => {
            tensor.data().chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]).to_string()).collect()
        }
        d if d.is_int() || d == DType::Bool => tensor.to_i64()?.iter().map(i64::to_string).collect(),
        d if d.bits() == 8 => tensor.data().iter().map(u8::to_string).collect(),
        _ => return None,
    };
    Some(elements.join(", "))
}

/// The shortest text that reads as this number and as no integer.
pub(super) fn float(v: f32) -> String {
    format!("{v:?}").to_lowercase()
}

/// Within a tensor, whose type says that it holds floats, the point of a whole number is left out.
fn short(number: &str) -> String {
    number.strip_suffix(".0").unwrap_or(number).into()
}

/// The elements of a string tensor; `None` if they are not UTF-8 or their lengths lie.
fn strings(tensor: &Tensor) -> Option<Vec<String>> {
    let mut rest = &tensor.data()[..];
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at_checked(8)?;
        let n = usize::try_from(u64::from_le_bytes(head.try_into().ok()?)).ok()?;
        let (text, tail) = tail.split_at_checked(n)?;
        out.push(String::from_utf8(text.to_vec()).ok()?);
        rest = tail;
    }
    (out.len() == tensor.len()).then_some(out)
}
