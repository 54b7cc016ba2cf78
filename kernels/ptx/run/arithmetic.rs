//! What operations compute, for 32 and for 64 bits: one text for both.
use super::row::{Row, WideRow, map, mask, zip, zip3};
use crate::program::{Binary, Bits, Compare, Shift, Ternary, Unary};

/// The smaller; a number before NaN, and -0 before +0.
macro_rules! least {
    ($a:expr, $b:expr) => {
        if $a.is_nan() {
            $b
        } else if $b.is_nan() || $a < $b || ($a == $b && $a.is_sign_negative()) {
            $a
        } else {
            $b
        }
    };
}

/// The functions of one width: unsigned, signed, twice as wide, and float.
macro_rules! width {
    ($name:ident, $row:ty, $u:ty, $i:ty, $double:ty, $signed_double:ty, $f:ty) => {
        pub(crate) mod $name {
            use super::*;

            #[inline(always)]
            fn float(a: $u) -> $f {
                <$f>::from_bits(a)
            }
            #[inline(always)]
            fn min(a: $f, b: $f) -> $f {
                least!(a, b)
            }
            #[inline(always)]
            fn max(a: $f, b: $f) -> $f {
                -least!((-a), (-b))
            }
            #[inline(always)]
            fn floats(a: &$row, b: &$row, f: impl Fn($f, $f) -> $f) -> $row {
                zip(a, b, |a, b| f(float(a), float(b)).to_bits())
            }
            #[inline(always)]
            fn signed(a: &$row, b: &$row, f: impl Fn($i, $i) -> $i) -> $row {
                zip(a, b, |a, b| f(a.cast_signed(), b.cast_signed()).cast_unsigned())
            }

            #[inline(always)]
            pub(crate) fn unary(operation: Unary, a: &$row) -> $row {
                const SIGN: $u = 1 << (<$u>::BITS - 1);
                match operation {
                    Unary::Move => *a,
                    Unary::Not => map(a, |a| !a),
                    Unary::Neg => map(a, |a| a.wrapping_neg()),
                    Unary::Abs => map(a, |a| a.cast_signed().wrapping_abs().cast_unsigned()),
                    Unary::Reverse => map(a, |a| a.reverse_bits()),
                    Unary::NegFloat => map(a, |a| a ^ SIGN),
                    Unary::AbsFloat => map(a, |a| a & !SIGN),
                    Unary::SquareRoot => map(a, |a| float(a).sqrt().to_bits()),
                    Unary::Reciprocal => map(a, |a| (1.0 / float(a)).to_bits()),
                }
            }

            /// Division by zero gives all ones, and leaves the dividend.
            #[inline(always)]
            pub(crate) fn binary(operation: Binary, a: &$row, b: &$row) -> $row {
                match operation {
                    Binary::Add => zip(a, b, <$u>::wrapping_add),
                    Binary::Sub => zip(a, b, <$u>::wrapping_sub),
                    Binary::Mul => zip(a, b, <$u>::wrapping_mul),
                    Binary::MulHighSigned => signed(a, b, |a, b| {
                        (<$signed_double>::from(a) * <$signed_double>::from(b) >> <$u>::BITS) as $i
                    }),
                    Binary::MulHighUnsigned => {
                        zip(a, b, |a, b| (<$double>::from(a) * <$double>::from(b) >> <$u>::BITS) as $u)
                    }
                    Binary::DivSigned => signed(a, b, |a, b| if b == 0 { -1 } else { a.wrapping_div(b) }),
                    Binary::DivUnsigned => zip(a, b, |a, b| a.checked_div(b).unwrap_or(<$u>::MAX)),
                    Binary::RemSigned => signed(a, b, |a, b| if b == 0 { a } else { a.wrapping_rem(b) }),
                    Binary::RemUnsigned => zip(a, b, |a, b| a.checked_rem(b).unwrap_or(a)),
                    Binary::MinSigned => signed(a, b, |a, b| a.min(b)),
                    Binary::MaxSigned => signed(a, b, |a, b| a.max(b)),
                    Binary::MinUnsigned => zip(a, b, |a, b| a.min(b)),
                    Binary::MaxUnsigned => zip(a, b, |a, b| a.max(b)),
                    Binary::And => zip(a, b, |a, b| a & b),
                    Binary::Or => zip(a, b, |a, b| a | b),
                    Binary::Xor => zip(a, b, |a, b| a ^ b),
                    Binary::AddFloat => floats(a, b, |a, b| a + b),
                    Binary::SubFloat => floats(a, b, |a, b| a - b),
                    Binary::MulFloat => floats(a, b, |a, b| a * b),
                    Binary::DivFloat => floats(a, b, |a, b| a / b),
                    Binary::MinFloat => floats(a, b, min),
                    Binary::MaxFloat => floats(a, b, max),
                    Binary::MinNan => floats(a, b, |a, b| if a.is_nan() { a } else if b.is_nan() { b } else { min(a, b) }),
                    Binary::MaxNan => floats(a, b, |a, b| if a.is_nan() { a } else if b.is_nan() { b } else { max(a, b) }),
                    Binary::CopySign => floats(a, b, |a, b| b.copysign(a)),
                }
            }

            #[inline(always)]
            pub(crate) fn ternary(operation: Ternary, a: &$row, b: &$row, c: &$row) -> $row {
                match operation {
                    Ternary::MulAdd => zip3(a, b, c, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
                    Ternary::Fma => zip3(a, b, c, |a, b, c| float(a).mul_add(float(b), float(c)).to_bits()),
                }
            }

            #[inline(always)]
            pub(crate) fn shift(shift: Shift, a: &$row, by: &Row) -> $row {
                const MOST: u32 = <$u>::BITS - 1;
                match shift {
                    Shift::Left => zip(a, by, |a, n| if n > MOST { 0 } else { a << n }),
                    Shift::RightUnsigned => zip(a, by, |a, n| if n > MOST { 0 } else { a >> n }),
                    Shift::RightSigned => {
                        zip(a, by, |a, n| (a.cast_signed() >> n.min(MOST)).cast_unsigned())
                    }
                }
            }

            #[inline(always)]
            pub(crate) fn compare(comparison: Compare, a: &$row, b: &$row) -> u32 {
                match comparison {
                    Compare::Equal => mask(a, b, |a, b| a == b),
                    Compare::NotEqual => mask(a, b, |a, b| a != b),
                    Compare::LessSigned => mask(a, b, |a, b| a.cast_signed() < b.cast_signed()),
                    Compare::LessUnsigned => mask(a, b, |a, b| a < b),
                    Compare::LessEqualSigned => mask(a, b, |a, b| a.cast_signed() <= b.cast_signed()),
                    Compare::LessEqualUnsigned => mask(a, b, |a, b| a <= b),
                    Compare::EqualFloat => mask(a, b, |a, b| float(a) == float(b)),
                    Compare::LessFloat => mask(a, b, |a, b| float(a) < float(b)),
                    Compare::LessEqualFloat => mask(a, b, |a, b| float(a) <= float(b)),
                    Compare::Ordered => mask(a, b, |a, b| !float(a).is_nan() && !float(b).is_nan()),
                    Compare::LessOrGreater => {
                        mask(a, b, |a, b| float(a) < float(b) || float(a) > float(b))
                    }
                }
            }
        }
    };
}

width!(narrow, Row, u32, i32, u64, i64, f32);
width!(wide, WideRow, u64, i64, u128, i128, f64);

/// The whole products of 32-bit values.
#[inline(always)]
pub(crate) fn mul_wide(signed: bool, a: &Row, b: &Row) -> WideRow {
    if signed {
        zip(a, b, |a, b| (i64::from(a.cast_signed()) * i64::from(b.cast_signed())).cast_unsigned())
    } else {
        zip(a, b, |a, b| u64::from(a) * u64::from(b))
    }
}

fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    u32::from_le_bytes([0, 4, 8, 12].map(|at| {
        let nibble = selector >> at & 15;
        let byte = bytes[(nibble & 7) as usize];
        // The high bit of a nibble asks for the byte's sign in all bits.
        if nibble & 8 == 0 { byte } else { (byte.cast_signed() >> 7).cast_unsigned() }
    }))
}

