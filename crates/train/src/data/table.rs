//! Named tensors (npz, safetensors) whose outermost axis is the row.
use super::{Column, Dataset, Schema, check_class, check_row};
use graft_ir::{Code, DType, Error, Result, Tensor, Type};
use std::collections::BTreeMap;

/// The columns that `schema` names.
pub(super) fn columns(
    tensors: BTreeMap<String, Tensor>,
    schema: &Schema,
    note: &mut dyn FnMut(&str),
) -> Result<Dataset> {
    schema.report_unused(tensors.keys().map(String::as_str), note);
    let mut columns = BTreeMap::new();
    let mut rows: Option<(String, usize)> = None;
    for name in schema.names() {
        let tensor = tensors.get(name).ok_or_else(|| missing(name, schema, &tensors))?;
        let tensor = checked(name, tensor, schema)?;
        let n = tensor.dims()[0];
        match &rows {
            Some((first, m)) if *m != n => {
                let message = format!("`{name}` has {n} rows, `{first}` has {m}");
                return Err(Error::new(Code::DATA, message));
            }
            _ => rows = Some((name.to_string(), n)),
        }
        columns.insert(name.to_string(), Column::Even(tensor));
    }
    Ok(Dataset::new(columns, rows.map_or(0, |(_, n)| n)))
}

fn missing(name: &str, schema: &Schema, tensors: &BTreeMap<String, Tensor>) -> Error {
    let is_label = schema.label.as_ref().is_some_and(|l| l.name == name);
    let (code, what) = if is_label { (Code::LABEL, "the label") } else { (Code::DATA, "the model's input") };
    Error::new(code, format!("the data has no tensor for {what} `{name}`")).help(super::held(
        name,
        "tensors",
        tensors.keys(),
    ))
}

/// The tensor in the type that the graph wants. Labels may be of any integer or float type that holds the same numbers.
fn checked(name: &str, tensor: &Tensor, schema: &Schema) -> Result<Tensor> {
    let label = schema.label.as_ref().filter(|l| l.name == name);
    let code = if label.is_some() { Code::LABEL } else { Code::DATA };
    let bad = |message: String| Error::new(code, message).at(format!("tensor `{name}`"));
    if tensor.dims().is_empty() {
        return Err(bad("a scalar has no rows".into()));
    }
    let Some(label) = label else {
        let input = schema.inputs.iter().find(|i| i.name == name);
        if let Some(input) = input {
            check_type(tensor, &input.ty).map_err(bad)?;
            check_ids(tensor, input.vocabulary).map_err(bad)?;
        }
        return Ok(tensor.clone());
    };
    let tensor = converted(tensor, label.ty.dtype).map_err(bad)?;
    check_type(&tensor, &label.ty).map_err(bad)?;
    let each = tensor.dims()[1..].iter().product::<usize>().max(1);
    for (i, class) in tensor.to_i64().unwrap_or_default().into_iter().enumerate() {
        check_class(class, label.classes).map_err(|m| bad(m).at(format!("row {}", i / each)))?;
    }
    Ok(tensor)
}

fn check_type(tensor: &Tensor, ty: &Type) -> Result<(), String> {
    if tensor.dtype() != ty.dtype {
        return Err(format!("its elements are {}, the model wants {}", tensor.dtype(), ty.dtype));
    }
    check_row(ty, &tensor.dims()[1..])
}

fn check_ids(tensor: &Tensor, vocabulary: Option<usize>) -> Result<(), String> {
    let Some(n) = vocabulary else { return Ok(()) };
    let ids = tensor.to_i64().unwrap_or_default();
    let bad = ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= n));
    bad.map_or(Ok(()), |id| Err(format!("index {id} is outside the model's table of {n}")))
}

fn converted(tensor: &Tensor, dtype: DType) -> Result<Tensor, String> {
    if tensor.dtype() == dtype {
        return Ok(tensor.clone());
    }
    let wrong = || format!("its elements are {}, the loss wants {dtype}", tensor.dtype());
    let values = tensor.to_f64().ok_or_else(wrong)?;
    let fits =
        dtype.is_float() || values.iter().all(|v| v.fract() == 0.0 && v.abs() <= 9_007_199_254_740_992.0);
    let out = fits.then(|| Tensor::from_f64(dtype, tensor.dims(), values)).flatten();
    out.ok_or_else(wrong)
}
