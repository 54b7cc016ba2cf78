//! A small classifier of tokens, its data, adapters and tokenizer; and the larger model of the parity runs.
use crate::sandbox::Sandbox;
use graft_adapter::{Config, Targets, tensors};
use graft_ir::{DType, Tensor};
use graft_onnx::SaveOptions;
use std::{collections::BTreeMap, path::PathBuf};

/// A classifier of three classes over a vocabulary of six tokens.
pub(crate) const TINY: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
tiny (int64[batch, seq] input_ids) => (float[batch, 3] logits) <
  float[6, 4] table = {0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, -0.8, 0.9, 0.15, -0.25, 0.35, 0.45, -0.55, 0.65, 0.75, -0.85, 0.95, 0.12, -0.22, 0.32, 0.42, -0.52, 0.62},
  float[4, 4] up = {0.3, -0.2, 0.1, 0.4, 0.5, -0.6, 0.7, 0.8, -0.9, 0.1, 0.2, -0.3, 0.4, 0.5, -0.6, 0.7},
  float[4, 3] down = {0.2, -0.1, 0.4, 0.3, 0.6, -0.5, 0.7, 0.8, -0.2, 0.1, 0.9, -0.3}
> {
  x = Gather (table, input_ids)
  pooled = ReduceMean <axes = [1], keepdims = 0> (x)
  ["/enc/up/MatMul"] h = MatMul (pooled, up)
  a = Tanh (h)
  ["/enc/down/MatMul"] logits = MatMul (a, down)
}
"#;

/// A tokenizer whose token `odd` is beyond the vocabulary of [`TINY`].
pub(crate) const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
"normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
"model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "good": 1, "bad": 2, "odd": 9}, "unk_token": "[UNK]"}}"#;

/// Rows that [`TINY`] can be trained on.
pub(crate) fn rows() -> String {
    let row = |i: usize| format!("{{\"input_ids\": [{}, {}, 2], \"label\": {}}}\n", i % 6, i * 5 % 6, i % 3);
    (1..=8).map(row).collect()
}

/// The folder that most tests begin with: models, data, inputs, adapters.
pub(crate) fn sandbox() -> Sandbox {
    let sandbox = Sandbox::empty();
    sandbox.write("tiny.onnxtxt", TINY);
    sandbox.write("tiny.onnx", onnx(TINY));
    sandbox.write("other.onnx", onnx(&TINY.replace("{0.2, -0.1,", "{0.7, -0.1,")));
    sandbox.write("data.jsonl", rows());
    sandbox.write("tokenizer.json", TOKENIZER);
    sandbox
        .write("text.jsonl", "{\"text\": \"good\", \"label\": 1}\n{\"text\": \"bad day\", \"label\": 0}\n");
    inputs(&sandbox, "in.npz", "input_ids", Tensor::i64(&[2, 2], &[1, 2, 3, 4]));
    adapter(&sandbox, "adapter", &["enc.up"], 2);
    sandbox
}

/// The bytes of a model.
pub(crate) fn onnx(text: &str) -> Vec<u8> {
    let graph = graft_ir::parse(text).expect("the model parses");
    graft_onnx::to_bytes(&graph, None).expect("the model can be written")
}

/// A file with one tensor.
pub(crate) fn inputs(sandbox: &Sandbox, file: &str, name: &str, tensor: Tensor) {
    tensors::write(&sandbox.path(file), &BTreeMap::from([(name.into(), tensor)]))
        .expect("the file can be written");
}

/// A LoRA adapter for linears of [`TINY`]'s size of `enc.up`, (4, 4).
pub(crate) fn adapter(sandbox: &Sandbox, dir: &str, paths: &[&str], rank: usize) {
    let mut config =
        Config::new("LORA", rank, Targets::List(paths.iter().map(ToString::to_string).collect()));
    config.alpha = Some(4.0);
    let values = |n: usize| (0..n).map(|i| 0.3 - 0.11 * (i % 7) as f64);
    let tensor =
        |dims: &[usize]| Tensor::from_f64(DType::Float, dims, values(4 * rank)).expect("the sizes fit");
    let pair = |path: &&str| {
        [
            (format!("{path}.lora_A.weight"), tensor(&[rank, 4])),
            (format!("{path}.lora_B.weight"), tensor(&[4, rank])),
        ]
    };
    let tensors: BTreeMap<String, Tensor> = paths.iter().flat_map(pair).collect();
    std::fs::create_dir(sandbox.path(dir)).expect("the folder can be made");
    graft_adapter::save(&sandbox.path(dir), &config, &tensors).expect("the adapter can be written");
}

/// Writes a model as text and as ONNX under the name `name`.
pub(crate) fn save(sandbox: &Sandbox, name: &str, text: &str) {
    let graph = graft_ir::parse(text).unwrap_or_else(|e| panic!("{name}: {e}"));
    graft_onnx::save(&graph, None, &sandbox.path(name), &SaveOptions::default())
        .expect("the model can be written");
}

/// A file of the parity runs: a BERT of two layers, its adapters and its data.
pub(crate) fn parity(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/parity");
    root.join(path).to_str().expect("the path is UTF-8").into()
}
