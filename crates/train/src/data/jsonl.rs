//! JSONL: one JSON object a line.
use graft_ir::{Code, Error, Result};
use serde_json::{Map, Value};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

/// An object and the number of its line, from 1.
pub(super) struct Row {
    pub(super) line: usize,
    pub(super) fields: Map<String, Value>,
}

impl Row {
    /// Where a problem with this row is.
    pub(super) fn place(&self) -> String {
        format!("line {}", self.line)
    }
    /// A field that must be there.
    pub(super) fn field(&self, name: &str) -> Result<&Value> {
        self.fields.get(name).ok_or_else(|| {
            Error::new(Code::DATA, format!("there is no field `{name}`"))
                .help(super::held(name, "fields", self.fields.keys()))
                .at(self.place())
        })
    }
}

/// What is wrong, with the column; the parser counts lines too, within ours.
fn not_json(e: &serde_json::Error) -> String {
    let text = e.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("not valid JSON: {what} at column {}", e.column())
}

/// Every line that is not blank.
pub(super) fn read(path: &Path) -> Result<Vec<Row>> {
    let failed = |e: std::io::Error| Error::new(Code::IO, format!("cannot read: {e}"));
    let mut lines = BufReader::new(File::open(path).map_err(failed)?);
    let mut rows = Vec::new();
    let mut buffer = Vec::new();
    for line in 1.. {
        buffer.clear();
        if lines.read_until(b'\n', &mut buffer).map_err(failed)? == 0 {
            break;
        }
        let bad = |message: String| Error::new(Code::DATA, message).at(format!("line {line}"));
        let text =
            std::str::from_utf8(buffer.trim_ascii_end()).map_err(|e| bad(format!("not UTF-8: {e}")))?;
        if text.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => rows.push(Row { line, fields }),
            Ok(_) => return Err(bad("not a JSON object".into())),
            Err(e) => return Err(bad(not_json(&e))),
        }
    }
    Ok(rows)
}
