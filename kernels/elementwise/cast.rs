//! Conversion between element types, as ONNX's `Cast` defines it.
use super::cpu::{unary, unserved};
use crate::{Call, movement};
use graft_ir::{DType, Result};
use half::{bf16, f16};

/// The types between which it converts.
pub(super) fn serves(dtype: DType) -> bool {
    use DType::{Bfloat16, Bool, Double, Float, Float16, Int32, Int64, Uint8};
    matches!(dtype, Float | Double | Float16 | Bfloat16 | Int64 | Int32 | Uint8 | Bool)
}

/// Floats become integers by truncation, out of range the nearest number of the type (NaN: 0); integers wrap;
/// anything but zero becomes true.
pub(super) fn cast(call: &mut Call<'_>) -> Result<()> {
    let from = call.input(0)?.dtype;
    let to = call.outputs.first().and_then(|o| o.as_ref()).map_or(from, |o| o.dtype);
    if from == to {
        return movement::identity(call);
    }
    match from {
        DType::Float => from_float(call, to),
        DType::Double => from_wide(call, to, |x: f64| x),
        DType::Float16 => from_wide(call, to, |x: f16| x.to_f64()),
        DType::Bfloat16 => from_wide(call, to, |x: bf16| x.to_f64()),
        DType::Int64 => from_integer(call, to, |x: i64| x),
        DType::Int32 => from_integer(call, to, |x: i32| i64::from(x)),
        DType::Uint8 | DType::Bool => from_integer(call, to, |x: u8| i64::from(x)),
        other => Err(unserved(other)),
    }
}

fn from_float(call: &mut Call<'_>, to: DType) -> Result<()> {
    match to {
        DType::Float16 => unary(call, f16::from_f32),
        DType::Bfloat16 => unary(call, bf16::from_f32),
        _ => from_wide(call, to, |x: f32| f64::from(x)),
    }
}

fn from_wide<T: bytemuck::Pod + Sync>(
    call: &mut Call<'_>,
    to: DType,
    wide: impl Fn(T) -> f64 + Copy + Sync + Send,
) -> Result<()> {
    match to {
        DType::Float => unary(call, move |x: T| wide(x) as f32),
        DType::Double => unary(call, wide),
        DType::Float16 => unary(call, move |x: T| f16::from_f64(wide(x))),
        DType::Bfloat16 => unary(call, move |x: T| bf16::from_f64(wide(x))),
        DType::Int64 => unary(call, move |x: T| wide(x) as i64),
        DType::Int32 => unary(call, move |x: T| wide(x) as i32),
        DType::Uint8 => unary(call, move |x: T| wide(x) as u8),
        DType::Bool => unary(call, move |x: T| u8::from(wide(x) != 0.0)),
        other => Err(unserved(other)),
    }
}

fn from_integer<T: bytemuck::Pod + Sync>(
    call: &mut Call<'_>,
    to: DType,
    wide: impl Fn(T) -> i64 + Copy + Sync + Send,
) -> Result<()> {
    match to {
        DType::Float => unary(call, move |x: T| wide(x) as f32),
        DType::Double => unary(call, move |x: T| wide(x) as f64),
        DType::Float16 => unary(call, move |x: T| f16::from_f64(wide(x) as f64)),
        DType::Bfloat16 => unary(call, move |x: T| bf16::from_f64(wide(x) as f64)),
        DType::Int64 => unary(call, wide),
        DType::Int32 => unary(call, move |x: T| wide(x) as i32),
        DType::Uint8 => unary(call, move |x: T| wide(x) as u8),
        DType::Bool => unary(call, move |x: T| u8::from(wide(x) != 0)),
        other => Err(unserved(other)),
    }
}
