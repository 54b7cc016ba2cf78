//! Data: named columns of rows, read from JSONL (text or arrays), npz or safetensors, checked against what the model
//! asks for before the first step, and cut into batches.
mod arrays;
mod jsonl;
mod schema;
mod table;
mod text;

pub use schema::{Input, Label, Schema};
pub use text::Text;

use graft_ir::{Code, DType, Error, Result, Tensor, Type, error::nearest};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// Rows of named values, ready to be cut into batches.
#[derive(Clone, PartialEq, Debug)]
pub struct Dataset {
    columns: BTreeMap<String, Column>,
    /// The number of tokens of each row; 1 where the data has no sequences.
    lengths: Vec<usize>,
}

/// One named value of every row.
#[derive(Clone, PartialEq, Debug)]
enum Column {
    /// All rows have the same shape: (rows, …).
    Even(Tensor),
    /// Sequences of different lengths, padded to the longest of a batch.
    Sequences { rows: Vec<Vec<i64>>, pad: i64, left: bool, dtype: DType },
}

/// The sentences of a JSONL file.
pub(crate) fn sentences(path: &Path, field: &str) -> Result<Vec<String>> {
    let place = |e: Error| e.at(path.display().to_string());
    let rows = jsonl::read(path).map_err(place)?;
    rows.iter().map(|row| text::sentence(row, field).map(String::from)).collect::<Result<_>>().map_err(place)
}

/// The field that names the domain of a row.
const DOMAIN: &str = "domain";

/// The domain of each row of a JSONL file: its field `domain`, else its label, where all rows have one that names a group;
/// empty where they do not.
pub(crate) fn domains(path: &Path, label: &str) -> Result<Vec<String>> {
    if !matches!(path.extension().and_then(|e| e.to_str()), Some("jsonl" | "json" | "ndjson")) {
        return Ok(Vec::new());
    }
    let rows = jsonl::read(path).map_err(|e| e.at(path.display().to_string()))?;
    let group = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) if n.is_i64() => Some(n.to_string()),
        _ => None,
    };
    let named =
        |field: &str| rows.iter().map(|row| group(row.fields.get(field)?)).collect::<Option<Vec<_>>>();
    let labelled = || Some(named(label)?.into_iter().map(|group| format!("{label} {group}")).collect());
    Ok(named(DOMAIN).or_else(labelled).unwrap_or_default())
}

impl Dataset {
    /// Reads `path` by its extension: `.jsonl` (and `.json`, one object a line), `.npz`, `.safetensors`.
    ///
    /// With `text`, JSONL rows hold a sentence, which is cut into tokens. `note` receives what is ignored.
    /// Whatever does not fit `schema` is an error that names the file and the line or tensor.
    pub fn read(
        path: &Path,
        schema: &Schema,
        text: Option<&Text<'_>>,
        note: &mut dyn FnMut(&str),
    ) -> Result<Dataset> {
        let place = |e: Error| e.at(path.display().to_string());
        let dataset = match path.extension().and_then(|e| e.to_str()) {
            Some("jsonl" | "json" | "ndjson") => {
                let rows = jsonl::read(path).map_err(place)?;
                match text {
                    Some(text) => text::columns(&rows, schema, text),
                    None => arrays::columns(&rows, schema, note),
                }
            }
            Some("npz" | "safetensors") if text.is_some() => {
                let message = "a tokenizer was given, but the data holds tensors, not text";
                Err(Error::new(Code::DATA, message).help("leave `--tokenizer` out, or give JSONL"))
            }
            Some("npz" | "safetensors") => {
                let tensors = graft_adapter::tensors::read(path)?;
                table::columns(tensors, schema, note)
            }
            _ => Err(Error::new(Code::DATA, "the data is neither `.jsonl`, `.npz` nor `.safetensors`")),
        }
        .map_err(place)?;
        dataset.check(schema).map_err(place)?;
        Ok(dataset)
    }

    /// Refuses data from which nothing can be learnt: no rows, rows without elements, no label anywhere.
    fn check(&self, schema: &Schema) -> Result<()> {
        if self.rows() == 0 {
            return Err(Error::new(Code::DATA, "the data has no rows"));
        }
        let is_void = |column: &&Column| matches!(column, Column::Even(t) if t.dims()[1..].contains(&0));
        if let Some((name, _)) = self.columns.iter().find(|(_, column)| is_void(column)) {
            return Err(Error::new(Code::DATA, format!("the rows of `{name}` are empty")));
        }
        let Some(label) = schema.label.as_ref().filter(|l| l.classes.is_some()) else { return Ok(()) };
        let Some(Column::Even(classes)) = self.columns.get(&label.name) else { return Ok(()) };
        if classes.to_i64().is_some_and(|classes| classes.iter().all(|&c| c == IGNORED_CLASS)) {
            let message = format!("every label in `{}` is {IGNORED_CLASS}, which the loss skips", label.name);
            return Err(Error::new(Code::LABEL, message));
        }
        Ok(())
    }

    /// A dataset whose columns all have `rows` rows.
    fn new(columns: BTreeMap<String, Column>, rows: usize) -> Dataset {
        let lengths = (0..rows).map(|row| length(&columns, row)).collect();
        Dataset { columns, lengths }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }
    /// The number of tokens of each row (those that the attention mask counts, where there is one).
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }
    /// The tensors of a batch of these rows, by name.
    pub fn batch(&self, rows: &[usize]) -> Vec<(String, Tensor)> {
        self.columns.iter().map(|(name, column)| (name.clone(), column.batch(rows))).collect()
    }
}

