//! Moves and conversions. A conversion is made of an extension of its source, a step between 32 or 64 bits, and a cut to its
//! result.
use super::{
    Decoded, Decoder,
    registers::Register,
    take,
    types::{Class, Type},
};
use crate::{
    program::{Binary, Narrow, Op, R, Rounding, Shorten, Unary, W, Wide, Widen},
    run::windows,
    syntax::Operand,
};

/// A value on its way.
#[derive(Clone, Copy)]
enum Value {
    R(R),
    W(W),
}

fn rounding(name: &str) -> Option<Rounding> {
    match name {
        "rni" => Some(Rounding::Nearest),
        "rzi" => Some(Rounding::Zero),
        "rpi" => Some(Rounding::Up),
        "rmi" => Some(Rounding::Down),
        _ => None,
    }
}

/// From a float to a float of the same width.
fn narrow_floats(modifiers: &[&str]) -> Option<Narrow> {
    match modifiers {
        ["sat"] => Some(Narrow::Saturate),
        [mode] => rounding(mode).map(Narrow::Round),
        _ => None,
    }
}

impl<'a> Decoder<'a> {
    pub(super) fn convert(&mut self, parts: &[&str], operands: &[Operand<'a>]) -> Decoded {
        match parts {
            ["mov", kind] => match Type::parse(kind) {
                Some(kind) => self.mov(kind, take(operands)?),
                None => Ok(false),
            },
            ["cvta", "to", space, "u64"] => self.cvta(space, true, take(operands)?),
            ["cvta", space, "u64"] => self.cvta(space, false, take(operands)?),
            ["cvt", "rn", kind @ ("bf16x2" | "f16x2"), "f32"] => {
                self.pair(*kind == "bf16x2", take(operands)?)
            }
            ["cvt", modifiers @ .., to, from] => match (Type::parse(to), Type::parse(from)) {
                (Some(to), Some(from)) => self.cvt(modifiers, to, from, take(operands)?),
                _ => Ok(false),
            },
            _ => Ok(false),
        }
    }

    fn mov(&mut self, kind: Type, [d, a]: &[Operand<'a>; 2]) -> Decoded {
        match (d, a) {
            (_, Operand::Vector(parts)) => self.pack(kind, d, parts),
            (Operand::Vector(parts), _) => self.unpack(kind, parts, a),
            _ => {
                let op = if kind.bytes == 8 {
                    Op::Unary64(Unary::Move, self.result_w(d)?, self.w(a)?)
                } else {
                    Op::Unary32(Unary::Move, self.result_r(d)?, self.narrow(a, kind)?)
                };
                self.emit(op);
                Ok(true)
            }
        }
    }

    fn pack(&mut self, kind: Type, d: &Operand<'a>, parts: &[Operand<'a>]) -> Decoded {
        match (kind.bytes, parts) {
            (4, [low, high]) => {
                let op = Op::Pack16(self.result_r(d)?, self.r16(low)?, self.r16(high)?);
                self.emit(op);
            }
            (8, [low, high]) => {
                let op = Op::Pack32(self.result_w(d)?, self.r(low)?, self.r(high)?);
                self.emit(op);
            }
            (8, [a, b, c, e]) => {
                let halves = [self.fresh_r(), self.fresh_r()];
                for (half, low, high) in [(halves[0], a, b), (halves[1], c, e)] {
                    let op = Op::Pack16(half, self.r16(low)?, self.r16(high)?);
                    self.emit(op);
                }
                let to = self.result_w(d)?;
                self.emit(Op::Pack32(to, halves[0], halves[1]));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn unpack(&mut self, kind: Type, parts: &[Operand<'a>], a: &Operand<'a>) -> Decoded {
        match (kind.bytes, parts) {
            (4, [low, high]) => {
                let a = self.r(a)?;
                self.halves(a, low, high)?;
            }
            (8, [low, high]) => {
                let a = self.w(a)?;
                self.wide_halves(a, low, high)?;
            }
            (8, [b, c, d, e]) => {
                let a = self.w(a)?;
                let halves = [self.fresh_r(), self.fresh_r()];
                self.emit(Op::Shorten(Shorten::Low, halves[0], a));
                self.emit(Op::Shorten(Shorten::High, halves[1], a));
                self.halves(halves[0], b, c)?;
                self.halves(halves[1], d, e)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
    fn halves(&mut self, a: R, low: &Operand<'a>, high: &Operand<'a>) -> Result<(), String> {
        if *low != Operand::Name("_") {
            let op = Op::Narrow(Narrow::Zero16, self.result_r(low)?, a);
            self.emit(op);
        }
        if *high != Operand::Name("_") {
            let op = Op::High16(self.result_r(high)?, a);
            self.emit(op);
        }
        Ok(())
    }
    fn wide_halves(&mut self, a: W, low: &Operand<'a>, high: &Operand<'a>) -> Result<(), String> {
        for (half, to) in [(Shorten::Low, low), (Shorten::High, high)] {
            if *to != Operand::Name("_") {
                let op = Op::Shorten(half, self.result_r(to)?, a);
                self.emit(op);
            }
        }
        Ok(())
    }

    /// Between a generic address and one of a space.
    fn cvta(&mut self, space: &str, into: bool, [d, a]: &[Operand<'a>; 2]) -> Decoded {
        let window = match space {
            "shared" => windows::SHARED,
            "local" => windows::LOCAL,
            "global" | "const" => 0,
            _ => return Ok(false),
        };
        let change = self.number_w(if into { window.wrapping_neg() } else { window });
        let op = Op::Binary64(Binary::Add, self.result_w(d)?, self.w(a)?, change);
        self.emit(op);
        Ok(true)
    }

    /// Two floats, rounded, into one register: the first operand becomes the high half.
    fn pair(&mut self, bf16: bool, [d, a, b]: &[Operand<'a>; 3]) -> Decoded {
        let to_half = if bf16 { Narrow::FloatToBf16 } else { Narrow::FloatToF16 };
        let halves = [self.fresh_r(), self.fresh_r()];
        for (half, from) in [(halves[0], b), (halves[1], a)] {
            let from = self.r(from)?;
            self.emit(Op::Narrow(to_half, half, from));
        }
        let to = self.result_r(d)?;
        self.emit(Op::Pack16(to, halves[0], halves[1]));
        Ok(true)
    }

    fn cvt(&mut self, modifiers: &[&str], to: Type, from: Type, [d, a]: &[Operand<'a>; 2]) -> Decoded {
        let source = self.source(a, from)?;
        let made = if from.is_integer() && to.is_integer() && modifiers.is_empty() {
            Some(self.integer(source, from, to))
        } else if from.is_integer() && to.is_float() && modifiers == ["rn"] {
            Some(self.float_of_integer(source, from, to))
        } else if from.is_float() && to.is_integer() {
            modifiers
                .first()
                .filter(|_| modifiers.len() == 1)
                .and_then(|m| rounding(m))
                .map(|mode| self.integer_of_float(source, to, mode))
        } else {
            self.float_of_float(source, modifiers, to, from)
        };
        let Some(made) = made else { return Ok(false) };
        self.deliver(made, to, d)?;
        Ok(true)
    }

    /// The source, which may be wider than its type says; integers below 32 bits are extended.
    fn source(&mut self, operand: &Operand<'a>, kind: Type) -> Result<Value, String> {
        if kind.bytes == 8 {
            return self.w(operand).map(Value::W);
        }
        let row = match operand {
            Operand::Name(name) => match self.registers.find(name) {
                Some(Register::W(w)) => self.shorten(Shorten::Low, w),
                _ => self.r(operand)?,
            },
            _ => self.r(operand)?,
        };
        let extension = match (kind.is_integer(), kind.bytes, kind.is_signed()) {
            (true, 1, true) => Narrow::Sign8,
            (true, 1, false) => Narrow::Zero8,
            (true, 2, true) => Narrow::Sign16,
            (true, 2, false) => Narrow::Zero16,
            _ => return Ok(Value::R(row)),
        };
        Ok(Value::R(self.step(extension, row)))
    }

    fn step(&mut self, narrow: Narrow, of: R) -> R {
        let to = self.fresh_r();
        self.emit(Op::Narrow(narrow, to, of));
        to
    }
    fn shorten(&mut self, shorten: Shorten, of: W) -> R {
        let to = self.fresh_r();
        self.emit(Op::Shorten(shorten, to, of));
        to
    }
    fn widen(&mut self, widen: Widen, of: R) -> W {
        let to = self.fresh_w();
        self.emit(Op::Widen(widen, to, of));
        to
    }
    fn wide(&mut self, wide: Wide, of: W) -> W {
        let to = self.fresh_w();
        self.emit(Op::Wide(wide, to, of));
        to
    }

    fn integer(&mut self, source: Value, from: Type, to: Type) -> Value {
        match source {
            Value::R(r) if to.bytes == 8 => {
                Value::W(self.widen(if from.is_signed() { Widen::Sign } else { Widen::Zero }, r))
            }
            Value::W(w) if to.bytes < 8 => Value::R(self.shorten(Shorten::Low, w)),
            same => same,
        }
    }

    fn float_of_integer(&mut self, source: Value, from: Type, to: Type) -> Value {
        let by_sign = from.is_signed();
        match (source, to.bytes) {
            (Value::R(r), 4) if by_sign => Value::R(self.step(Narrow::SignedToFloat, r)),
            (Value::R(r), 4) => Value::R(self.step(Narrow::UnsignedToFloat, r)),
            (Value::R(r), _) if by_sign => Value::W(self.widen(Widen::SignedToDouble, r)),
            (Value::R(r), _) => Value::W(self.widen(Widen::UnsignedToDouble, r)),
            (Value::W(w), 4) if by_sign => Value::R(self.shorten(Shorten::SignedToFloat, w)),
            (Value::W(w), 4) => Value::R(self.shorten(Shorten::UnsignedToFloat, w)),
            (Value::W(w), _) if by_sign => Value::W(self.wide(Wide::SignedToDouble, w)),
            (Value::W(w), _) => Value::W(self.wide(Wide::UnsignedToDouble, w)),
        }
    }

    /// Rounded, and clamped to what the type holds.
    fn integer_of_float(&mut self, source: Value, to: Type, mode: Rounding) -> Value {
        let signed = to.is_signed();
        let whole = match (source, to.bytes) {
            (Value::R(r), 8) if signed => return Value::W(self.widen(Widen::FloatToSigned(mode), r)),
            (Value::R(r), 8) => return Value::W(self.widen(Widen::FloatToUnsigned(mode), r)),
            (Value::W(w), 8) if signed => return Value::W(self.wide(Wide::DoubleToSigned(mode), w)),
            (Value::W(w), 8) => return Value::W(self.wide(Wide::DoubleToUnsigned(mode), w)),
            (Value::R(r), _) if signed => self.step(Narrow::FloatToSigned(mode), r),
            (Value::R(r), _) => self.step(Narrow::FloatToUnsigned(mode), r),
            (Value::W(w), _) if signed => self.shorten(Shorten::DoubleToSigned(mode), w),
            (Value::W(w), _) => self.shorten(Shorten::DoubleToUnsigned(mode), w),
        };
        if to.bytes == 4 { Value::R(whole) } else { Value::R(self.clamp(whole, to)) }
    }

    fn clamp(&mut self, row: R, to: Type) -> R {
        let bits = 8 * to.bytes as u32;
        let (least, most, low, high) = if to.is_signed() {
            (
                (-1i64 << (bits - 1)).cast_unsigned(),
                (1 << (bits - 1)) - 1,
                Binary::MaxSigned,
                Binary::MinSigned,
            )
        } else {
            (0, (1 << bits) - 1, Binary::MaxUnsigned, Binary::MinUnsigned)
        };
        let (least, most, above, inside) =
            (self.number_r(least), self.number_r(most), self.fresh_r(), self.fresh_r());
        self.emit(Op::Binary32(low, above, row, least));
        self.emit(Op::Binary32(high, inside, above, most));
        inside
    }

    fn float_of_float(&mut self, source: Value, modifiers: &[&str], to: Type, from: Type) -> Option<Value> {
        use Class::{Brain, Float};
        let rounds = modifiers == ["rn"];
        Some(match (source, (from.class, from.bytes), (to.class, to.bytes)) {
            (Value::R(r), (Float, 2), (Float, 4)) if modifiers.is_empty() => {
                Value::R(self.step(Narrow::F16ToFloat, r))
            }
            (Value::R(r), (Brain, 2), (Float, 4)) if modifiers.is_empty() => {
                Value::R(self.step(Narrow::Bf16ToFloat, r))
            }
            (Value::R(r), (Float, 4), (Float, 2)) if rounds => Value::R(self.step(Narrow::FloatToF16, r)),
            (Value::R(r), (Float, 4), (Brain, 2)) if rounds => Value::R(self.step(Narrow::FloatToBf16, r)),
            (Value::R(r), (Float, 4), (Float, 8)) if modifiers.is_empty() => {
                Value::W(self.widen(Widen::FloatToDouble, r))
            }
            (Value::W(w), (Float, 8), (Float, 4)) if rounds => {
                Value::R(self.shorten(Shorten::DoubleToFloat, w))
            }
            (same, (Float, 4), (Float, 4)) | (same, (Float, 8), (Float, 8)) if modifiers.is_empty() => same,
            (Value::R(r), (Float, 4), (Float, 4)) => {
                let narrow = narrow_floats(modifiers)?;
                Value::R(self.step(narrow, r))
            }
            (Value::W(w), (Float, 8), (Float, 8)) => match modifiers {
                [mode] => {
                    let mode = rounding(mode)?;
                    Value::W(self.wide(Wide::Round(mode), w))
                }
                _ => return None,
            },
            _ => return None,
        })
    }

    /// Into the register, cut to the type and extended to the register's width.
    fn deliver(&mut self, value: Value, kind: Type, d: &Operand<'a>) -> Result<(), String> {
        let op = match (value, self.result(d)?) {
            (Value::W(w), Register::W(to)) => Op::Unary64(Unary::Move, to, w),
            (Value::R(r), Register::R(to)) => match (kind.is_integer(), kind.bytes, kind.is_signed()) {
                // A 16-bit register is zero-extended, whatever the type; one of 32 bits follows it.
                (true, 1, true) => {
                    let extended = self.step(Narrow::Sign8, r);
                    let zero = self.registers.is_16(d);
                    if zero {
                        Op::Narrow(Narrow::Zero16, to, extended)
                    } else {
                        Op::Unary32(Unary::Move, to, extended)
                    }
                }
                (true, 1, false) => Op::Narrow(Narrow::Zero8, to, r),
                (true, 2, true) if !self.registers.is_16(d) => Op::Narrow(Narrow::Sign16, to, r),
                (true, 2, _) => Op::Narrow(Narrow::Zero16, to, r),
                _ => Op::Unary32(Unary::Move, to, r),
            },
            (Value::R(r), Register::W(to)) => {
                Op::Widen(if kind.is_signed() { Widen::Sign } else { Widen::Zero }, to, r)
            }
            (_, to) => return Err(format!("{to:?} does not hold the result of this conversion")),
        };
        self.emit(op);
        Ok(())
    }
}
