//! Element types: all that ONNX defines can be carried; `eval` and the kernels say which they compute with.

/// An element type of a tensor, numbered as in ONNX's `TensorProto.DataType`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(i32)]
#[expect(missing_docs, reason = "the names are ONNX's own")]
pub enum DType {
    Float = 1,
    Uint8 = 2,
    Int8 = 3,
    Uint16 = 4,
    Int16 = 5,
    Int32 = 6,
    Int64 = 7,
    String = 8,
    Bool = 9,
    Float16 = 10,
    Double = 11,
    Uint32 = 12,
    Uint64 = 13,
    Complex64 = 14,
    Complex128 = 15,
    Bfloat16 = 16,
    Float8e4m3fn = 17,
    Float8e4m3fnuz = 18,
    Float8e5m2 = 19,
    Float8e5m2fnuz = 20,
    Uint4 = 21,
    Int4 = 22,
    Float4e2m1 = 23,
    Float8e8m0 = 24,
    Uint2 = 25,
    Int2 = 26,
}

use DType::*;

/// Type, name in ONNX text, bits of one element (0: elements have no fixed size).
const TABLE: &[(DType, &str, usize)] = &[
    (Float, "float", 32),
    (Uint8, "uint8", 8),
    (Int8, "int8", 8),
    (Uint16, "uint16", 16),
    (Int16, "int16", 16),
    (Int32, "int32", 32),
    (Int64, "int64", 64),
    (String, "string", 0),
    (Bool, "bool", 8),
    (Float16, "float16", 16),
    (Double, "double", 64),
    (Uint32, "uint32", 32),
    (Uint64, "uint64", 64),
    (Complex64, "complex64", 64),
    (Complex128, "complex128", 128),
    (Bfloat16, "bfloat16", 16),
    (Float8e4m3fn, "float8e4m3fn", 8),
    (Float8e4m3fnuz, "float8e4m3fnuz", 8),
    (Float8e5m2, "float8e5m2", 8),
    (Float8e5m2fnuz, "float8e5m2fnuz", 8),
    (Uint4, "uint4", 4),
    (Int4, "int4", 4),
    (Float4e2m1, "float4e2m1", 4),
    (Float8e8m0, "float8e8m0", 8),
    (Uint2, "uint2", 2),
    (Int2, "int2", 2),
];

impl DType {
    /// Every type, in ONNX's order.
    pub fn all() -> impl Iterator<Item = DType> {
        TABLE.iter().map(|row| row.0)
    }
    /// The type with this number in ONNX's `TensorProto.DataType`.
    pub fn from_onnx(number: i32) -> Option<DType> {
        TABLE.iter().map(|row| row.0).find(|&d| d as i32 == number)
    }
    /// The type with this name in ONNX text.
    pub fn from_name(name: &str) -> Option<DType> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }
    /// The name in ONNX text, such as `float` or `int64`.
    pub fn name(self) -> &'static str {
        TABLE[self as usize - 1].1
    }
    /// Bits of one element; 0 for strings.
    pub fn bits(self) -> usize {
        TABLE[self as usize - 1].2
    }
    /// Bytes that `n` elements occupy, packed; `None` on overflow.
    pub fn byte_len(self, n: usize) -> Option<usize> {
        Some(n.checked_mul(self.bits())?.div_ceil(8))
    }
    /// Whether gradients can flow through values of this type: a floating-point type of 16 bits or more.
    pub fn is_float(self) -> bool {
        matches!(self, Float | Float16 | Bfloat16 | Double)
    }
    /// Whether it is a signed or unsigned integer of 8 bits or more.
    pub fn is_int(self) -> bool {
        matches!(self, Uint8 | Int8 | Uint16 | Int16 | Int32 | Int64 | Uint32 | Uint64)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_order() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, i + 1);
            assert_eq!(DType::from_onnx(row.0 as i32), Some(row.0));
            assert_eq!(DType::from_name(row.1), Some(row.0));
        }
    }
}