impl Column {
    fn batch(&self, rows: &[usize]) -> Tensor {
        match self {
            Column::Even(tensor) => gather(tensor, rows),
            Column::Sequences { rows: all, pad, left, dtype } => {
                let width = rows.iter().map(|&r| all[r].len()).max().unwrap_or(0);
                let padded = rows.iter().flat_map(|&r| {
                    let (row, fill) = (&all[r], std::iter::repeat_n(*pad, width - all[r].len()));
                    let (before, after) = if *left { (Some(fill), None) } else { (None, Some(fill)) };
                    before.into_iter().flatten().chain(row.iter().copied()).chain(after.into_iter().flatten())
                });
                // An f64 holds every token id exactly.
                Tensor::from_f64(*dtype, &[rows.len(), width], padded.map(|v| v as f64))
                    .expect("an integer type, checked when the data was read")
            }
        }
    }
}

/// The rows of `tensor`, stacked.
fn gather(tensor: &Tensor, rows: &[usize]) -> Tensor {
    let (&n, rest) = tensor.dims().split_first().expect("a column has rows");
    let bytes = tensor.data().len() / n.max(1);
    let mut data = Vec::with_capacity(rows.len() * bytes);
    rows.iter().for_each(|&r| data.extend_from_slice(&tensor.data()[r * bytes..(r + 1) * bytes]));
    let dims = std::iter::once(rows.len()).chain(rest.iter().copied()).collect();
    Tensor::new(tensor.dtype(), dims, data.into()).expect("whole rows of a tensor")
}

/// The name by which transformers' models take the mask of real tokens.
const MASK: &str = "attention_mask";

fn length(columns: &BTreeMap<String, Column>, row: usize) -> usize {
    let sequence = |column: &Column| match column {
        Column::Sequences { rows, .. } => Some(rows[row].len()),
        Column::Even(_) => None,
    };
    if let Some(Column::Even(mask)) = columns.get(MASK) {
        let ones = gather(mask, &[row]).to_f64().unwrap_or_default();
        return ones.into_iter().filter(|&v| v != 0.0).count();
    }
    if let Some(n) = columns.values().filter_map(sequence).max() {
        return n;
    }
    let tokens = columns.values().filter_map(|column| match column {
        Column::Even(t) if t.dtype().is_int() && t.dims().len() == 2 => Some(t.dims()[1]),
        _ => None,
    });
    tokens.max().unwrap_or(1)
}

impl Schema {
    /// Every name that is read from the data.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().map(|i| i.name.as_str()).chain(self.label.as_ref().map(|l| l.name.as_str()))
    }
    /// Reports what the data holds beyond that.
    fn report_unused<'a>(&self, held: impl Iterator<Item = &'a str>, note: &mut dyn FnMut(&str)) {
        let unused: Vec<&str> = held.filter(|&h| !self.names().any(|n| n == h)).collect();
        if !unused.is_empty() {
            note(&format!(
                "the data's `{}` is neither an input of the model nor the label: ignored",
                unused.join("`, `")
            ));
        }
    }
}

/// For an error's help: the nearest to `wanted` of the names that are there, and all of them if they are few.
fn held<'a>(wanted: &str, what: &str, names: impl Iterator<Item = &'a String> + Clone) -> String {
    let near = nearest(wanted, names.clone().map(String::as_str)).join("`, `");
    let all: Vec<&str> = names.map(String::as_str).collect();
    match all.len() {
        0 => format!("there are no {what}"),
        1..=MAX_LISTED => format!("nearest: `{near}`; the {what} are: `{}`", all.join("`, `")),
        n => format!("nearest: `{near}`; there are {n} {what}"),
    }
}

/// More names than these are not listed.
const MAX_LISTED: usize = 16;

/// The sizes of one row, `None` where the model leaves a size open. An input without a known rank takes any.
fn row_sizes(ty: &Type) -> Option<Vec<Option<usize>>> {
    ty.shape.as_ref().map(|dims| dims.iter().skip(1).map(graft_ir::Dim::as_size).collect())
}

/// Checks the sizes of one row against the type; `row` without the batch.
fn check_row(ty: &Type, row: &[usize]) -> Result<(), String> {
    let Some(wanted) = row_sizes(ty) else { return Ok(()) };
    let fits = wanted.len() == row.len()
        && wanted.iter().zip(row).all(|(wanted, found)| wanted.is_none_or(|wanted| wanted == *found));
    if fits {
        Ok(())
    } else {
        Err(format!("a row has the shape {row:?}, the model wants {ty} (outermost: the batch)"))
    }
}

/// Checks one row's class; negative numbers other than the ignored -100 are errors.
fn check_class(class: i64, classes: Option<usize>) -> Result<(), String> {
    let Some(n) = classes else { return Ok(()) };
    if class == IGNORED_CLASS || usize::try_from(class).is_ok_and(|c| c < n) {
        return Ok(());
    }
    Err(format!("the label {class} is out of range: there are {n} classes, 0 to {}", n.saturating_sub(1)))
}

/// PyTorch's mark of a row without a label, which the loss skips.
const IGNORED_CLASS: i64 = -100;

#[cfg(test)]
mod tests;
