//! Shifts, fields and counts of bits.
use super::{Decoded, Decoder, take, types::Type};
use crate::{
    program::{Bits, Count, Narrow, Op, R, Shift},
    syntax::Operand,
};

impl<'a> Decoder<'a> {
    pub(super) fn bits(&mut self, parts: &[&str], operands: &[Operand<'a>]) -> Decoded {
        let [.., last] = parts else { return Ok(false) };
        let Some(kind) = Type::parse(last).filter(|t| t.is_integer()) else { return Ok(false) };
        match parts {
            ["shl", _] => self.shift(Shift::Left, kind, take(operands)?),
            ["shr", _] if kind.is_signed() => self.shift(Shift::RightSigned, kind, take(operands)?),
            ["shr", _] => self.shift(Shift::RightUnsigned, kind, take(operands)?),
            ["popc", _] => self.count(Count::Ones, kind, take(operands)?),
            ["clz", _] => self.count(Count::LeadingZeros, kind, take(operands)?),
            ["bfind", _] if !kind.is_signed() => self.count(Count::Highest, kind, take(operands)?),
            ["bfind", "shiftamt", _] if !kind.is_signed() => {
                self.count(Count::HighestShift, kind, take(operands)?)
            }
            ["bfe", "u32"] => self.three(Bits::ExtractUnsigned, take(operands)?),
            ["bfe", "s32"] => self.three(Bits::ExtractSigned, take(operands)?),
            ["bfi", "b32"] => self.insert(take(operands)?),
            ["bfi", "b64"] => self.insert_wide(take(operands)?),
            ["prmt", "b32"] => self.three(Bits::Permute, take(operands)?),
            ["shf", "l", mode @ ("wrap" | "clamp"), "b32"] => {
                self.three(Bits::FunnelLeft { wrap: *mode == "wrap" }, take(operands)?)
            }
            ["shf", "r", mode @ ("wrap" | "clamp"), "b32"] => {
                self.three(Bits::FunnelRight { wrap: *mode == "wrap" }, take(operands)?)
            }
            ["lop3", "b32"] => self.table(take(operands)?),
            _ => Ok(false),
        }
    }

    fn shift(&mut self, shift: Shift, kind: Type, [d, a, by]: &[Operand<'a>; 3]) -> Decoded {
        let by = self.r(by)?;
        if kind.bytes == 8 {
            let op = Op::Shift64(shift, self.result_w(d)?, self.w(a)?, by);
            self.emit(op);
            return Ok(true);
        }
        let (to, a) = (self.result_r(d)?, self.narrow(a, kind)?);
        if kind.bytes == 4 {
            self.emit(Op::Shift32(shift, to, a, by));
            return Ok(true);
        }
        let (extended, shifted) = (self.fresh_r(), self.fresh_r());
        let extend = if shift == Shift::RightSigned { Narrow::Sign16 } else { Narrow::Zero16 };
        self.emit(Op::Narrow(extend, extended, a));
        self.emit(Op::Shift32(shift, shifted, extended, by));
        self.emit(Op::Narrow(Narrow::Zero16, to, shifted));
        Ok(true)
    }

    fn count(&mut self, count: Count, kind: Type, [d, a]: &[Operand<'a>; 2]) -> Decoded {
        let op = match kind.bytes {
            4 => Op::Count32(count, self.result_r(d)?, self.r(a)?),
            8 => Op::Count64(count, self.result_r(d)?, self.w(a)?),
            _ => return Ok(false),
        };
        self.emit(op);
        Ok(true)
    }

    fn three(&mut self, bits: Bits, [d, a, b, c]: &[Operand<'a>; 4]) -> Decoded {
        let of = [self.r(a)?, self.r(b)?, self.r(c)?];
        let to = self.result_r(d)?;
        self.emit(Op::Bits(bits, to, of));
        Ok(true)
    }

    fn insert(&mut self, [d, a, b, at, n]: &[Operand<'a>; 5]) -> Decoded {
        let of: [R; 4] = [self.r(a)?, self.r(b)?, self.r(at)?, self.r(n)?];
        let to = self.result_r(d)?;
        self.emit(Op::Insert(to, of));
        Ok(true)
    }

    fn insert_wide(&mut self, [d, a, b, at, n]: &[Operand<'a>; 5]) -> Decoded {
        let (of, place) = ([self.w(a)?, self.w(b)?], [self.r(at)?, self.r(n)?]);
        let to = self.result_w(d)?;
        self.emit(Op::Insert64(to, of, place));
        Ok(true)
    }

    fn table(&mut self, [d, a, b, c, table]: &[Operand<'a>; 5]) -> Decoded {
        let Operand::Bits(table) = table else { return Err("a truth table is a number".into()) };
        let table = u8::try_from(*table).map_err(|_| "a truth table has eight bits")?;
        self.three(Bits::Table(table), &[d.clone(), a.clone(), b.clone(), c.clone()])
    }
}
