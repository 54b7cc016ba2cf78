//! From a tree to a program: what opcodes mean, and where registers, numbers and variables lie.
mod arithmetic;
mod bits;
mod control;
mod convert;
mod memory;
mod registers;
mod types;
mod warp;

use crate::{
    Error,
    program::{Condition, Op, P, Parameter, Place, Program, R, Step, TRUE, W},
    run::windows,
    syntax::{Entry, Instruction, Operand, Space, Statement, Variable},
};
use registers::{Register, Registers};
use std::collections::HashMap;
use types::Type;

/// What an instruction's decoder says: whether the opcode is one of its own.
type Decoded = Result<bool, String>;

/// Where the module's variables lie, and their first values.
#[derive(Debug, Default)]
pub(crate) struct Statics<'a> {
    pub(crate) image: Vec<u8>,
    places: HashMap<&'a str, u64>,
    shared: Vec<Variable<'a>>,
}

impl<'a> Statics<'a> {
    /// Lays out the variables of a module.
    pub(crate) fn new(variables: Vec<Variable<'a>>) -> Statics<'a> {
        let mut statics = Statics::default();
        for variable in variables {
            if variable.space == Space::Shared {
                statics.shared.push(variable);
                continue;
            }
            let at = statics.image.len().next_multiple_of(variable.align.max(16));
            statics.image.resize(at + variable.bytes(), 0);
            for (i, value) in variable.values.iter().enumerate() {
                let to = at + i * variable.element;
                statics.image[to..to + variable.element]
                    .copy_from_slice(&value.to_le_bytes()[..variable.element]);
            }
            statics.places.insert(variable.name, windows::STATICS + at as u64);
        }
        statics
    }
}

/// A program under construction.
struct Decoder<'a> {
    program: Program,
    registers: Registers<'a>,
    /// The addresses of variables in their spaces.
    symbols: HashMap<&'a str, u64>,
    parameters: HashMap<&'a str, Parameter>,
    numbers: HashMap<(bool, u64), u16>,
    special: HashMap<&'a str, R>,
    labels: HashMap<&'a str, u32>,
    targets: HashMap<&'a str, Vec<&'a str>>,
    /// Steps whose targets are labels yet.
    branches: Vec<(usize, Vec<&'a str>)>,
    when: Condition,
    line: u32,
}

/// Decodes a kernel.
///
/// # Errors
/// What is not understood, and where.
pub(crate) fn decode<'a>(entry: &Entry<'a>, statics: &Statics<'a>) -> Result<Program, Error> {
    let mut decoder = Decoder {
        program: Program { name: entry.name.into(), most_threads: entry.most_threads, ..Program::default() },
        registers: Registers::new(),
        symbols: statics.places.clone(),
        parameters: HashMap::new(),
        numbers: HashMap::new(),
        special: HashMap::new(),
        labels: HashMap::new(),
        targets: HashMap::new(),
        branches: Vec::new(),
        when: Condition::ALWAYS,
        line: 0,
    };
    decoder.lay_out(entry, statics);
    for (statement, line) in &entry.body {
        decoder.line = *line;
        decoder.statement(statement).map_err(|what| Error::new(*line, what))?;
    }
    decoder.when = Condition::ALWAYS;
    decoder.emit(Op::Exit);
    decoder.link().map_err(|(line, what)| Error::new(line, what))?;
    decoder.program.rows = decoder.registers.counts();
    Ok(decoder.program)
}

