//! A look at the wire format before anything is decoded: how much memory the messages would take, how deep they nest,
//! and which fields the committed schema does not know.
//!
//! Two bytes can announce an empty node, which takes hundreds of bytes once decoded. The scan allocates nothing per
//! record, skips weights in one step, and refuses files whose messages would take far more memory than real models do.
use crate::proto::*;
use graft_ir::{Code, Error, Result};
use std::collections::BTreeMap;

/// Messages that nest deeper are refused, here and by `prost`; about 32 levels of subgraphs.
const MAX_DEPTH: usize = 100;
/// Decoded messages may take this many bytes,
const BASE: u64 = 64 << 20;
/// and this many for each byte of the file that is no weight or text (real graphs take 10 to 25),
const FACTOR: u64 = 32;
/// but never more than this.
const MAX: u64 = 4 << 30;
/// So many different unknown fields are told apart.
const MAX_UNKNOWN: usize = 100;

struct Message {
    name: &'static str,
    fields: &'static [(u32, Kind)],
}

/// What a field holds, and what it costs in memory.
#[derive(Clone, Copy)]
enum Kind {
    /// `size`: bytes of the decoded message, 0 where its owner's size includes it.
    Message {
        index: usize,
        size: usize,
    },
    String {
        repeated: bool,
    },
    Bytes {
        repeated: bool,
    },
    Varint {
        repeated: bool,
        width: u64,
    },
    Fixed32 {
        repeated: bool,
    },
    Fixed64 {
        repeated: bool,
    },
}

include!("generated/schema.rs");

/// Refuses a damaged or hostile file; else returns what is odd about it, for the user to read.
pub(crate) fn scan(file: &[u8]) -> Result<Vec<String>> {
    let mut scan = Scan::default();
    scan.message(file, &MESSAGES[MODEL], 1)?;
    let structure = (file.len() as u64).saturating_sub(scan.plain);
    let allowed = structure.saturating_mul(FACTOR).saturating_add(BASE).min(MAX);
    if scan.cost > allowed {
        let message = format!(
            "{} bytes of records would take {} MiB of memory once decoded, more than any real model needs",
            structure,
            scan.cost >> 20
        );
        return Err(Error::new(Code::LIMIT, message));
    }
    Ok(scan.unknown.iter().map(|((name, number), n)| unknown_field(name, *number, *n)).collect())
}

fn unknown_field(name: &str, number: u32, n: u64) -> String {
    let times = if n == 1 { "once".into() } else { format!("{n} times") };
    format!(
        "field {number} of {name} is unknown ({times}): a newer ONNX wrote it, and an export will lack it"
    )
}

