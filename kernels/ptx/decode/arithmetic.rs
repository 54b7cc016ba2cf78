//! Arithmetic: one, two and three operands, comparisons and selections.
use super::{Decoded, Decoder, take, types::Type};
use crate::{
    decode::types::Class,
    program::{Binary, Compare, Condition, Logic, Narrow, Op, P, R, Shift, Ternary, Unary, Verdict},
    syntax::Operand,
};

/// The operation of two operands with this name.
fn binary(name: &str, modifiers: &[&str], kind: Type) -> Option<Binary> {
    let by_sign = |signed, unsigned| if kind.is_signed() { signed } else { unsigned };
    if kind.is_integer() {
        return Some(match (name, modifiers) {
            ("add", []) => Binary::Add,
            ("sub", []) => Binary::Sub,
            ("mul", ["lo"]) => Binary::Mul,
            ("mul", ["hi"]) => by_sign(Binary::MulHighSigned, Binary::MulHighUnsigned),
            ("div", []) => by_sign(Binary::DivSigned, Binary::DivUnsigned),
            ("rem", []) => by_sign(Binary::RemSigned, Binary::RemUnsigned),
            ("min", []) => by_sign(Binary::MinSigned, Binary::MinUnsigned),
            ("max", []) => by_sign(Binary::MaxSigned, Binary::MaxUnsigned),
            ("and", []) => Binary::And,
            ("or", []) => Binary::Or,
            ("xor", []) => Binary::Xor,
            _ => return None,
        });
    }
    let operation = match (name, modifiers) {
        ("add", [] | ["rn"]) => Binary::AddFloat,
        ("sub", [] | ["rn"]) => Binary::SubFloat,
        ("mul", [] | ["rn"]) => Binary::MulFloat,
        ("div", ["rn"]) => Binary::DivFloat,
        ("min", []) => Binary::MinFloat,
        ("max", []) => Binary::MaxFloat,
        ("min", ["NaN"]) => Binary::MinNan,
        ("max", ["NaN"]) => Binary::MaxNan,
        ("copysign", []) => Binary::CopySign,
        _ => return None,
    };
    kind.is_float().then_some(operation)
}

fn unary(name: &str, modifiers: &[&str], kind: Type) -> Option<Unary> {
    match (name, modifiers) {
        ("not", []) if kind.is_integer() => Some(Unary::Not),
        ("neg", []) if kind.is_integer() => Some(Unary::Neg),
        ("abs", []) if kind.is_integer() => Some(Unary::Abs),
        ("brev", []) if kind.is_integer() => Some(Unary::Reverse),
        ("neg", []) if kind.is_float() => Some(Unary::NegFloat),
        ("abs", []) if kind.is_float() => Some(Unary::AbsFloat),
        ("sqrt", ["rn"]) if kind.is_float() => Some(Unary::SquareRoot),
        ("rcp", ["rn"]) if kind.is_float() => Some(Unary::Reciprocal),
        _ => None,
    }
}

/// A comparison: which one, whether its operands change places, whether its result is negated.
fn compare(name: &str, kind: Type) -> Option<(Compare, bool, bool)> {
    if kind.is_integer() {
        let (less, less_equal) = match kind.class {
            Class::Signed => (Compare::LessSigned, Compare::LessEqualSigned),
            _ => (Compare::LessUnsigned, Compare::LessEqualUnsigned),
        };
        return Some(match name {
            "eq" => (Compare::Equal, false, false),
            "ne" => (Compare::NotEqual, false, false),
            "lt" | "lo" => (less, false, false),
            "le" | "ls" => (less_equal, false, false),
            "gt" | "hi" => (less, true, false),
            "ge" | "hs" => (less_equal, true, false),
            _ => return None,
        });
    }
    let comparison = match name {
        "eq" => (Compare::EqualFloat, false, false),
        "ne" => (Compare::LessOrGreater, false, false),
        "lt" => (Compare::LessFloat, false, false),
        "le" => (Compare::LessEqualFloat, false, false),
        "gt" => (Compare::LessFloat, true, false),
        "ge" => (Compare::LessEqualFloat, true, false),
        "equ" => (Compare::LessOrGreater, false, true),
        "neu" => (Compare::EqualFloat, false, true),
        "ltu" => (Compare::LessEqualFloat, true, true),
        "leu" => (Compare::LessFloat, true, true),
        "gtu" => (Compare::LessEqualFloat, false, true),
        "geu" => (Compare::LessFloat, false, true),
        "num" => (Compare::Ordered, false, false),
        "nan" => (Compare::Ordered, false, true),
        _ => return None,
    };
    kind.is_float().then_some(comparison)
}