impl<'a> Decoder<'a> {
    /// Places parameters and variables. Dynamic shared memory begins where the declared one ends.
    fn lay_out(&mut self, entry: &Entry<'a>, statics: &Statics<'a>) {
        let mut end = 0;
        for p in &entry.parameters {
            let parameter = Parameter { offset: usize::next_multiple_of(end, p.align), bytes: p.bytes() };
            end = parameter.offset + parameter.bytes;
            self.program.parameters.push(parameter);
            self.parameters.insert(p.name, parameter);
        }
        let own = entry.body.iter().filter_map(|(s, _)| match s {
            Statement::Variable(v) => Some(v),
            _ => None,
        });
        let all: Vec<&Variable> = statics.shared.iter().chain(own).collect();
        let align = all.iter().filter(|v| v.space == Space::Shared).map(|v| v.align).max().unwrap_or(1);
        for v in all.iter().filter(|v| v.count.is_some()) {
            let (end, base) = match v.space {
                Space::Shared => (&mut self.program.shared, windows::SPACE),
                Space::Local => (&mut self.program.local, windows::SPACE),
                _ => continue,
            };
            let at = end.next_multiple_of(v.align);
            *end = at + v.bytes();
            self.symbols.insert(v.name, base + at as u64);
        }
        self.program.shared = self.program.shared.next_multiple_of(align.max(16));
        for v in all.iter().filter(|v| v.count.is_none()) {
            self.symbols.insert(v.name, windows::SPACE + self.program.shared as u64);
        }
    }

    fn statement(&mut self, statement: &Statement<'a>) -> Result<(), String> {
        match statement {
            Statement::Open => self.registers.open(),
            Statement::Close => self.registers.close(),
            Statement::Registers { kind, name, count } => self.registers.declare(kind, name, *count)?,
            Statement::Variable(v) if v.space == Space::Param => {
                return Err("parameters of functions that are called are not interpreted".into());
            }
            Statement::Variable(_) => {}
            Statement::Label(name) => {
                self.labels.insert(name, self.program.steps.len() as u32);
            }
            Statement::Targets(name, labels) => {
                self.targets.insert(name, labels.clone());
            }
            Statement::Instruction(instruction) => self.instruction(instruction)?,
        }
        Ok(())
    }

    fn instruction(&mut self, instruction: &Instruction<'a>) -> Result<(), String> {
        self.when = match instruction.guard {
            None => Condition::ALWAYS,
            Some((name, negated)) => Condition { of: self.predicate_named(name)?, negated },
        };
        let parts: Vec<&str> = instruction.opcode.split('.').collect();
        let operands = &instruction.operands;
        let known = self.arithmetic(&parts, operands)?
            || self.bits(&parts, operands)?
            || self.convert(&parts, operands)?
            || self.memory(&parts, operands)?
            || self.warp(&parts, operands)?
            || self.control(&parts, operands)?;
        if known { Ok(()) } else { Err(format!("the opcode `{}` is not interpreted", instruction.opcode)) }
    }

    fn emit(&mut self, op: Op) {
        self.program.steps.push(Step { when: self.when, op, line: self.line });
    }

    /// Puts addresses in the place of labels.
    fn link(&mut self) -> Result<(), (u32, String)> {
        for (at, names) in std::mem::take(&mut self.branches) {
            let step = &mut self.program.steps[at];
            let to: Option<Vec<u32>> = names.iter().map(|n| self.labels.get(n).copied()).collect();
            let to = to.ok_or_else(|| (step.line, format!("one of the labels {names:?} is nowhere")))?;
            match &mut step.op {
                Op::Branch(target) => *target = to[0],
                Op::BranchTable(_, targets) => *targets = to.into(),
                other => return Err((step.line, format!("{other:?} does not branch"))),
            }
        }
        Ok(())
    }

    fn fresh_r(&mut self) -> R {
        self.registers.fresh_r()
    }
    fn fresh_w(&mut self) -> W {
        self.registers.fresh_w()
    }

    /// The row of 32 bits that holds a number.
    fn number_r(&mut self, bits: u64) -> R {
        let bits = bits & 0xffff_ffff;
        if let Some(&row) = self.numbers.get(&(false, bits)) {
            return R(row);
        }
        let row = self.fresh_r();
        self.numbers.insert((false, bits), row.0);
        self.program.numbers.push((Place::R(row), bits));
        row
    }
    fn number_w(&mut self, bits: u64) -> W {
        if let Some(&row) = self.numbers.get(&(true, bits)) {
            return W(row);
        }
        let row = self.fresh_w();
        self.numbers.insert((true, bits), row.0);
        self.program.numbers.push((Place::W(row), bits));
        row
    }

