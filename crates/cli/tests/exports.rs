//! The command line on models as both of PyTorch's exporters write them: what `targets` and `inspect` show, and the way
//! from an adapter that PEFT wrote to a merged model.
use serde_json::Value as Json;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The kinds of model, the loss that each is trained on, and a module of each.
const KINDS: &[(&str, &str, &str)] = &[
    ("gpt2", "causal-lm", "transformer.h.1.attn.c_attn"),
    ("llama", "causal-lm", "model.layers.0.self_attn.k_proj"),
    ("vit", "cross-entropy", "vit.layers.1.mlp.fc2"),
    ("albert", "causal-lm", "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn"),
];

fn data(kind: &str, file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/exports");
    root.join(kind).join(file).display().to_string()
}

#[track_caller]
fn graft(arguments: &[&str]) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_graft")).args(arguments).output().expect("the binary starts");
    assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).into()
}

/// Runs `check` on every file: its kind, its loss, a module, the file.
fn each(check: impl Fn(&str, &str, &str, &str)) {
    for &(kind, loss, module) in KINDS {
        for exporter in ["torchscript", "dynamo"] {
            check(kind, loss, module, &data(kind, &format!("{exporter}.onnx")));
        }
    }
}

fn modules(kind: &str) -> Vec<String> {
    let text = std::fs::read_to_string(data(kind, "run.json")).expect("the facts are there");
    let facts: Json = serde_json::from_str(&text).expect("they are JSON");
    let modules = facts["modules"].as_array().expect("a list").iter();
    modules.map(|m| m.as_str().expect("a path").to_string()).collect()
}

#[test]
fn targets_are_the_modules_that_peft_adapts() {
    each(|kind, _, module, file| {
        let listed: Json = serde_json::from_str(&graft(&["targets", file, "--json"])).expect("JSON");
        let listed = listed["targets"].as_array().expect("a list");
        let matched = listed.iter().filter(|t| t["matched"] == true);
        let mut paths: Vec<&str> = matched.map(|t| t["path"].as_str().expect("a path")).collect();
        let mut modules = modules(kind);
        paths.sort_unstable();
        paths.dedup();
        modules.sort_unstable();
        assert_eq!(paths, modules, "{file}");
        assert!(graft(&["targets", file]).contains(module), "{file}");
    });
}

#[test]
fn the_tree_is_that_of_the_modules() {
    each(|_, _, module, file| {
        let tree = graft(&["inspect", "--tree", file]);
        let names: Vec<&str> = tree.lines().filter_map(|l| l.split_once("─ ")?.1.split(' ').next()).collect();
        assert!(module.split('.').all(|part| names.contains(&part)), "{file}: {module} in\n{tree}");
        assert!(names.iter().all(|name| !name.starts_with('_')), "{file}:\n{tree}");
    });
}

#[test]
fn an_adapter_of_peft_is_injected_trained_and_merged() {
    let dir = tempfile::tempdir().expect("a folder");
    each(|kind, loss, _, file| {
        let path = |name: &str| -> PathBuf { dir.path().join(name) };
        let [out, adapted, merged] =
            ["out", "adapted.onnx", "merged.onnx"].map(|name| path(name).display().to_string());
        let (init, rows, inputs) = (data(kind, "init"), data(kind, "train.npz"), data(kind, "inputs.npz"));
        let flags = ["--label", "labels", "--steps", "2", "--batch", "4", "--lr", "1e-2", "--force"];
        let run = ["train", file, "--init", &init, "--data", &rows, "--loss", loss, "--out", &out];
        graft(&[&run[..], &flags].concat());
        graft(&["inject", file, "--adapter", &out, "-o", &adapted, "--force"]);
        let merge = ["merge", file, "--adapter", &out, "-o", &merged];
        graft(&[&merge[..], &["--verify", "--tol", "1e-5", "--force"]].concat());
        graft(&["verify", &adapted, &merged, "--inputs", &inputs, "--tol", "1e-5"]);
        assert!(graft(&["inspect", &merged, "--json"]).contains(r#""adapters":[]"#), "{file}");
        // What the run wrote is for the modules of PEFT's adapter, and nothing else.
        let listed: Json = serde_json::from_str(&graft(&["inspect", &adapted, "--json"])).expect("JSON");
        let adapters = listed["adapters"].as_array().expect("a list").len();
        assert_eq!(adapters, modules(kind).len(), "{file}");
    });
}
