//! A causal language model, the one that `graft demo` carries, trains as it does in PyTorch: `tests/data/demo` holds
//! what `crates/cli/demo/make.py` computed in double precision.
use graft_onnx::Model;
use graft_passes::targets;
use graft_train::{Config, Duration, METRICS_FILE, Order, Silent, evaluate, run};
use serde_json::Value as Json;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Relative, on each loss.
const TOLERANCE: f64 = 1e-5;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo").join(path)
}

fn whale() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/cli/demo/whale.onnx");
    graft_onnx::load(&path).expect("the model loads")
}

fn expected() -> Json {
    let text = fs::read_to_string(data("losses.json")).expect("PyTorch's losses are there");
    serde_json::from_str(&text).expect("they are JSON")
}

/// The run that PyTorch made.
fn config(expected: &Json, out: &Path) -> Config {
    Config {
        init: Some(data("init")),
        eval: Some(data("train.npz")),
        order: Order::Sequential,
        batch: whole(&expected["batch"]) as usize,
        duration: Duration::Epochs(whole(&expected["epochs"])),
        lr: expected["lr"].as_f64().expect("a number"),
        weight_decay: 0.01,
        clip: Some(1.0),
        ..Config::new(data("train.npz"), out, "causal-lm")
    }
}

fn whole(number: &Json) -> u64 {
    number.as_u64().expect("a whole number")
}

fn distance(ours: f64, theirs: &Json) -> f64 {
    let theirs = theirs.as_f64().expect("a number");
    (ours - theirs).abs() / theirs
}

#[test]
fn losses_are_those_of_pytorch() {
    let (dir, expected) = (tempfile::tempdir().expect("a folder"), expected());
    let config = config(&expected, dir.path());
    run(&whale(), &config, &mut Silent).expect("it trains");
    let text = fs::read_to_string(dir.path().join(METRICS_FILE)).expect("the run wrote metrics");
    let lines = text.lines().map(|line| serde_json::from_str::<Json>(line).expect("a line is JSON"));
    let ours: Vec<f64> = lines.filter_map(|line| line["loss"].as_f64()).collect();
    let theirs = expected["losses"].as_array().expect("a list");
    assert!(theirs.len() >= 10 && ours.len() == theirs.len(), "{} and {} steps", ours.len(), theirs.len());
    let far = ours.iter().zip(theirs).map(|(&ours, theirs)| distance(ours, theirs)).fold(0.0, f64::max);
    assert!(far <= TOLERANCE, "a loss differs by {far:e}");
    // Losses that stay where they are would prove little: the second epoch has the rows of the first.
    let (first, second) = ours.split_at(ours.len() / 2);
    assert!(second.iter().sum::<f64>() < 0.97 * first.iter().sum::<f64>(), "{ours:?}");
}

#[test]
fn a_model_is_evaluated_as_it_is() {
    let (dir, expected) = (tempfile::tempdir().expect("a folder"), expected());
    // Batches that do not divide the rows: each row counts the same.
    let config = Config { batch: 5, ..config(&expected, dir.path()) };
    let ours = evaluate(&whale().graph, &config, &mut Silent).expect("it can be evaluated");
    let far = distance(ours.eval_loss, &expected["base_loss"]);
    assert!(far <= TOLERANCE, "the loss differs by {far:e}");
}

#[test]
fn the_linears_of_every_block_are_targets() {
    let linears = targets(&whale().graph).expect("the model has linears");
    let paths: Vec<&str> = linears.iter().filter(|l| !l.is_output).map(|l| l.path.as_str()).collect();
    let block = |i| ["attn.qkv", "attn.proj", "mlp.fc", "mlp.proj"].map(|part| format!("h.{i}.{part}"));
    assert_eq!(paths, (0..4).flat_map(block).collect::<Vec<_>>());
    let outputs: Vec<&str> = linears.iter().filter(|l| l.is_output).map(|l| l.path.as_str()).collect();
    assert_eq!(outputs, ["lm_head"]);
}
