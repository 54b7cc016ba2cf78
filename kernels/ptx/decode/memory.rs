//! Loads, stores and asynchronous copies.
use super::{Decoded, Decoder, registers::Register, take, types::Type};
use crate::{
    program::{Access, Address, Base, Copy, Given, Op, Place, Unary},
    syntax::{Operand, Space},
};

/// Which caches an access goes through, and in which order others see it, makes no difference here.
const HINTS: &[&str] = &["nc", "ca", "cg", "cs", "cv", "lu", "wb", "wt", "volatile", "weak"];

/// What the parts behind `ld` or `st` say.
struct Form {
    space: Option<Space>,
    count: usize,
    kind: Type,
}

fn form(parts: &[&str]) -> Option<Form> {
    let (last, modifiers) = parts.split_last()?;
    let mut form = Form { space: None, count: 1, kind: Type::parse(last)? };
    for part in modifiers {
        match *part {
            "global" => form.space = Some(Space::Global),
            "shared" | "shared::cta" => form.space = Some(Space::Shared),
            "local" => form.space = Some(Space::Local),
            // Variables in constant memory lie among those in global memory.
            "const" => form.space = Some(Space::Global),
            "param" => form.space = Some(Space::Param),
            "v2" => form.count = 2,
            "v4" => form.count = 4,
            hint if HINTS.contains(&hint) || hint.starts_with("L1::") || hint.starts_with("L2::") => {}
            _ => return None,
        }
    }
    (form.kind != Type::PREDICATE).then_some(form)
}

fn elements<'o, 'a>(operand: &'o Operand<'a>, count: usize) -> Result<&'o [Operand<'a>], String> {
    let elements = match operand {
        Operand::Vector(elements) => elements.as_slice(),
        one => std::slice::from_ref(one),
    };
    if elements.len() == count {
        Ok(elements)
    } else {
        Err(format!("{} values, not {count}", elements.len()))
    }
}

impl<'a> Decoder<'a> {
    pub(super) fn memory(&mut self, parts: &[&str], operands: &[Operand<'a>]) -> Decoded {
        match parts {
            ["ld", rest @ ..] => match form(rest) {
                Some(form) if form.space == Some(Space::Param) => self.parameter(&form, take(operands)?),
                Some(form) => self.load(&form, take(operands)?),
                None => Ok(false),
            },
            ["st", rest @ ..] => match form(rest) {
                Some(form) if form.space != Some(Space::Param) => self.store(&form, take(operands)?),
                _ => Ok(false),
            },
            ["cp", "async", "ca" | "cg", "shared" | "shared::cta", "global", hints @ ..]
                if hints.iter().all(|h| h.starts_with("L2::")) =>
            {
                self.copy(operands)
            }
            ["cp", "async", "commit_group"] => self.plain(Op::Commit),
            ["cp", "async", "wait_group"] => {
                let [Operand::Bits(n)] = operands else { return Err("how many groups?".into()) };
                self.plain(Op::Wait(*n as u32))
            }
            ["cp", "async", "wait_all"] => {
                self.emit(Op::Commit);
                self.plain(Op::Wait(0))
            }
            _ => Ok(false),
        }
    }

    pub(super) fn plain(&mut self, op: Op) -> Decoded {
        self.emit(op);
        Ok(true)
    }

    /// A row that holds a parameter, and a move from it.
    fn parameter(&mut self, form: &Form, [d, from]: &[Operand<'a>; 2]) -> Decoded {
        let Operand::Address(base, offset) = from else { return Err(format!("{from:?} is no address")) };
        let Operand::Name(name) = **base else { return Err("parameters are loaded by name".into()) };
        let parameter =
            *self.parameters.get(name).ok_or_else(|| format!("no parameter is called `{name}`"))?;
        let (bytes, signed) = (form.kind.bytes, form.kind.is_signed());
        for (i, d) in elements(d, form.count)?.iter().enumerate() {
            let inside = usize::try_from(*offset).map_err(|_| "before the parameter")? + i * bytes;
            if inside + bytes > parameter.bytes {
                return Err(format!("behind the end of the parameter `{name}`"));
            }
            let (to, op) = match self.result(d)? {
                Register::R(r) => {
                    let row = self.fresh_r();
                    (Place::R(row), Op::Unary32(Unary::Move, r, row))
                }
                Register::W(w) => {
                    let row = self.fresh_w();
                    (Place::W(row), Op::Unary64(Unary::Move, w, row))
                }
                Register::P(_) => return Err("predicates are not loaded".into()),
            };
            let cut16 = self.registers.is_16(d);
            self.program.given.push(Given { to, offset: parameter.offset + inside, bytes, signed, cut16 });
            self.emit(op);
        }
        Ok(true)
    }

    fn load(&mut self, form: &Form, [d, from]: &[Operand<'a>; 2]) -> Decoded {
        let address = self.address(from)?;
        let mut cut16 = false;
        let mut values = Vec::new();
        for d in elements(d, form.count)? {
            if *d == Operand::Name("_") {
                values.push(Place::None);
                continue;
            }
            cut16 |= self.registers.is_16(d);
            values.push(match self.result(d)? {
                Register::R(r) if form.kind.bytes <= 4 => Place::R(r),
                Register::W(w) => Place::W(w),
                other => return Err(format!("{other:?} does not hold what is loaded")),
            });
        }
        let (bytes, signed) = (form.kind.bytes as u8, form.kind.is_signed());
        self.plain(Op::Load(Box::new(Access { space: form.space, address, bytes, signed, cut16, values })))
    }

    fn store(&mut self, form: &Form, [to, values]: &[Operand<'a>; 2]) -> Decoded {
        let address = self.address(to)?;
        let mut places = Vec::new();
        for value in elements(values, form.count)? {
            let is_wide = match value {
                Operand::Name(name) => matches!(self.registers.find(name), Some(Register::W(_))),
                _ => form.kind.bytes == 8,
            };
            places.push(if is_wide { Place::W(self.w(value)?) } else { Place::R(self.r(value)?) });
            if form.kind.bytes == 8 && !is_wide {
                return Err(format!("{value:?} is not a register of 64 bits"));
            }
        }
        let bytes = form.kind.bytes as u8;
        let access =
            Access { space: form.space, address, bytes, signed: false, cut16: false, values: places };
        self.plain(Op::Store(Box::new(access)))
    }

    /// `[to], [from], bytes` or `[to], [from], bytes, bytes read`.
    fn copy(&mut self, operands: &[Operand<'a>]) -> Decoded {
        let [to, from, Operand::Bits(bytes @ (4 | 8 | 16)), read @ ..] = operands else {
            return Err("not the operands of an asynchronous copy".into());
        };
        let (to, from) = (self.address(to)?, self.address(from)?);
        let read = match read {
            [] => None,
            [read] => Some(self.r(read)?),
            _ => return Err("too many operands".into()),
        };
        self.plain(Op::Copy(Box::new(Copy { to, from, bytes: *bytes as u8, read })))
    }

    /// `[base + offset]`; the base is a register, a variable or a number.
    pub(super) fn address(&mut self, operand: &Operand<'a>) -> Result<Address, String> {
        let Operand::Address(base, offset) = operand else {
            return Err(format!("{operand:?} is no address"));
        };
        let base = match &**base {
            Operand::Name(name) => match self.registers.find(name) {
                Some(Register::R(r)) => Base::R(r),
                _ => Base::W(self.w(base)?),
            },
            _ => Base::W(self.w(base)?),
        };
        Ok(Address { base, offset: *offset })
    }
}