#[derive(Default)]
struct Scan {
    /// Bytes of memory that decoding would take, weights and texts aside.
    cost: u64,
    /// Bytes of the file that are weights or texts, which decode to as many bytes.
    plain: u64,
    unknown: BTreeMap<(&'static str, u32), u64>,
}

impl Scan {
    fn message(&mut self, buf: &[u8], message: &'static Message, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            let text = format!("messages nest deeper than {MAX_DEPTH} levels");
            return Err(Error::new(Code::LIMIT, text));
        }
        let mut cursor = Cursor { rest: buf };
        while !cursor.rest.is_empty() {
            let (number, wire) = cursor.key()?;
            match message.fields.iter().find(|(n, _)| *n == number) {
                Some((_, kind)) => self.field(&mut cursor, *kind, wire, depth).map_err(|e| {
                    // The full path of deep nesting would be longer than anyone reads.
                    if depth <= 4 { e.at(format!("field {number} of {}", message.name)) } else { e }
                })?,
                None => {
                    cursor.skip(number, wire, depth)?;
                    if self.unknown.len() < MAX_UNKNOWN {
                        *self.unknown.entry((message.name, number)).or_default() += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, cursor: &mut Cursor<'_>, kind: Kind, wire: u8, depth: usize) -> Result<()> {
        match (kind, wire) {
            (Kind::Message { index, size }, 2) => {
                self.cost += size as u64;
                let inner = cursor.delimited()?;
                self.message(inner, &MESSAGES[index], depth + 1)?;
            }
            (Kind::String { repeated }, 2) => {
                self.plain += cursor.delimited()?.len() as u64;
                self.cost += if repeated { size_of::<String>() as u64 } else { 0 };
            }
            (Kind::Bytes { repeated }, 2) => {
                self.plain += cursor.delimited()?.len() as u64;
                self.cost += if repeated { size_of::<bytes::Bytes>() as u64 } else { 0 };
            }
            (Kind::Varint { repeated: true, width }, 2) => {
                // At most one element a byte.
                self.cost += cursor.delimited()?.len() as u64 * width;
            }
            (Kind::Fixed32 { repeated: true } | Kind::Fixed64 { repeated: true }, 2) => {
                self.plain += cursor.delimited()?.len() as u64;
            }
            (Kind::Varint { width, .. }, 0) => {
                cursor.varint()?;
                self.cost += width;
            }
            (Kind::Fixed32 { .. }, 5) => {
                cursor.take(4)?;
                self.cost += 4;
            }
            (Kind::Fixed64 { .. }, 1) => {
                cursor.take(8)?;
                self.cost += 8;
            }
            _ => return Err(damaged("wrong wire type")),
        }
        Ok(())
    }
}

fn damaged(what: &str) -> Error {
    Error::new(Code::DECODE, format!("this is no ONNX model, or it is damaged: {what}"))
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let split = usize::try_from(n).ok().and_then(|n| self.rest.split_at_checked(n));
        let (taken, rest) = split.ok_or_else(|| damaged("a record is longer than what holds it"))?;
        self.rest = rest;
        Ok(taken)
    }
    fn delimited(&mut self) -> Result<&'a [u8]> {
        let n = self.varint()?;
        self.take(n)
    }
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for (i, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(damaged("a number has no end"))
    }
    /// Field number and wire type.
    fn key(&mut self) -> Result<(u32, u8)> {
        let key = u32::try_from(self.varint()?).map_err(|_| damaged("a field's number is too large"))?;
        if key >> 3 == 0 {
            return Err(damaged("a field has the number 0"));
        }
        Ok((key >> 3, (key & 7) as u8))
    }
    /// Passes over an unknown field.
    fn skip(&mut self, number: u32, wire: u8, depth: usize) -> Result<()> {
        match wire {
            0 => self.varint().map(drop),
            1 => self.take(8).map(drop),
            2 => self.delimited().map(drop),
            3 => self.group(number, depth),
            5 => self.take(4).map(drop),
            _ => Err(damaged("a field has an unknown wire type")),
        }
    }
    /// Passes over a group, an old form of a nested message.
    fn group(&mut self, number: u32, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::new(Code::LIMIT, format!("messages nest deeper than {MAX_DEPTH} levels")));
        }
        loop {
            match self.key()? {
                (end, 4) if end == number => return Ok(()),
                (inner, wire) => self.skip(inner, wire, depth + 1)?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    /// A model whose graph is `graph`, already encoded.
    fn model(graph: &[u8]) -> Vec<u8> {
        let mut out = vec![0x3a];
        prost::encoding::encode_varint(graph.len() as u64, &mut out);
        out.extend(graph);
        out
    }

    #[test]
    fn empty_nodes_by_the_million_are_refused() {
        let file = model(&[0x0a, 0].repeat(16 << 20));
        assert_eq!(scan(&file).unwrap_err().code, Code::LIMIT);
        assert!(scan(&model(&[0x0a, 0].repeat(1000))).unwrap().is_empty());
    }

    #[test]
    fn packed_numbers_by_the_million_are_no_problem() {
        let tensor = TensorProto { int64_data: vec![1; 4 << 20], ..TensorProto::default() };
        let graph = GraphProto { initializer: vec![tensor], ..GraphProto::default() };
        assert!(scan(&model(&graph.encode_to_vec())).is_ok());
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for lie in [5u64, 1 << 40, 1 << 62, u64::MAX] {
            let mut file = vec![0x3a];
            prost::encoding::encode_varint(lie, &mut file);
            assert_eq!(scan(&file).unwrap_err().code, Code::DECODE, "{lie}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        // graph → node → attribute → graph → …, and groups in groups.
        let mut graph = Vec::new();
        for _ in 0..5000 {
            for key in [0x32, 0x2a, 0x0a] {
                let mut outer = vec![key];
                prost::encoding::encode_varint(graph.len() as u64, &mut outer);
                outer.extend(&graph);
                graph = outer;
            }
        }
        assert_eq!(scan(&model(&graph)).unwrap_err().code, Code::LIMIT);
        assert_eq!(scan(&[0xfb, 0x01].repeat(100_000)).unwrap_err().code, Code::LIMIT);
    }

    #[test]
    fn unknown_fields_are_reported() {
        // Field 31 of the model, twice: a string and a group that holds a number.
        let file = [0xfa, 0x01, 1, b'x', 0xfb, 0x01, 0x08, 5, 0xfc, 0x01];
        let warnings = scan(&file).unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("field 31 of ModelProto is unknown (2 times)"), "{warnings:?}");
    }

    #[test]
    fn what_the_scan_refuses_prost_refuses() {
        for file in [&[0x3a][..], &[0x00], &[0x3a, 2, 0x0a], &[0x08, 0x80], &[0x3d, 0, 0, 0, 0]] {
            assert!(scan(file).is_err(), "{file:?}");
            assert!(ModelProto::decode(file).is_err(), "{file:?}");
        }
    }
}
