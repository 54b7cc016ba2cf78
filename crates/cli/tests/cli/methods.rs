//! What adapter methods refuse, and several of them on one model.
use crate::{
    fixtures::sandbox,
    sandbox::{Refusal, refuses},
};

/// Ranks and settings that cannot be.
const SETTINGS: &[Refusal] = &[
    (
        "inject tiny.onnx --method bat --rank 3 --targets up -o out.onnx",
        2,
        "G0304",
        &["rank 3", "`enc.up`, 4 × 4", "1, 2, 4"],
    ),
    ("inject tiny.onnx --method bone --rank 5 --targets up -o out.onnx", 2, "G0304", &["rank 5", "4 inputs"]),
    (
        "inject tiny.onnx --method tri --rank 4 --set growth=linear --set target_rank=2 -o out.onnx",
        2,
        "G0304",
        &["`target_rank`", "less than the rank 4"],
    ),
    (
        "inject tiny.onnx --method salora --rank 4 --set target_rank=9 -o out.onnx",
        2,
        "G0304",
        &["`target_rank`", "more than the rank 4"],
    ),
    ("inject tiny.onnx --method hydra --set experts=0 -o out.onnx", 2, "G0304", &["`experts`", "positive"]),
    (
        "inject tiny.onnx --method hydra --set expert=2 -o out.onnx",
        2,
        "G0301",
        &["`expert`", "nearest: `experts`"],
    ),
    (
        "train tiny.onnx --data data.jsonl --loss cross-entropy --targets up --method adalora --set tinit=3 --set tfinal=3 --steps 5 --out out",
        2,
        "G0304",
        &["`tinit`", "leave none of 5 steps"],
    ),
    ("inject tiny.onnx --targets nothing -o out.onnx", 4, "G0302", &["`nothing`", "nearest"]),
    ("inject tiny.onnx --targets up --exclude up -o out.onnx", 4, "G0302", &["no linear node over"]),
];

#[test]
fn what_cannot_be_is_refused_with_what_could() {
    refuses(&sandbox(), SETTINGS);
}

#[test]
fn files_of_another_method_do_not_fit() {
    let sandbox = sandbox();
    let train = "train tiny.onnx --data data.jsonl --loss cross-entropy --targets up --method bone --rank 2 --steps 1";
    sandbox.succeeds(&format!("{train} --out bone"));
    sandbox.write("adapter/adapter_model.safetensors", sandbox.read("bone/adapter_model.safetensors"));
    let words: &[&str] = &["`enc.up.lora_A.weight`", "`enc.up.miss_block` (not a weight of method `lora`"];
    refuses(
        &sandbox,
        &[
            ("inject tiny.onnx --adapter adapter -o out.onnx", 4, "G0402", words),
            ("merge tiny.onnx --adapter adapter -o out.onnx", 4, "G0402", words),
            (
                "train tiny.onnx --data data.jsonl --loss cross-entropy --init adapter --steps 1 --out out",
                4,
                "G0402",
                words,
            ),
        ],
    );
}

#[test]
fn several_methods_may_stand_on_one_model_each_on_linears_of_its_own() {
    let sandbox = sandbox();
    sandbox.succeeds("inject tiny.onnx --method bone --rank 2 --targets up -o bone.onnx");
    sandbox.succeeds("inject bone.onnx --method tri --rank 1 --targets down -o both.onnx");
    let adapters = sandbox.succeeds("inspect both.onnx --json").json();
    let methods: Vec<_> = adapters["adapters"]
        .as_array()
        .expect("adapters")
        .iter()
        .map(|a| (a["target"].as_str(), a["method"].as_str()))
        .collect();
    assert_eq!(methods, [(Some("enc.up"), Some("bone")), (Some("enc.down"), Some("tri"))]);
    sandbox.succeeds("merge both.onnx --verify -o merged.onnx");
    sandbox.succeeds("verify both.onnx merged.onnx");
    refuses(
        &sandbox,
        &[(
            "inject bone.onnx --targets up -o out.onnx",
            5,
            "G0303",
            &["`enc.up`", "(`bone`) already", "`exclude`"],
        )],
    );
}

#[test]
fn what_a_model_carries_already_stays_as_it_is() {
    let sandbox = sandbox();
    sandbox.succeeds("inject tiny.onnx --adapter adapter -o lora.onnx");
    let train = "--data data.jsonl --loss cross-entropy --steps 4 --lr 0.1";
    let flags = "--method tri --rank 1 --targets down";
    let said =
        sandbox.succeeds(&format!("train lora.onnx {flags} {train} --out run --export merged=one.onnx"));
    assert!(said.stderr.contains("carries 1 adapter already (`lora`)"), "{}", said.stderr);
    let held = sandbox.succeeds("inject lora.onnx --adapter run -o both.onnx");
    assert!(held.stderr.contains("`tri` on 1 of 2"), "{}", held.stderr);
    // What was trained is folded in, and the other adapter is still there to be folded in once.
    sandbox.succeeds("merge lora.onnx --adapter run -o tri.onnx --verify");
    sandbox.succeeds("verify one.onnx tri.onnx");
    let left = sandbox.succeeds("inspect tri.onnx --json").json();
    assert_eq!(left["adapters"].as_array().map(Vec::len), Some(1));
    sandbox.succeeds("merge tri.onnx -o folded.onnx");
    sandbox.succeeds("verify both.onnx folded.onnx");
}
