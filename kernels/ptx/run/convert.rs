//! What conversions compute.
use super::row::{Row, WideRow, map};
use crate::program::{Narrow, Rounding, Shorten, Wide, Widen};
use half::f16;

/// Rounds, for both widths of floats.
macro_rules! round {
    ($name:ident, $f:ty) => {
        #[inline(always)]
        fn $name(x: $f, mode: Rounding) -> $f {
            match mode {
                Rounding::Nearest => x.round_ties_even(),
                Rounding::Zero => x.trunc(),
                Rounding::Up => x.ceil(),
                Rounding::Down => x.floor(),
            }
        }
    };
}
round!(round, f32);
round!(round_double, f64);

#[inline(always)]
fn float(bits: u32) -> f32 {
    f32::from_bits(bits)
}
#[inline(always)]
fn double(bits: u64) -> f64 {
    f64::from_bits(bits)
}

/// The nearest bfloat16, ties to even; the one NaN that `cvt` makes is 0x7fff.
#[inline(always)]
fn bf16(u: u32) -> u32 {
    if u & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { u.wrapping_add(0x7fff + (u >> 16 & 1)) >> 16 }
}

fn half(u: u32) -> u32 {
    let x = float(u);
    if x.is_nan() { 0x7fff } else { u32::from(f16::from_f32(x).to_bits()) }
}

/// Within 32 bits.
#[inline(always)]
pub(crate) fn narrow(conversion: Narrow, a: &Row) -> Row {
    match conversion {
        Narrow::Sign8 => map(a, |a| (i32::from(a as i8)).cast_unsigned()),
        Narrow::Sign16 => map(a, |a| (i32::from(a as i16)).cast_unsigned()),
        Narrow::Zero8 => map(a, |a| a & 0xff),
        Narrow::Zero16 => map(a, |a| a & 0xffff),
        Narrow::SignedToFloat => map(a, |a| (a.cast_signed() as f32).to_bits()),
        Narrow::UnsignedToFloat => map(a, |a| (a as f32).to_bits()),
        Narrow::FloatToSigned(mode) => map(a, |a| (round(float(a), mode) as i32).cast_unsigned()),
        Narrow::FloatToUnsigned(mode) => map(a, |a| round(float(a), mode) as u32),
        Narrow::F16ToFloat => map(a, |a| f16::from_bits(a as u16).to_f32().to_bits()),
        Narrow::Bf16ToFloat => map(a, |a| a << 16),
        Narrow::FloatToF16 => map(a, half),
        Narrow::FloatToBf16 => map(a, bf16),
        Narrow::Round(mode) => map(a, |a| round(float(a), mode).to_bits()),
        // NaN becomes 0.
        Narrow::Saturate => map(a, |a| if float(a) > 0.0 { float(a).min(1.0).to_bits() } else { 0 }),
    }
}

/// From 32 to 64 bits.
#[inline(always)]
pub(crate) fn widen(conversion: Widen, a: &Row) -> WideRow {
    match conversion {
        Widen::Sign => map(a, |a| i64::from(a.cast_signed()).cast_unsigned()),
        Widen::Zero => map(a, u64::from),
        Widen::FloatToDouble => map(a, |a| f64::from(float(a)).to_bits()),
        Widen::FloatToSigned(mode) => map(a, |a| (round(float(a), mode) as i64).cast_unsigned()),
        Widen::FloatToUnsigned(mode) => map(a, |a| round(float(a), mode) as u64),
        Widen::SignedToDouble => map(a, |a| f64::from(a.cast_signed()).to_bits()),
        Widen::UnsignedToDouble => map(a, |a| f64::from(a).to_bits()),
    }
}

/// From 64 to 32 bits.
#[inline(always)]
pub(crate) fn shorten(conversion: Shorten, a: &WideRow) -> Row {
    match conversion {
        Shorten::Low => map(a, |a| a as u32),
        Shorten::High => map(a, |a| (a >> 32) as u32),
        Shorten::DoubleToFloat => map(a, |a| (double(a) as f32).to_bits()),
        Shorten::SignedToFloat => map(a, |a| (a.cast_signed() as f32).to_bits()),
        Shorten::UnsignedToFloat => map(a, |a| (a as f32).to_bits()),
        Shorten::DoubleToSigned(mode) => map(a, |a| (round_double(double(a), mode) as i32).cast_unsigned()),
        Shorten::DoubleToUnsigned(mode) => map(a, |a| round_double(double(a), mode) as u32),
    }
}

/// Within 64 bits.
#[inline(always)]
pub(crate) fn wide(conversion: Wide, a: &WideRow) -> WideRow {
    match conversion {
        Wide::SignedToDouble => map(a, |a| (a.cast_signed() as f64).to_bits()),
        Wide::UnsignedToDouble => map(a, |a| (a as f64).to_bits()),
        Wide::DoubleToSigned(mode) => map(a, |a| (round_double(double(a), mode) as i64).cast_unsigned()),
        Wide::DoubleToUnsigned(mode) => map(a, |a| round_double(double(a), mode) as u64),
        Wide::Round(mode) => map(a, |a| round_double(double(a), mode).to_bits()),
    }
}
