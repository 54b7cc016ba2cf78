//! JSONL rows that hold a sentence, cut into tokens by a `tokenizer.json`.
use super::{Column, Dataset, MASK, Schema, arrays, jsonl::Row};
use graft_ir::{Code, Error, Result};
use std::{collections::BTreeMap, path::Path};
use tokenizers::{Encoding, PaddingDirection, Tokenizer, TruncationParams};

/// How sentences become tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text<'a> {
    /// A `tokenizer.json`.
    pub tokenizer: &'a Path,
    /// The field that holds the sentence.
    pub field: &'a str,
    /// Longer sequences are cut to this many tokens, special ones included.
    pub max_length: usize,
}

/// The part of an encoding that an input of this name takes.
type Part = fn(&Encoding) -> &[u32];

/// The inputs of a model that tokens can fill, as transformers' exporters name them. The first holds the ids.
const PARTS: &[(&str, Part)] = &[
    ("input_ids", Encoding::get_ids),
    (MASK, Encoding::get_attention_mask),
    ("token_type_ids", Encoding::get_type_ids),
];

/// The columns of tokens that the model takes, and the label.
pub(super) fn columns(rows: &[Row], schema: &Schema, text: &Text<'_>) -> Result<Dataset> {
    let parts = parts(schema)?;
    let mut tokenizer = load(text)?;
    let (pad, left) = padding(&tokenizer);
    // Batches are padded when they are made, to no more than their own longest row.
    tokenizer.with_padding(None);
    let mut sequences: Vec<Vec<Vec<i64>>> = vec![Vec::with_capacity(rows.len()); parts.len()];
    for row in rows {
        let encoding = encode(&tokenizer, row, text)?;
        for ((input, part), column) in parts.iter().zip(&mut sequences) {
            let ids = part(&encoding);
            if let Some(n) = input.vocabulary {
                check_ids(ids, n, &tokenizer).map_err(|e| e.at(row.place()))?;
            }
            column.push(ids.iter().map(|&id| i64::from(id)).collect());
        }
    }
    let mut columns = BTreeMap::new();
    for ((input, _), rows) in parts.iter().zip(sequences) {
        let pad = if input.name == PARTS[0].0 { pad } else { 0 };
        let column = Column::Sequences { rows, pad, left, dtype: input.ty.dtype };
        columns.insert(input.name.clone(), column);
    }
    columns.extend(arrays::label(rows, schema)?);
    Ok(Dataset::new(columns, rows.len()))
}

/// The tokenizer, truncating to `max_length`.
fn load(text: &Text<'_>) -> Result<Tokenizer> {
    let bad = |message: String| Error::new(Code::TOKENIZER, message).at(text.tokenizer.display().to_string());
    let mut tokenizer =
        Tokenizer::from_file(text.tokenizer).map_err(|e| bad(format!("cannot be read: {e}")))?;
    let cannot = |e| bad(format!("truncation cannot be set: {e}"));
    tokenizer.with_truncation(None).map_err(cannot)?;
    let empty = tokenizer.encode("", true).map_err(|e| bad(format!("cannot encode: {e}")))?;
    let special = empty
        .get_special_tokens_mask()
        .iter()
        .zip(empty.get_attention_mask())
        .filter(|(s, m)| **s & **m == 1)
        .count();
    if text.max_length <= special {
        let message =
            format!("a maximal length of {} leaves no room beside {special} special tokens", text.max_length);
        return Err(bad(message));
    }
    let truncation = TruncationParams { max_length: text.max_length, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(cannot)?;
    Ok(tokenizer)
}

/// The id to pad with, and whether it goes to the left.
fn padding(tokenizer: &Tokenizer) -> (i64, bool) {
    if let Some(padding) = tokenizer.get_padding() {
        return (i64::from(padding.pad_id), matches!(padding.direction, PaddingDirection::Left));
    }
    let named = ["[PAD]", "<pad>", "<|endoftext|>", "</s>"];
    let id = named.iter().find_map(|name| tokenizer.token_to_id(name)).unwrap_or(0);
    (i64::from(id), false)
}

/// The sentence that a row holds.
pub(super) fn sentence<'r>(row: &'r Row, field: &str) -> Result<&'r str> {
    let value = row.field(field)?;
    value.as_str().ok_or_else(|| {
        let message = format!("field `{field}`: expected a string, found `{value}`");
        Error::new(Code::DATA, message).at(row.place())
    })
}

fn encode(tokenizer: &Tokenizer, row: &Row, text: &Text<'_>) -> Result<Encoding> {
    let bad = |message: String| {
        Error::new(Code::DATA, format!("field `{}`: {message}", text.field)).at(row.place())
    };
    let encoding = tokenizer.encode(sentence(row, text.field)?, true).map_err(|e| {
        Error::new(Code::TOKENIZER, format!("the text cannot be encoded: {e}")).at(row.place())
    })?;
    if encoding.is_empty() {
        return Err(bad("the text has no tokens".into()));
    }
    Ok(encoding)
}

/// The inputs that tokens fill, all inputs of the model being among them.
fn parts(schema: &Schema) -> Result<Vec<(&super::Input, Part)>> {
    let part = |input: &'_ super::Input| PARTS.iter().find(|(name, _)| *name == input.name).map(|p| p.1);
    let mut found = Vec::new();
    for input in &schema.inputs {
        let unfilled = || {
            let message = format!("the model's input `{}` cannot be filled from text", input.name);
            Error::new(Code::TOKENIZER, message)
                .help("give the data as tensors (npz, safetensors or JSONL of arrays)")
        };
        let is_sequence = input.ty.dtype.is_int() && input.ty.shape.as_ref().is_none_or(|s| s.len() == 2);
        found.push((input, part(input).filter(|_| is_sequence).ok_or_else(unfilled)?));
    }
    if !found.iter().any(|(input, _)| input.name == PARTS[0].0) {
        let message = format!("the model has no input `{}`, so it takes no text", PARTS[0].0);
        return Err(Error::new(Code::TOKENIZER, message));
    }
    Ok(found)
}

fn check_ids(ids: &[u32], vocabulary: usize, tokenizer: &Tokenizer) -> Result<()> {
    let Some(id) = ids.iter().copied().find(|&id| id as usize >= vocabulary) else { return Ok(()) };
    let token = tokenizer.id_to_token(id).unwrap_or_default();
    let message = format!(
        "the token `{token}` has the id {id}, but the model knows {vocabulary} tokens; the tokenizer knows {}",
        tokenizer.get_vocab_size(true)
    );
    Err(Error::new(Code::TOKENIZER, message).help("give the tokenizer.json that belongs to the model"))
}
