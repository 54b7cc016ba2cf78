//! A tensor: element type, sizes, and bytes that may lie in a mapped file.
use crate::{Code, DType, Error, Result};
use bytes::Bytes;

/// An immutable tensor. Cloning shares its bytes.
///
/// `data` is little-endian, row-major and *not* necessarily aligned (it may point into a mapped file).
/// A string tensor holds, for each element, its length as a `u64` and then its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tensor {
    dtype: DType,
    dims: Vec<usize>,
    data: Bytes,
}

impl Tensor {
    /// Checks that `data` has just the size that `dtype` and `dims` ask for.
    pub fn new(dtype: DType, dims: Vec<usize>, data: Bytes) -> Result<Tensor> {
        let wanted = count(&dims).and_then(|n| dtype.byte_len(n));
        if dtype != DType::String && wanted != Some(data.len()) {
            let wanted = wanted.map_or("more than memory can address".into(), |n| n.to_string());
            let message = format!("{dtype}{dims:?} needs {wanted} bytes, found {}", data.len());
            return Err(Error::new(Code::MODEL, message));
        }
        Ok(Tensor { dtype, dims, data })
    }
    /// A tensor of `dtype` from values, each rounded or wrapped to it; `None` if `values` and `dims` differ in size
    /// or the type is not one of the plain numeric ones.
    pub fn from_f64(dtype: DType, dims: &[usize], values: impl IntoIterator<Item = f64>) -> Option<Tensor> {
        let mut data = Vec::new();
        for v in values {
            push_f64(dtype, v, &mut data)?;
        }
        Tensor::new(dtype, dims.to_vec(), data.into()).ok()
    }
    /// An `f32` tensor.
    ///
    /// # Panics
    /// If `dims` does not multiply to the number of `values`.
    pub fn f32(dims: &[usize], values: &[f32]) -> Tensor {
        assert_eq!(count(dims), Some(values.len()), "{dims:?} does not hold {} values", values.len());
        let data = Bytes::copy_from_slice(bytemuck::cast_slice(values));
        Tensor { dtype: DType::Float, dims: dims.to_vec(), data }
    }
    /// An `i64` tensor.
    ///
    /// # Panics
    /// If `dims` does not multiply to the number of `values`.
    pub fn i64(dims: &[usize], values: &[i64]) -> Tensor {
        assert_eq!(count(dims), Some(values.len()), "{dims:?} does not hold {} values", values.len());
        let data = Bytes::copy_from_slice(bytemuck::cast_slice(values));
        Tensor { dtype: DType::Int64, dims: dims.to_vec(), data }
    }
    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// The sizes, outermost first; empty for a scalar.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }
    /// The bytes: little-endian, row-major, possibly unaligned.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }
    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The same bytes under other sizes, if they multiply to the same number.
    pub fn reshaped(&self, dims: &[usize]) -> Option<Tensor> {
        (count(dims) == Some(self.len()) && self.dtype != DType::String)
            .then(|| Tensor { dims: dims.to_vec(), ..self.clone() })
    }
    /// All elements as `f64` (exact for every type but 64-bit integers above 2^53); `None` for strings, complex numbers
    /// and types below 16 bits that are not integers or bool.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        macro_rules! read {
            ($t:ty, $f:expr) => {
                self.data
                    .chunks_exact(size_of::<$t>())
                    .map(|c| $f(<$t>::from_le_bytes(c.try_into().expect("chunk size"))))
                    .collect()
            };
        }
        Some(match self.dtype {
            DType::Float => read!(f32, f64::from),
            DType::Double => read!(f64, |v| v),
            DType::Float16 => read!(half::f16, f64::from),
            DType::Bfloat16 => read!(half::bf16, f64::from),
            _ => self
                .to_i64()?
                .into_iter()
                .map(|v| if self.dtype == DType::Uint64 { v as u64 as f64 } else { v as f64 })
                .collect(),
        })
    }
    /// All elements of an integer or bool tensor (`uint64` as its bits); `None` for other types.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        macro_rules! read {
            ($t:ty) => {
                self.data
                    .chunks_exact(size_of::<$t>())
                    .map(|c| <$t>::from_le_bytes(c.try_into().expect("chunk size")) as i64)
                    .collect()
            };
        }
        Some(match self.dtype {
            DType::Bool | DType::Uint8 => read!(u8),
            DType::Int8 => read!(i8),
            DType::Uint16 => read!(u16),
            DType::Int16 => read!(i16),
            DType::Uint32 => read!(u32),
            DType::Int32 => read!(i32),
            DType::Uint64 => read!(u64),
            DType::Int64 => read!(i64),
            DType::Uint4 => self.nibbles(i64::from),
            DType::Int4 => self.nibbles(|n| i64::from((n << 4) as i8 >> 4)),
            _ => return None,
        })
    }
    /// All elements of an `f32` tensor; `None` for other types.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let read = |c: &[u8]| f32::from_le_bytes(c.try_into().expect("chunk size"));
        (self.dtype == DType::Float).then(|| self.data.chunks_exact(4).map(read).collect())
    }
    fn nibbles(&self, read: impl Fn(u8) -> i64) -> Vec<i64> {
        (0..self.len()).map(|i| read(self.data[i / 2] >> (4 * (i % 2)) & 15)).collect()
    }
}

