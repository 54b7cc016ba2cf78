//! The tensors of `eval`: every floating-point type as `f64`, every integer as `i64`.
use crate::{Code, DType, Error, Result, Tensor, tensor};

/// A tensor as `eval` computes with it; row-major.
#[derive(Clone, PartialEq, Debug)]
pub struct Array {
    /// The element type that the elements stand for.
    pub dtype: DType,
    /// The sizes, outermost first.
    pub dims: Vec<usize>,
    /// The elements.
    pub data: Data,
}

/// Elements of an [`Array`].
#[derive(Clone, PartialEq, Debug)]
pub enum Data {
    /// For floating-point types.
    Float(Vec<f64>),
    /// For integers and bool (0 or 1); `uint64` as its bits.
    Int(Vec<i64>),
}

/// How `eval` treats floating-point results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// Each op's results are rounded to their element type: what the model says.
    Native,
    /// Nothing is rounded: the oracle for gradients.
    Exact,
}

impl Array {
    /// A floating-point array.
    pub fn float(dtype: DType, dims: Vec<usize>, data: Vec<f64>) -> Array {
        debug_assert_eq!(dims.iter().product::<usize>(), data.len());
        Array { dtype, dims, data: Data::Float(data) }
    }
    /// An integer or bool array.
    pub fn int(dtype: DType, dims: Vec<usize>, data: Vec<i64>) -> Array {
        debug_assert_eq!(dims.iter().product::<usize>(), data.len());
        Array { dtype, dims, data: Data::Int(data) }
    }
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }
    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The elements of a floating-point array; an error for others.
    pub fn floats(&self) -> Result<&[f64]> {
        match &self.data {
            Data::Float(v) => Ok(v),
            Data::Int(_) => Err(Error::new(
                Code::TYPES,
                format!("expected floating-point elements, found {}", self.dtype),
            )),
        }
    }
    /// The elements of an integer or bool array; an error for others.
    pub fn ints(&self) -> Result<&[i64]> {
        match &self.data {
            Data::Int(v) => Ok(v),
            Data::Float(_) => {
                Err(Error::new(Code::TYPES, format!("expected integer elements, found {}", self.dtype)))
            }
        }
    }
    /// Reads a tensor; an error for strings and other types that `eval` does not compute with.
    pub fn from_tensor(t: &Tensor) -> Result<Array> {
        let data = if t.dtype().is_float() { t.to_f64().map(Data::Float) } else { t.to_i64().map(Data::Int) };
        let unsupported =
            || Error::new(Code::NO_EVAL, format!("tensors of {} cannot be computed with", t.dtype()));
        Ok(Array { dtype: t.dtype(), dims: t.dims().to_vec(), data: data.ok_or_else(unsupported)? })
    }
    /// Writes a tensor, rounding or wrapping to the element type.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let unsupported =
            || Error::new(Code::NO_EVAL, format!("tensors of {} cannot be written", self.dtype));
        match &self.data {
            Data::Float(v) => {
                Tensor::from_f64(self.dtype, &self.dims, v.iter().copied()).ok_or_else(unsupported)
            }
            Data::Int(v) => {
                let mut bytes = Vec::new();
                for &x in v {
                    tensor::push_i64(self.dtype, x, &mut bytes).ok_or_else(unsupported)?;
                }
                Tensor::new(self.dtype, self.dims.clone(), bytes.into())
            }
        }
    }
    /// Rounds or wraps the elements to the element type.
    #[must_use]
    pub(crate) fn settled(mut self, precision: Precision) -> Array {
        match &mut self.data {
            Data::Float(v) if precision == Precision::Native => {
                let round: fn(f64) -> f64 = match self.dtype {
                    DType::Float => |x| f64::from(x as f32),
                    DType::Float16 => |x| half::f16::from_f64(x).to_f64(),
                    DType::Bfloat16 => |x| half::bf16::from_f64(x).to_f64(),
                    _ => |x| x,
                };
                v.iter_mut().for_each(|x| *x = round(*x));
            }
            Data::Float(_) => {}
            Data::Int(v) => {
                let wrap: fn(i64) -> i64 = match self.dtype {
                    DType::Bool => |x| i64::from(x != 0),
                    DType::Uint8 => |x| i64::from(x as u8),
                    DType::Int8 => |x| i64::from(x as i8),
                    DType::Uint16 => |x| i64::from(x as u16),
                    DType::Int16 => |x| i64::from(x as i16),
                    DType::Uint32 => |x| i64::from(x as u32),
                    DType::Int32 => |x| i64::from(x as i32),
                    _ => |x| x,
                };
                v.iter_mut().for_each(|x| *x = wrap(*x));
            }
        }
        self
    }
}
