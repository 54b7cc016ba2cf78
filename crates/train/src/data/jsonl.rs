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
            let held: Vec<&str> = self.fields.keys().map(String::as_str).collect();
            Error::new(Code::DATA, format!("there is no field `{name}`"))
                .help(format!("the fields are: `{}`", held.join("`, `")))
                .at(self.place())
        })
    }
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
        let text = std::str::from_utf8(&buffer).map_err(|e| bad(format!("not UTF-8: {e}")))?;
        if text.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => rows.push(Row { line, fields }),
            Ok(_) => return Err(bad("not a JSON object".into())),
            Err(e) => return Err(bad(format!("not valid JSON: {e}"))),
        }
    }
    Ok(rows)
}