/// The bytes of a tensor of this type and these sizes, if there is memory for it. To be asked before sizes that a file
/// or a user gives become a tensor: an allocation that fails ends the process.
///
/// # Errors
/// [`Code::MEMORY`] that names type and sizes.
pub fn affordable(dtype: DType, dims: &[usize]) -> Result<usize> {
    let bytes = count(dims).and_then(|n| dtype.byte_len(n));
    let had = bytes.filter(|&n| n < CERTAIN || Vec::<u8>::new().try_reserve_exact(n).is_ok());
    had.ok_or_else(|| {
        let wanted = bytes.map_or("more bytes than can be counted".into(), |n| format!("{n} bytes"));
        Error::new(Code::MEMORY, format!("{dtype}{dims:?} needs {wanted}, which cannot be had"))
            .help("choose smaller sizes")
    })
}

/// Fewer bytes than this are taken for granted.
const CERTAIN: usize = 1 << 20;

/// The product of sizes; `None` on overflow.
pub fn count(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Appends `v`, rounded or wrapped to `dtype`; `None` if the type is not a plain numeric one.
fn push_f64(dtype: DType, v: f64, out: &mut Vec<u8>) -> Option<()> {
    match dtype {
        DType::Float => out.extend((v as f32).to_le_bytes()),
        DType::Double => out.extend(v.to_le_bytes()),
        DType::Float16 => out.extend(half::f16::from_f64(v).to_le_bytes()),
        DType::Bfloat16 => out.extend(half::bf16::from_f64(v).to_le_bytes()),
        DType::Uint64 => out.extend((v as u64).to_le_bytes()),
        _ => push_i64(dtype, v as i64, out)?,
    }
    Some(())
}

/// Appends `v`, wrapped to the integer or bool type `dtype`; `None` for other types.
pub(crate) fn push_i64(dtype: DType, v: i64, out: &mut Vec<u8>) -> Option<()> {
    match dtype {
        DType::Bool => out.push(u8::from(v != 0)),
        d if d.is_int() => out.extend(&v.to_le_bytes()[..d.bits() / 8]),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_wrap_and_floats_round() {
        let t = Tensor::from_f64(DType::Int8, &[3], [-1.0, 127.0, 3.0]).unwrap();
        assert_eq!(t.to_i64().unwrap(), [-1, 127, 3]);
        let t = Tensor::from_f64(DType::Bfloat16, &[1], [1.0 + 1.0 / 512.0]).unwrap();
        assert_eq!(t.to_f64().unwrap(), [1.0]);
    }

    #[test]
    fn nibbles_are_low_first() {
        let t = Tensor::new(DType::Int4, vec![3], Bytes::from_static(&[0xF1, 0x07])).unwrap();
        assert_eq!(t.to_i64().unwrap(), [1, -1, 7]);
    }

    #[test]
    fn absurd_sizes_are_refused_before_they_are_allocated() {
        assert_eq!(affordable(DType::Float, &[3, 5]).unwrap(), 60);
        assert_eq!(affordable(DType::Int64, &[0, usize::MAX]).unwrap(), 0);
        for dims in [&[usize::MAX, 2][..], &[1 << 62, 1], &[1 << 40, 1 << 20]] {
            assert_eq!(affordable(DType::Float, dims).unwrap_err().code, Code::MEMORY, "{dims:?}");
        }
    }

    #[test]
    fn sizes_must_fit() {
        assert!(Tensor::new(DType::Float, vec![2], Bytes::from_static(&[0; 7])).is_err());
        assert!(Tensor::new(DType::Float, vec![usize::MAX, 8], Bytes::new()).is_err());
    }
}