fn logic(name: &str) -> Option<Logic> {
    match name {
        "and" => Some(Logic::And),
        "or" => Some(Logic::Or),
        "xor" => Some(Logic::Xor),
        _ => None,
    }
}

impl<'a> Decoder<'a> {
    pub(super) fn arithmetic(&mut self, parts: &[&str], operands: &[Operand<'a>]) -> Decoded {
        let [name, modifiers @ .., last] = parts else { return Ok(false) };
        let Some(kind) = Type::parse(last) else { return Ok(false) };
        if kind == Type::PREDICATE {
            return self.predicates(name, modifiers, operands);
        }
        if let Some(operation) = binary(name, modifiers, kind) {
            return self.binary(operation, kind, take(operands)?);
        }
        if let Some(operation) = unary(name, modifiers, kind) {
            return self.unary(operation, kind, take(operands)?);
        }
        match (*name, modifiers) {
            ("mul", ["wide"]) => self.mul_wide(kind, take(operands)?),
            ("mad", ["wide"]) => self.mad_wide(kind, take(operands)?),
            ("mad", ["lo"]) if kind.is_integer() => self.ternary(Ternary::MulAdd, kind, take(operands)?),
            ("fma" | "mad", ["rn"]) if kind.is_float() => self.ternary(Ternary::Fma, kind, take(operands)?),
            ("mad", ["hi"]) if kind.is_integer() && kind.bytes == 4 => self.mad_high(kind, take(operands)?),
            ("setp", [comparison]) => self.setp(comparison, None, kind, operands),
            ("setp", [comparison, with]) => match logic(with) {
                Some(with) => self.setp(comparison, Some(with), kind, operands),
                None => Ok(false),
            },
            ("set", [comparison, to]) => self.set(comparison, to, kind, take(operands)?),
            ("selp", []) => self.selp(kind, take(operands)?),
            ("slct", [of]) => self.slct(of, kind, take(operands)?),
            _ => Ok(false),
        }
    }

    /// A row of 16 bits, extended as its type says.
    fn extended(&mut self, operand: &Operand<'a>, kind: Type) -> Result<R, String> {
        let row = self.narrow(operand, kind)?;
        if kind.bytes != 2 || !kind.is_signed() {
            return Ok(row);
        }
        let to = self.fresh_r();
        self.emit(Op::Narrow(Narrow::Sign16, to, row));
        Ok(to)
    }
    /// Writes what `op` makes, cut to the type.
    fn cut(&mut self, to: R, kind: Type, op: impl FnOnce(R) -> Op) {
        if kind.bytes != 2 {
            return self.emit(op(to));
        }
        let whole = self.fresh_r();
        self.emit(op(whole));
        self.emit(Op::Narrow(Narrow::Zero16, to, whole));
    }

    fn binary(&mut self, operation: Binary, kind: Type, [d, a, b]: &[Operand<'a>; 3]) -> Decoded {
        if kind.bytes == 8 {
            let op = Op::Binary64(operation, self.result_w(d)?, self.w(a)?, self.w(b)?);
            self.emit(op);
            return Ok(true);
        }
        let (to, a, b) = (self.result_r(d)?, self.extended(a, kind)?, self.extended(b, kind)?);
        if kind.bytes == 2 && matches!(operation, Binary::MulHighSigned | Binary::MulHighUnsigned) {
            let (product, sixteen) = (self.fresh_r(), self.number_r(16));
            self.emit(Op::Binary32(Binary::Mul, product, a, b));
            self.cut(to, kind, |to| Op::Shift32(Shift::RightUnsigned, to, product, sixteen));
        } else {
            self.cut(to, kind, |to| Op::Binary32(operation, to, a, b));
        }
        Ok(true)
    }

    fn unary(&mut self, operation: Unary, kind: Type, [d, a]: &[Operand<'a>; 2]) -> Decoded {
        if kind.bytes == 8 {
            let op = Op::Unary64(operation, self.result_w(d)?, self.w(a)?);
            self.emit(op);
        } else {
            let (to, a) = (self.result_r(d)?, self.extended(a, kind)?);
            self.cut(to, kind, |to| Op::Unary32(operation, to, a));
        }
        Ok(true)
    }

    fn ternary(&mut self, operation: Ternary, kind: Type, [d, a, b, c]: &[Operand<'a>; 4]) -> Decoded {
        if kind.bytes == 8 {
            let op = Op::Ternary64(operation, self.result_w(d)?, self.w(a)?, self.w(b)?, self.w(c)?);
            self.emit(op);
        } else {
            let (to, a, b) = (self.result_r(d)?, self.narrow(a, kind)?, self.narrow(b, kind)?);
            let c = self.narrow(c, kind)?;
            self.cut(to, kind, |to| Op::Ternary32(operation, to, a, b, c));
        }
        Ok(true)
    }

    fn mul_wide(&mut self, kind: Type, [d, a, b]: &[Operand<'a>; 3]) -> Decoded {
        let of = [self.extended(a, kind)?, self.extended(b, kind)?];
        let op = match kind.bytes {
            2 => Op::Binary32(Binary::Mul, self.result_r(d)?, of[0], of[1]),
            4 => Op::MulWide { signed: kind.is_signed(), to: self.result_w(d)?, of, plus: None },
            _ => return Ok(false),
        };
        self.emit(op);
        Ok(true)
    }

    fn mad_wide(&mut self, kind: Type, [d, a, b, c]: &[Operand<'a>; 4]) -> Decoded {
        let of = [self.extended(a, kind)?, self.extended(b, kind)?];
        let op = match kind.bytes {
            2 => Op::Ternary32(Ternary::MulAdd, self.result_r(d)?, of[0], of[1], self.r(c)?),
            4 => Op::MulWide { signed: kind.is_signed(), to: self.result_w(d)?, of, plus: Some(self.w(c)?) },
            _ => return Ok(false),
        };
        self.emit(op);
        Ok(true)
    }

    fn mad_high(&mut self, kind: Type, [d, a, b, c]: &[Operand<'a>; 4]) -> Decoded {
        let high = if kind.is_signed() { Binary::MulHighSigned } else { Binary::MulHighUnsigned };
        let (to, a, b, c, product) = (self.result_r(d)?, self.r(a)?, self.r(b)?, self.r(c)?, self.fresh_r());
        self.emit(Op::Binary32(high, product, a, b));
        self.emit(Op::Binary32(Binary::Add, to, product, c));
        Ok(true)
    }

    /// `setp p, a, b`, `setp p|q, a, b`, `setp.and p, a, b, c`.
    fn setp(&mut self, name: &str, with: Option<Logic>, kind: Type, operands: &[Operand<'a>]) -> Decoded {
        let Some(comparison) = compare(name, kind) else { return Ok(false) };
        let (d, a, b, with) = match (operands, with) {
            ([d, a, b], None) => (d, a, b, None),
            ([d, a, b, c], Some(with)) => (d, a, b, Some((with, self.condition(c)?))),
            _ => return Err(format!("{} operands", operands.len())),
        };
        let (to, opposite) = match d {
            Operand::Both(p, q) => (self.predicate_named(p)?, Some(self.predicate_named(q)?)),
            other => (self.result_p(other)?, None),
        };
        self.compare(comparison, kind, [a, b], Verdict { negated: comparison.2, to, opposite, with })?;
        Ok(true)
    }

    fn compare(
        &mut self,
        (comparison, swapped, _): (Compare, bool, bool),
        kind: Type,
        [a, b]: [&Operand<'a>; 2],
        verdict: Verdict,
    ) -> Result<(), String> {
        let [a, b] = if swapped { [b, a] } else { [a, b] };
        let op = if kind.bytes == 8 {
            Op::Compare64(comparison, self.w(a)?, self.w(b)?, verdict)
        } else {
            Op::Compare32(comparison, self.extended(a, kind)?, self.extended(b, kind)?, verdict)
        };
        self.emit(op);
        Ok(())
    }

    /// A comparison whose result nobody has named.
    fn compare_fresh(&mut self, name: &str, kind: Type, of: [&Operand<'a>; 2]) -> Result<Option<P>, String> {
        let Some(comparison) = compare(name, kind) else { return Ok(None) };
        let to = self.registers.fresh_p();
        self.compare(
            comparison,
            kind,
            of,
            Verdict { negated: comparison.2, to, opposite: None, with: None },
        )?;
        Ok(Some(to))
    }

    /// All ones, or 1.0, where the comparison holds, else zero.
    fn set(&mut self, name: &str, to: &str, kind: Type, [d, a, b]: &[Operand<'a>; 3]) -> Decoded {
        let one = match to {
            "u32" | "s32" => 0xffff_ffff,
            "f32" => 0x3f80_0000,
            _ => return Ok(false),
        };
        let Some(of) = self.compare_fresh(name, kind, [a, b])? else { return Ok(false) };
        let op = Op::Select32(
            self.result_r(d)?,
            self.number_r(one),
            self.number_r(0),
            Condition { of, negated: false },
        );
        self.emit(op);
        Ok(true)
    }

    fn selp(&mut self, kind: Type, [d, a, b, c]: &[Operand<'a>; 4]) -> Decoded {
        let condition = self.condition(c)?;
        self.select(kind, [d, a, b], condition)
    }

    fn select(&mut self, kind: Type, [d, a, b]: [&Operand<'a>; 3], condition: Condition) -> Decoded {
        let op = if kind.bytes == 8 {
            Op::Select64(self.result_w(d)?, self.w(a)?, self.w(b)?, condition)
        } else {
            Op::Select32(self.result_r(d)?, self.narrow(a, kind)?, self.narrow(b, kind)?, condition)
        };
        self.emit(op);
        Ok(true)
    }

    /// a where c is at least zero, else b.
    fn slct(&mut self, of: &str, kind: Type, [d, a, b, c]: &[Operand<'a>; 4]) -> Decoded {
        let Some(sign) = Type::parse(of).filter(|t| t.bytes == 4) else { return Ok(false) };
        let Some(of) = self.compare_fresh("ge", sign, [c, &Operand::Bits(0)])? else { return Ok(false) };
        self.select(kind, [d, a, b], Condition { of, negated: false })
    }

    /// Operations on predicates.
    fn predicates(&mut self, name: &str, modifiers: &[&str], operands: &[Operand<'a>]) -> Decoded {
        let op = match (name, modifiers, operands) {
            ("mov", [], [d, a]) => {
                Op::Logic(Logic::And, self.result_p(d)?, self.condition(a)?, Condition::ALWAYS)
            }
            ("not", [], [d, a]) => {
                Op::Logic(Logic::Xor, self.result_p(d)?, self.condition(a)?, Condition::ALWAYS)
            }
            (name, [], [d, a, b]) => match logic(name) {
                Some(logic) => Op::Logic(logic, self.result_p(d)?, self.condition(a)?, self.condition(b)?),
                None => return Ok(false),
            },
            _ => return Ok(false),
        };
        self.emit(op);
        Ok(true)
    }
}