fn extract(signed: bool, a: u32, at: u32, n: u32) -> u32 {
    let (at, n) = ((at & 0xff).min(32), (n & 0xff).min(32));
    if n == 0 {
        return 0;
    }
    let wide = if signed { i64::from(a.cast_signed()) } else { i64::from(a) };
    let top = 64 - n;
    if signed {
        (wide >> at << top >> top) as u32
    } else {
        ((wide >> at << top).cast_unsigned() >> top) as u32
    }
}

fn table(table: u8, a: u32, b: u32, c: u32) -> u32 {
    let term = |i: u32| {
        let pick = |x: u32, bit: u32| if i >> bit & 1 == 1 { x } else { !x };
        if table >> i & 1 == 1 { pick(a, 2) & pick(b, 1) & pick(c, 0) } else { 0 }
    };
    (0..8).fold(0, |all, i| all | term(i))
}

/// Operations on the bits of three values.
pub(crate) fn bits(operation: Bits, a: &Row, b: &Row, c: &Row) -> Row {
    let count = |c: u32, wrap: bool| if wrap { c & 31 } else { c.min(32) };
    let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    match operation {
        Bits::Permute => zip3(a, b, c, permute),
        Bits::FunnelLeft { wrap } => zip3(a, b, c, |a, b, c| (pair(a, b) << count(c, wrap) >> 32) as u32),
        Bits::FunnelRight { wrap } => zip3(a, b, c, |a, b, c| (pair(a, b) >> count(c, wrap)) as u32),
        Bits::ExtractSigned => zip3(a, b, c, |a, b, c| extract(true, a, b, c)),
        Bits::ExtractUnsigned => zip3(a, b, c, |a, b, c| extract(false, a, b, c)),
        Bits::Table(t) => zip3(a, b, c, |a, b, c| table(t, a, b, c)),
    }
}

/// b with `n` bits of a put at the position.
pub(crate) fn insert(a: u32, b: u32, at: u32, n: u32) -> u32 {
    let (at, n) = ((at & 0xff).min(32), (n & 0xff).min(32));
    let field = (((1u64 << n) - 1) << at) as u32;
    (b & !field) | ((u64::from(a) << at) as u32 & field)
}

/// The same on 64 bits.
pub(crate) fn insert_wide(a: u64, b: u64, at: u32, n: u32) -> u64 {
    let (at, n) = ((at & 0xff).min(64), (n & 0xff).min(64));
    let field = (((1u128 << n) - 1) << at) as u64;
    (b & !field) | ((u128::from(a) << at) as u64 & field)
}