    /// A 32-bit operand that is read.
    fn r(&mut self, operand: &Operand<'a>) -> Result<R, String> {
        match operand {
            Operand::Bits(bits) => Ok(self.number_r(*bits)),
            Operand::Name("WARP_SZ") => Ok(self.number_r(32)),
            Operand::Name(name) => match self.registers.find(name) {
                Some(Register::R(r)) => Ok(r),
                Some(_) => Err(format!("`{name}` is not a register of 32 or 16 bits")),
                None => match self.symbols.get(name) {
                    Some(&address) => Ok(self.number_r(address)),
                    None => self.special(name),
                },
            },
            other => Err(format!("{other:?} is no operand of 32 bits")),
        }
    }
    /// The same, as 16 bits.
    fn r16(&mut self, operand: &Operand<'a>) -> Result<R, String> {
        match operand {
            Operand::Bits(bits) => Ok(self.number_r(bits & 0xffff)),
            other => self.r(other),
        }
    }
    /// The same, for a type of at most 32 bits.
    fn narrow(&mut self, operand: &Operand<'a>, kind: Type) -> Result<R, String> {
        if kind.bytes == 2 { self.r16(operand) } else { self.r(operand) }
    }
    /// A 64-bit operand that is read.
    fn w(&mut self, operand: &Operand<'a>) -> Result<W, String> {
        match operand {
            Operand::Bits(bits) => Ok(self.number_w(*bits)),
            Operand::Name(name) => match (self.registers.find(name), self.symbols.get(name)) {
                (Some(Register::W(w)), _) => Ok(w),
                (None, Some(&address)) => Ok(self.number_w(address)),
                _ => Err(format!("`{name}` is not a register of 64 bits")),
            },
            other => Err(format!("{other:?} is no operand of 64 bits")),
        }
    }
    /// A register that is written.
    fn result(&mut self, operand: &Operand<'a>) -> Result<Register, String> {
        match operand {
            Operand::Name(name) => {
                self.registers.find(name).ok_or_else(|| format!("`{name}` is not a register"))
            }
            other => Err(format!("{other:?} is not a register")),
        }
    }
    fn result_r(&mut self, operand: &Operand<'a>) -> Result<R, String> {
        match self.result(operand)? {
            Register::R(r) => Ok(r),
            other => Err(format!("{other:?} is not a register of 32 or 16 bits")),
        }
    }
    fn result_w(&mut self, operand: &Operand<'a>) -> Result<W, String> {
        match self.result(operand)? {
            Register::W(w) => Ok(w),
            other => Err(format!("{other:?} is not a register of 64 bits")),
        }
    }
    fn result_p(&mut self, operand: &Operand<'a>) -> Result<P, String> {
        match operand {
            Operand::Name(name) => self.predicate_named(name),
            other => Err(format!("{other:?} is no predicate")),
        }
    }
    fn predicate_named(&mut self, name: &str) -> Result<P, String> {
        match self.registers.find(name) {
            Some(Register::P(p)) => Ok(p),
            _ => Err(format!("`{name}` is no predicate")),
        }
    }
    /// A predicate that is read: `p`, `!p`, or a number.
    fn condition(&mut self, operand: &Operand<'a>) -> Result<Condition, String> {
        match operand {
            Operand::Name(name) => Ok(Condition { of: self.predicate_named(name)?, negated: false }),
            Operand::Not(name) => Ok(Condition { of: self.predicate_named(name)?, negated: true }),
            Operand::Bits(bits) => Ok(Condition { of: TRUE, negated: *bits == 0 }),
            other => Err(format!("{other:?} is no predicate")),
        }
    }
}

/// So many operands.
fn take<'o, 'a, const N: usize>(operands: &'o [Operand<'a>]) -> Result<&'o [Operand<'a>; N], String> {
    operands.try_into().map_err(|_| format!("{} operands, not {N}", operands.len()))
}
