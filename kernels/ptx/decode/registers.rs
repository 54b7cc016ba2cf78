//! The registers of a kernel, numbered by class, and the scopes in which their names are seen.
use crate::{
    program::{P, R, W},
    syntax::Operand,
};
use std::collections::HashMap;

/// A register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Register {
    R(R),
    W(W),
    P(P),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    R,
    W,
    P,
}

/// A declaration: the class, the first number, and how many numbered names there are.
#[derive(Clone, Copy)]
struct Range {
    class: Class,
    first: u16,
    count: Option<usize>,
    /// Of 16 bits: kept in a row of 32, zero-extended.
    is_16: bool,
}

/// All registers so far.
pub(super) struct Registers<'a> {
    scopes: Vec<HashMap<&'a str, Range>>,
    /// Of 32 bits, of 64, and predicates, of which the first is always true.
    counts: [usize; 3],
}

impl<'a> Registers<'a> {
    pub(super) fn new() -> Registers<'a> {
        Registers { scopes: vec![HashMap::new()], counts: [0, 0, 1] }
    }
    pub(super) fn counts(&self) -> [usize; 3] {
        self.counts
    }
    pub(super) fn open(&mut self) {
        self.scopes.push(HashMap::new());
    }
    pub(super) fn close(&mut self) {
        self.scopes.pop();
    }

    /// `.reg .kind name` or `.reg .kind name<count>`.
    pub(super) fn declare(&mut self, kind: &str, name: &'a str, count: Option<usize>) -> Result<(), String> {
        let class = match (kind, crate::syntax::bytes_of(kind)) {
            (".pred", _) => Class::P,
            (_, Some(2 | 4)) => Class::R,
            (_, Some(8)) => Class::W,
            _ => return Err(format!("registers of the type `{kind}` are not interpreted")),
        };
        let first = self.reserve(class, count.unwrap_or(1))?;
        let scope = self.scopes.last_mut().ok_or("a register outside of every scope")?;
        let is_16 = crate::syntax::bytes_of(kind) == Some(2);
        scope.insert(name, Range { class, first, count, is_16 });
        Ok(())
    }
    fn reserve(&mut self, class: Class, n: usize) -> Result<u16, String> {
        let count = &mut self.counts[class as usize];
        let first = u16::try_from(*count).map_err(|_| "more than 65535 registers")?;
        *count += n;
        if *count > usize::from(u16::MAX) { Err("more than 65535 registers".into()) } else { Ok(first) }
    }
    /// A register without a name. There are never so many that the numbers run out before those of the text do.
    pub(super) fn fresh_r(&mut self) -> R {
        self.counts[0] += 1;
        R((self.counts[0] - 1) as u16)
    }
    pub(super) fn fresh_w(&mut self) -> W {
        self.counts[1] += 1;
        W((self.counts[1] - 1) as u16)
    }
    pub(super) fn fresh_p(&mut self) -> P {
        self.counts[2] += 1;
        P((self.counts[2] - 1) as u16)
    }

    /// Whether a register that is written has 16 bits.
    pub(super) fn is_16(&self, operand: &Operand<'_>) -> bool {
        matches!(operand, Operand::Name(name) if self.range(name).is_some_and(|(range, _)| range.is_16))
    }

    /// The register with this name, of the innermost scope that has one.
    pub(super) fn find(&self, name: &str) -> Option<Register> {
        let (range, n) = self.range(name)?;
        let number = range.first + n as u16;
        Some(match range.class {
            Class::R => Register::R(R(number)),
            Class::W => Register::W(W(number)),
            Class::P => Register::P(P(number)),
        })
    }

    fn range(&self, name: &str) -> Option<(&Range, usize)> {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let nth = name[stem.len()..].parse::<usize>().ok();
        self.scopes.iter().rev().find_map(|scope| {
            let alone = scope.get(name).filter(|r| r.count.is_none()).map(|r| (r, 0));
            let numbered = || {
                let range = scope.get(stem)?;
                nth.filter(|&n| range.count.is_some_and(|c| n < c)).map(|n| (range, n))
            };
            alone.or_else(numbered)
        })
    }
}
