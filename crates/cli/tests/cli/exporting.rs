//! `graft export`: what it refuses, and what lies there when it is done.
use crate::{
    fixtures::{TINY, sandbox},
    sandbox::{Refusal, refuses},
};
use graft_ir::{Graph, Tensor};
use std::collections::BTreeMap;

/// A command line that succeeds.
const EXPORT: &str = "export tiny.onnx --train --loss cross-entropy -o out.onnx";

/// Flags, each added to [`EXPORT`].
const FLAGS: &[Refusal] = &[
    ("--form protable", 2, "G0701", &["portable, functions, fused"]),
    ("--with all", 2, "G0701", &["eval, grads, adapter"]),
    ("--with grads --accumulate", 2, "G0701", &["`--with grads`"]),
    ("--opset 16", 5, "G0306", &["opset 16", "17"]),
    ("--opset 99", 5, "G0306", &["opset 99"]),
    ("--optimizer adam", 2, "G0701", &["adamw, sgd"]),
    ("--clip -1", 2, "G0701", &["norm"]),
    ("--with adapter --method tri --set growth=topk", 5, "G0310", &["ranks", "graft train"]),
    ("--targets nix", 4, "G0302", &["`nix`", "nearest"]),
    ("--method lorra", 2, "G0304", &["nearest: `lora`"]),
    ("--method none", 2, "G0701", &["head"]),
    ("--init adapter --rank 3", 2, "G0701", &["`rank` is `3`"]),
    ("--logits scores", 2, "G0305", &["`scores`"]),
    ("--set experts=auto --method hydra", 2, "G0701", &["experts=auto"]),
];

/// Whole lines.
const LINES: &[Refusal] = &[
    ("export tiny.onnx --loss cross-entropy -o out.onnx", 2, "G0701", &["--train"]),
    ("export tiny.onnx --train -o out.onnx", 2, "G0701", &["--loss"]),
    ("export tiny.onnx --train --loss cross-entropy", 2, "G0701", &["--output"]),
    ("export tiny.onnx --train --loss cross-entropy -o other.onnx", 2, "G0206", &["`other.onnx`"]),
    (
        "export tiny.onnx --train --loss cross-entropy --share-weights -o adapter/out.onnx",
        2,
        "G0701",
        &["one folder", "beside"],
    ),
    (
        "export op.onnxtxt --train --loss cross-entropy --targets up -o out.onnx",
        5,
        "G0106",
        &["`NoSuchOp`", "node `a`", "choose targets behind"],
    ),
    (
        "export op.onnxtxt --train --loss cross-entropy --targets down -o out.onnx",
        5,
        "G0104",
        &["`NoSuchOp`", "node `a`", "stock ONNX Runtime"],
    ),
    (
        "export foreign.onnxtxt --train --loss cross-entropy --targets down -o out.onnx",
        5,
        "G0104",
        &["`nowhere.NoSuchOp`", "node `a`", "--form functions"],
    ),
];

#[test]
fn what_is_refused() {
    let sandbox = sandbox();
    sandbox.write("op.onnxtxt", TINY.replace("Tanh (h)", "NoSuchOp (h)"));
    let foreign = TINY.replace("Tanh (h)", "nowhere.NoSuchOp (h)");
    sandbox.write("foreign.onnxtxt", foreign.replace("17]", "17, \"nowhere\" : 1]"));
    let lines: Vec<Refusal> =
        FLAGS.iter().map(|&(f, c, id, words)| (&*format!("{EXPORT} {f}").leak(), c, id, words)).collect();
    refuses(&sandbox, &lines);
    refuses(&sandbox, LINES);
}

fn names(graph: &Graph, values: &[graft_ir::Value]) -> Vec<String> {
    values.iter().map(|&v| graph.name(v).to_string()).collect()
}

#[test]
fn the_contract() {
    let sandbox = sandbox();
    let line = format!("{EXPORT} --targets up --rank 2 --embed-state --with eval --accumulate --json");
    let report = sandbox.succeeds(&line).json();
    assert_eq!(report["schema"], "graft.export/1");
    let step = graft_onnx::load(&sandbox.path("out.onnx")).unwrap().graph;
    let state: BTreeMap<String, Tensor> =
        graft_adapter::tensors::read(&sandbox.path("out.state.safetensors")).unwrap();
    let pairs = graft_passes::optimizer::state(&step).unwrap();
    assert!(pairs.iter().all(|(now, next)| *next == format!("{now}.next")), "{pairs:?}");
    assert!(pairs.iter().map(|p| &p.0).eq([
        "enc.up.lora_a.sum",
        "enc.up.lora_b.sum",
        "enc.up.lora_a",
        "enc.up.lora_a.m",
        "enc.up.lora_a.v",
        "enc.up.lora_b",
        "enc.up.lora_b.m",
        "enc.up.lora_b.v"
    ]));
    assert!(pairs.iter().all(|(now, _)| state.contains_key(now)));
    for (name, inputs) in [
        ("out.onnx", vec!["batches", "lr", "step"]),
        ("out.accumulate.onnx", vec!["input_ids", "label"]),
        ("out.eval.onnx", vec!["input_ids", "label"]),
    ] {
        let graph = graft_onnx::load(&sandbox.path(name)).unwrap().graph;
        let mut fed = names(&graph, &graph.inputs);
        fed.retain(|name| !state.contains_key(name));
        fed.sort();
        assert_eq!(fed, inputs, "{name}");
        assert!(graph.nodes.iter().all(|node| !node.op.contains('.')), "{name} is not portable");
    }
}
