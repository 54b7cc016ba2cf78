//! JSONL rows whose fields are numbers or nested arrays of numbers.
use super::{Column, Dataset, Schema, check_class, check_row, jsonl::Row};
use graft_ir::{Code, DType, Error, Result, Tensor, Type};
use serde_json::Value;
use std::collections::BTreeMap;

/// The columns that `schema` names.
pub(super) fn columns(rows: &[Row], schema: &Schema, note: &mut dyn FnMut(&str)) -> Result<Dataset> {
    if let Some(first) = rows.first() {
        schema.report_unused(first.fields.keys().map(String::as_str), note);
    }
    let mut columns = BTreeMap::new();
    for input in &schema.inputs {
        columns.insert(input.name.clone(), column(rows, &input.name, &input.ty, Code::DATA)?);
        if let Some(n) = input.vocabulary {
            check_ids(rows, &columns[&input.name], &input.name, n)?;
        }
    }
    if let Some(column) = label(rows, schema)? {
        columns.insert(column.0, column.1);
    }
    Ok(Dataset::new(columns, rows.len()))
}

/// The label's column, where the loss reads one.
pub(super) fn label(rows: &[Row], schema: &Schema) -> Result<Option<(String, Column)>> {
    let Some(label) = &schema.label else { return Ok(None) };
    let column = column(rows, &label.name, &label.ty, Code::LABEL)?;
    if let Column::Even(tensor) = &column
        && let Some(classes) = tensor.to_i64()
    {
        let each = classes.len() / rows.len().max(1);
        for (i, class) in classes.into_iter().enumerate() {
            check_class(class, label.classes)
                .map_err(|m| Error::new(Code::LABEL, m).at(rows[i / each.max(1)].place()))?;
        }
    }
    Ok(Some((label.name.clone(), column)))
}

/// One field of every row; all rows must have the same shape.
fn column(rows: &[Row], name: &str, ty: &Type, code: &'static Code) -> Result<Column> {
    let mut values = Vec::new();
    let mut sizes: Option<Vec<usize>> = None;
    for row in rows {
        let bad = |message: String| Error::new(code, format!("field `{name}`: {message}")).at(row.place());
        let value = row.field(name).map_err(|e| Error { code, ..e })?;
        let found = flatten(value, ty.dtype, &mut values).map_err(bad)?;
        check_row(ty, &found).map_err(bad)?;
        match &sizes {
            Some(first) if *first != found => {
                return Err(bad(format!("the shape is {found:?}, that of the rows before is {first:?}")));
            }
            _ => sizes = Some(found),
        }
    }
    let dims: Vec<usize> = std::iter::once(rows.len()).chain(sizes.unwrap_or_default()).collect();
    let tensor = Tensor::from_f64(ty.dtype, &dims, values);
    let unsupported = || {
        Error::new(code, format!("field `{name}`: elements of type {} cannot be read from JSON", ty.dtype))
    };
    Ok(Column::Even(tensor.ok_or_else(unsupported)?))
}

/// Appends the numbers of a nested array; returns its sizes.
fn flatten(value: &Value, dtype: DType, out: &mut Vec<f64>) -> Result<Vec<usize>, String> {
    match value {
        Value::Array(items) => {
            let mut inner: Option<Vec<usize>> = None;
            for item in items {
                let sizes = flatten(item, dtype, out)?;
                if inner.get_or_insert_with(|| sizes.clone()) != &sizes {
                    return Err("the array is ragged".into());
                }
            }
            Ok(std::iter::once(items.len()).chain(inner.unwrap_or_default()).collect())
        }
        Value::Bool(b) => number(f64::from(u8::from(*b)), value, dtype, out),
        Value::Number(n) => number(n.as_f64().unwrap_or(f64::NAN), value, dtype, out),
        _ => Err(format!("expected a number or an array, found `{value}`")),
    }
}

fn number(n: f64, value: &Value, dtype: DType, out: &mut Vec<f64>) -> Result<Vec<usize>, String> {
    // Up to 2^53 every integer is itself as f64.
    let is_whole = n.fract() == 0.0 && n.abs() <= 9_007_199_254_740_992.0;
    if !n.is_finite() || (!dtype.is_float() && !is_whole) {
        return Err(format!("`{value}` is no {dtype}"));
    }
    out.push(n);
    Ok(Vec::new())
}

fn check_ids(rows: &[Row], column: &Column, name: &str, vocabulary: usize) -> Result<()> {
    let Column::Even(tensor) = column else { return Ok(()) };
    let ids = tensor.to_i64().unwrap_or_default();
    let each = (ids.len() / rows.len().max(1)).max(1);
    let bad = |id: i64| usize::try_from(id).map_or(true, |id| id >= vocabulary);
    match ids.iter().position(|&id| bad(id)) {
        Some(i) => {
            let message =
                format!("field `{name}`: index {} is outside the model's table of {vocabulary}", ids[i]);
            Err(Error::new(Code::DATA, message).at(rows[i / each].place()))
        }
        None => Ok(()),
    }
}
