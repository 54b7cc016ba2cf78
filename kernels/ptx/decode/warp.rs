//! What the lanes of a warp, or the threads of a block, do together.
use super::{Decoded, Decoder, take, types::Type};
use crate::{
    program::{Ballot, Binary, Condition, Exchange, Mma, Op, R, Reduction, Shuffle},
    syntax::Operand,
};

fn exchange(name: &str) -> Option<Exchange> {
    match name {
        "up" => Some(Exchange::Up),
        "down" => Some(Exchange::Down),
        "bfly" => Some(Exchange::Butterfly),
        "idx" => Some(Exchange::Index),
        _ => None,
    }
}

fn reduction(name: &str, signed: bool) -> Option<Binary> {
    match name {
        "add" => Some(Binary::Add),
        "min" => Some(if signed { Binary::MinSigned } else { Binary::MinUnsigned }),
        "max" => Some(if signed { Binary::MaxSigned } else { Binary::MaxUnsigned }),
        "and" => Some(Binary::And),
        "or" => Some(Binary::Or),
        "xor" => Some(Binary::Xor),
        _ => None,
    }
}

impl<'a> Decoder<'a> {
    pub(super) fn warp(&mut self, parts: &[&str], operands: &[Operand<'a>]) -> Decoded {
        match parts {
            ["ldmatrix", "sync", "aligned", "m8n8", n, rest @ ..] => self.matrices(n, rest, operands),
            ["mma", "sync", "aligned", "m16n8k16", "row", "col", "f32", kind, other, "f32"]
                if kind == other && matches!(*kind, "bf16" | "f16") =>
            {
                self.mma(*kind == "bf16", take(operands)?)
            }
            ["shfl", "sync", kind, "b32"] => match exchange(kind) {
                Some(kind) => self.shuffle(kind, take(operands)?),
                None => Ok(false),
            },
            ["vote", "sync", kind, "pred"] => match *kind {
                "all" => self.vote(Ballot::All, take(operands)?),
                "any" => self.vote(Ballot::Any, take(operands)?),
                "uni" => self.vote(Ballot::Uniform, take(operands)?),
                _ => Ok(false),
            },
            ["vote", "sync", "ballot", "b32"] => {
                let [d, of, members] = take(operands)?;
                let (to, of, members) = (self.result_r(d)?, self.condition(of)?, self.r(members)?);
                self.plain(Op::Ballot { to, of, members })
            }
            ["activemask", "b32"] => {
                let [d] = take(operands)?;
                let to = self.result_r(d)?;
                self.plain(Op::ActiveMask(to))
            }
            ["redux", "sync", name, kind] => {
                let kind = Type::parse(kind).filter(|t| t.is_integer() && t.bytes == 4);
                match kind.and_then(|kind| reduction(name, kind.is_signed())) {
                    Some(with) => self.reduce(with, take(operands)?),
                    None => Ok(false),
                }
            }
            ["bar", "warp", "sync"] => {
                let [members] = take(operands)?;
                let members = self.r(members)?;
                self.plain(Op::SyncWarp(members))
            }
            ["bar" | "barrier", "sync"] | ["barrier", "sync", "aligned"] | ["bar", "cta", "sync"] => {
                let id = barrier(operands.first().filter(|_| operands.len() == 1))?;
                self.plain(Op::Barrier(id))
            }
            ["bar" | "barrier", "red", rest @ ..] => self.barrier_reduce(rest, take(operands)?),
            _ => Ok(false),
        }
    }

    fn rows<const N: usize>(&mut self, operand: &Operand<'a>) -> Result<[R; N], String> {
        let Operand::Vector(parts) = operand else { return Err(format!("{operand:?} is no vector")) };
        let rows: Vec<R> = parts.iter().map(|p| self.r(p)).collect::<Result<_, _>>()?;
        rows.try_into().map_err(|r: Vec<R>| format!("{} registers, not {N}", r.len()))
    }

    fn matrices(&mut self, n: &str, rest: &[&str], operands: &[Operand<'a>]) -> Decoded {
        let transposed = match rest {
            ["shared" | "shared::cta", "b16"] => false,
            ["trans", "shared" | "shared::cta", "b16"] => true,
            _ => return Ok(false),
        };
        let [d, from] = take(operands)?;
        let to: Box<[R]> = match n {
            "x1" => Box::new(self.rows::<1>(d)?),
            "x2" => Box::new(self.rows::<2>(d)?),
            "x4" => Box::new(self.rows::<4>(d)?),
            _ => return Ok(false),
        };
        let address = self.address(from)?;
        self.plain(Op::Matrices { transposed, address, to })
    }

    fn mma(&mut self, bf16: bool, [d, a, b, c]: &[Operand<'a>; 4]) -> Decoded {
        let mma = Mma { bf16, d: self.rows(d)?, a: self.rows(a)?, b: self.rows(b)?, c: self.rows(c)? };
        self.plain(Op::Mma(Box::new(mma)))
    }

    fn shuffle(&mut self, kind: Exchange, [d, a, b, c, members]: &[Operand<'a>; 5]) -> Decoded {
        let (to, inside) = match d {
            Operand::Both(to, p) => {
                let inside = if *p == "_" { None } else { Some(self.predicate_named(p)?) };
                (self.result_r(&Operand::Name(to))?, inside)
            }
            other => (self.result_r(other)?, None),
        };
        let (from, lane, clamp, members) = (self.r(a)?, self.r(b)?, self.r(c)?, self.r(members)?);
        self.plain(Op::Shuffle(Box::new(Shuffle { kind, to, inside, from, lane, clamp, members })))
    }

    fn vote(&mut self, kind: Ballot, [d, of, members]: &[Operand<'a>; 3]) -> Decoded {
        let (to, of, members) = (self.result_p(d)?, self.condition(of)?, self.r(members)?);
        self.plain(Op::Vote { kind, to, of, members })
    }

    fn reduce(&mut self, with: Binary, [d, a, members]: &[Operand<'a>; 3]) -> Decoded {
        let (to, of, members) = (self.result_r(d)?, self.r(a)?, self.r(members)?);
        self.plain(Op::ReduceWarp { with, to, of, members })
    }

    fn barrier_reduce(&mut self, parts: &[&str], [d, id, of]: &[Operand<'a>; 3]) -> Decoded {
        let parts = parts.strip_prefix(&["aligned"]).unwrap_or(parts);
        let with = match parts {
            ["popc", "u32"] => Reduction::Count(self.result_r(d)?),
            ["and", "pred"] => Reduction::All(self.result_p(d)?),
            ["or", "pred"] => Reduction::Any(self.result_p(d)?),
            _ => return Ok(false),
        };
        let (id, of): (u8, Condition) = (barrier(Some(id))?, self.condition(of)?);
        self.plain(Op::BarrierReduce { id, with, of })
    }
}

/// The number of a barrier that all threads of the block take part in.
fn barrier(operand: Option<&Operand<'_>>) -> Result<u8, String> {
    match operand {
        Some(Operand::Bits(id @ 0..16)) => Ok(*id as u8),
        _ => Err("barriers are interpreted for whole blocks, under a number from 0 to 15".into()),
    }
}
