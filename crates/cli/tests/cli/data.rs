//! Data that cannot be trained on: the message names the file, and the line or tensor.
use crate::{
    fixtures::{TOKENIZER, sandbox},
    sandbox::{Refusal, refuses},
};
use graft_adapter::tensors;
use graft_ir::{DType, Tensor};
use std::collections::BTreeMap;

/// A first line without fault.
const GOOD: &str = r#"{"input_ids": [1, 2], "label": 0}"#;

#[test]
fn lines_of_arrays() {
    let lines: &[(&str, i32, &str, &[&str])] = &[
        (r#"{"input_ids": [1, 2], "label":"#, 3, "G0501", &["not valid JSON", "line 2", "column 30"]),
        ("[1, 2]", 3, "G0501", &["not a JSON object", "line 2"]),
        (
            r#"{"input_id": [1, 2], "label": 1}"#,
            3,
            "G0501",
            &["`input_ids`", "line 2", "nearest: `input_id`"],
        ),
        (r#"{"input_ids": [1, 2], "lable": 1}"#, 3, "G0503", &["`label`", "line 2", "nearest: `lable`"]),
        (r#"{"input_ids": [1, 2, 3], "label": 1}"#, 3, "G0501", &["`input_ids`", "[3]", "[2]", "line 2"]),
        (r#"{"input_ids": [[1, 2], [3]], "label": 1}"#, 3, "G0501", &["ragged", "line 2"]),
        (r#"{"input_ids": [[1, 2]], "label": 1}"#, 3, "G0501", &["[1, 2]", "int64[batch, ", "line 2"]),
        (r#"{"input_ids": [1, 2.5], "label": 1}"#, 3, "G0501", &["`2.5` is no int64", "line 2"]),
        (r#"{"input_ids": [1, 1e99], "label": 1}"#, 3, "G0501", &["is no int64", "line 2"]),
        (r#"{"input_ids": "words", "label": 1}"#, 3, "G0501", &["`\"words\"`", "line 2"]),
        (r#"{"input_ids": [1, null], "label": 1}"#, 3, "G0501", &["`null`", "line 2"]),
        (r#"{"input_ids": [1, 6], "label": 1}"#, 3, "G0501", &["index 6", "table of 6", "line 2"]),
        (r#"{"input_ids": [1, -1], "label": 1}"#, 3, "G0501", &["index -1", "line 2"]),
        (r#"{"input_ids": [1, 2], "label": 3}"#, 3, "G0503", &["label 3", "3 classes", "line 2"]),
        (r#"{"input_ids": [1, 2], "label": -1}"#, 3, "G0503", &["label -1", "line 2"]),
        (r#"{"input_ids": [1, 2], "label": 1.5}"#, 3, "G0503", &["`1.5`", "line 2"]),
        (r#"{"input_ids": [1, 2], "label": [1, 2]}"#, 3, "G0503", &["`label`", "line 2"]),
        (r#"{"input_ids": [1, 2], "label": "one"}"#, 3, "G0503", &["`\"one\"`", "line 2"]),
    ];
    let sandbox = sandbox();
    let mut refusals: Vec<Refusal> = Vec::new();
    for (i, &(line, code, id, words)) in lines.iter().enumerate() {
        sandbox.write(&format!("{i}.jsonl"), format!("{GOOD}\n{line}\n"));
        for flag in ["--data", "--data data.jsonl --eval"] {
            let line =
                format!("train tiny.onnx --loss cross-entropy --targets up --out out {flag} {i}.jsonl");
            refusals.push((line.leak(), code, id, words));
        }
    }
    refuses(&sandbox, &refusals);
}

#[test]
fn whole_files() {
    let sandbox = sandbox();
    sandbox.write("void.jsonl", "");
    sandbox.write("blank.jsonl", "\n \n");
    sandbox.write("bytes.jsonl", [0xff, 0xfe, b'\n']);
    sandbox.write("hollow.jsonl", "{\"input_ids\": [], \"label\": 0}\n");
    sandbox.write("skipped.jsonl", "{\"input_ids\": [1], \"label\": -100}\n");
    sandbox.write("deep.jsonl", format!("{{\"input_ids\": {}", "[".repeat(100_000)));
    sandbox.write("rows.csv", "input_ids,label\n");
    let line = |file: &str| -> &'static str {
        format!("train tiny.onnx --loss cross-entropy --targets up --out out --data {file}").leak()
    };
    refuses(
        &sandbox,
        &[
            (line("void.jsonl"), 3, "G0501", &["no rows", "void.jsonl"]),
            (line("blank.jsonl"), 3, "G0501", &["no rows"]),
            (line("bytes.jsonl"), 3, "G0501", &["UTF-8", "line 1"]),
            (line("hollow.jsonl"), 3, "G0501", &["`input_ids`", "empty"]),
            (line("skipped.jsonl"), 3, "G0503", &["-100"]),
            (line("deep.jsonl"), 3, "G0501", &["recursion limit", "line 1"]),
            (line("rows.csv"), 3, "G0501", &["`.jsonl`", "rows.csv"]),
            (line("missing.jsonl"), 1, "G0205", &["missing.jsonl", "No such file"]),
            (line("adapter"), 3, "G0501", &["`.jsonl`"]),
            (line("in.npz"), 3, "G0503", &["`label`", "nearest: `input_ids`"]),
        ],
    );
}

#[test]
fn tables() {
    let sandbox = sandbox();
    let ids = || Tensor::i64(&[2, 2], &[1, 2, 3, 4]);
    let labels = || Tensor::i64(&[2], &[0, 1]);
    let tables = [
        ("ids", "input_id", ids(), labels()),
        ("rows", "input_ids", ids(), Tensor::i64(&[3], &[0, 1, 2])),
        ("scalar", "input_ids", ids(), Tensor::i64(&[], &[0])),
        ("dtype", "input_ids", Tensor::f32(&[2, 2], &[1.0; 4]), labels()),
        ("rank", "input_ids", Tensor::i64(&[2], &[1, 2]), labels()),
        ("beyond", "input_ids", Tensor::i64(&[2, 2], &[1, 2, 3, 6]), labels()),
        ("class", "input_ids", ids(), Tensor::i64(&[2], &[0, 3])),
        ("half", "input_ids", ids(), Tensor::f32(&[2], &[0.0, 0.5])),
        ("none", "input_ids", Tensor::i64(&[0, 2], &[]), Tensor::i64(&[0], &[])),
        ("hollow", "input_ids", Tensor::i64(&[2, 0], &[]), labels()),
        ("complex", "input_ids", ids(), Tensor::new(DType::Complex64, vec![2], vec![0; 16].into()).unwrap()),
    ];
    for (file, name, ids, labels) in tables {
        let table = BTreeMap::from([(name.to_string(), ids), ("label".to_string(), labels)]);
        tensors::write(&sandbox.path(&format!("{file}.npz")), &table).unwrap();
    }
    let line = |file: &str| -> &'static str {
        format!("train tiny.onnx --loss cross-entropy --targets up --out out --data {file}.npz").leak()
    };
    refuses(
        &sandbox,
        &[
            (line("ids"), 3, "G0501", &["`input_ids`", "nearest: `input_id`"]),
            (line("rows"), 3, "G0501", &["3 rows", "2"]),
            (line("scalar"), 3, "G0503", &["`label`", "scalar"]),
            (line("dtype"), 3, "G0501", &["`input_ids`", "float", "int64"]),
            (line("rank"), 3, "G0501", &["`input_ids`", "[]"]),
            (line("beyond"), 3, "G0501", &["index 6", "table of 6"]),
            (line("class"), 3, "G0503", &["label 3", "row 1"]),
            (line("half"), 3, "G0503", &["`label`", "int64"]),
            (line("none"), 3, "G0501", &["no rows"]),
            (line("hollow"), 3, "G0501", &["`input_ids`", "empty"]),
            (line("complex"), 3, "G0503", &["`label`", "complex64"]),
        ],
    );
}

#[test]
fn texts_and_tokenizers() {
    let sandbox = sandbox();
    sandbox
        .write("odd.jsonl", "{\"text\": \"good\", \"label\": 0}\n{\"text\": \"an odd day\", \"label\": 1}\n");
    sandbox.write("number.jsonl", "{\"text\": 7, \"label\": 0}\n");
    sandbox.write("field.jsonl", "{\"txt\": \"good\", \"label\": 0}\n");
    sandbox.write("blank.jsonl", "{\"text\": \"\", \"label\": 0}\n");
    sandbox.write("strict.json", TOKENIZER.replace("\"[UNK]\": 0,", ""));
    sandbox.write("words.json", "not JSON");
    sandbox.write("list.json", "[]");
    sandbox.write("cut.json", &TOKENIZER[..TOKENIZER.len() / 2]);
    let line = |data: &str, tokenizer: &str| -> &'static str {
        let flags = format!("--targets up --out out --data {data} --tokenizer {tokenizer}");
        format!("train tiny.onnx --loss cross-entropy {flags}").leak()
    };
    refuses(
        &sandbox,
        &[
            (line("odd.jsonl", "tokenizer.json"), 3, "G0502", &["`odd`", "id 9", "6 tokens", "line 2"]),
            (line("number.jsonl", "tokenizer.json"), 3, "G0501", &["`text`", "`7`", "line 1"]),
            (line("field.jsonl", "tokenizer.json"), 3, "G0501", &["`text`", "nearest: `txt`", "line 1"]),
            (line("blank.jsonl", "tokenizer.json"), 3, "G0501", &["no tokens", "line 1"]),
            (line("text.jsonl", "strict.json"), 3, "G0502", &["line 2"]),
            (line("text.jsonl", "words.json"), 3, "G0502", &["words.json"]),
            (line("text.jsonl", "list.json"), 3, "G0502", &["list.json"]),
            (line("text.jsonl", "cut.json"), 3, "G0502", &["cut.json"]),
            (line("text.jsonl", "missing.json"), 3, "G0502", &["missing.json", "No such file"]),
            (line("in.npz", "tokenizer.json"), 3, "G0501", &["tensors, not text"]),
            (line("text.jsonl", "tokenizer.json --max-length 0"), 3, "G0502", &["length of 0"]),
            (
                line("text.jsonl", "tokenizer.json --label lable"),
                3,
                "G0503",
                &["`lable`", "nearest: `label`"],
            ),
        ],
    );
    sandbox.succeeds(line("text.jsonl", "tokenizer.json"));
}
