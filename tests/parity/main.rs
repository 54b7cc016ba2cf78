//! Training reproduces PyTorch: 50 losses and the gradients of a step, and the same bytes whatever the threads and
//! however often the run is broken off.
mod device;

use graft_exec::Format;
use graft_ir::{Code, Tensor};
use graft_onnx::Model;
use graft_passes::Options;
use graft_train::{Config, Duration, Observer, Order, Report, Silent, StepMetrics, run};
use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

/// The runs, and what they set that adapter files do not tell.
const RUNS: &[(&str, &[(&str, &str)])] = &[
    ("lora", &[]),
    ("rslora", &[]),
    ("dora", &[]),
    ("bone", &[]),
    ("bat", &[]),
    ("hydra", &[]),
    ("tri", &[("growth", "none")]),
    ("salora", &[("draw", "0.3:0.6:0.45:0.8"), ("penalty", "0")]),
];
/// Relative, on each loss.
const LOSS_TOLERANCE: f64 = 1e-5;
/// Relative in the Frobenius norm, on each gradient.
const GRADIENT_TOLERANCE: f64 = 1e-4;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/parity").join(path)
}

fn model(name: &str) -> Model {
    graft_onnx::load(&data(name)).expect("the model loads")
}

/// The run that PyTorch made.
fn config(method: &str, out: &Path) -> Config {
    let (_, settings) = RUNS.iter().find(|run| run.0 == method).expect("a run of that name");
    let inject = settings.iter().fold(Options::default(), |options, (key, value)| options.with(key, value));
    Config {
        inject: Some(inject),
        init: Some(data(method).join("init")),
        label: "labels".into(),
        logits: Some("logits".into()),
        order: Order::Sequential,
        batch: 8,
        duration: Duration::Steps(50),
        lr: pytorch(method)["lr"].as_f64().expect("a number"),
        weight_decay: 0.01,
        clip: Some(1.0),
        ..Config::new(data("train.npz"), out, "cross-entropy")
    }
}

fn losses(out: &Path) -> Vec<f64> {
    let text = fs::read_to_string(out.join(graft_train::METRICS_FILE)).expect("the run wrote metrics");
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("a line is JSON");
    text.lines().filter_map(|l| line(l)["loss"].as_f64()).collect()
}

/// What is noted of PyTorch's run.
fn pytorch(method: &str) -> serde_json::Value {
    let text = fs::read_to_string(data("losses.json")).expect("the losses are there");
    let all: serde_json::Value = serde_json::from_str(&text).expect("they are JSON");
    all["methods"][method].clone()
}

fn pytorch_losses(method: &str) -> Vec<f64> {
    let run = pytorch(method);
    let list = run["losses"].as_array().expect("a list for each method");
    list.iter().map(|l| l.as_f64().expect("a number")).collect()
}

fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    graft_adapter::tensors::read(path).expect("the file can be read")
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (a.to_f64().expect("floats"), b.to_f64().expect("floats"));
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied()).max(1e-30)
}

#[test]
fn losses_and_gradients_are_those_of_pytorch() {
    let runs = RUNS.iter().map(|&(method, _)| (method, "base.onnx"));
    for (method, file) in runs.chain([("lora", "base_dynamo.onnx"), ("bat", "base_dynamo.onnx")]) {
        let dir = tempfile::tempdir().expect("a folder");
        let grads = dir.path().join("g.safetensors");
        let out = dir.path().join("out");
        let config = Config { dump_grads: Some((2, grads.clone())), ..config(method, &out) };
        let report =
            run(&model(file), &config, &mut Silent).unwrap_or_else(|e| panic!("{method} {file}: {e}"));
        assert_eq!(report.steps, 50);

        let (ours, theirs) = (losses(&out), pytorch_losses(method));
        assert_eq!((ours.len(), theirs.len()), (50, 50));
        let far = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs() / b.abs()).fold(0.0, f64::max);
        assert!(far <= LOSS_TOLERANCE, "{method} on {file}: a loss differs by {far:e}");

        let (ours, theirs) = (tensors(&grads), tensors(&data(method).join("grad_step1.safetensors")));
        assert!(ours.keys().eq(theirs.keys()), "{method}: the same gradients");
        let far = ours.iter().map(|(key, g)| distance(g, &theirs[key])).fold(0.0, f64::max);
        assert!(far <= GRADIENT_TOLERANCE, "{method} on {file}: a gradient differs by {far:e}");
    }
}

/// Everything that must be the same in two runs.
fn results(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = ["adapter_model.safetensors", "adapter_config.json", "graft.json", "state/state.safetensors"];
    files.iter().map(|f| (f.to_string(), fs::read(out.join(f)).expect("the run wrote it"))).collect()
}

#[test]
fn the_bytes_do_not_depend_on_threads() {
    for method in ["lora", "dora", "bat"] {
        let dir = tempfile::tempdir().expect("a folder");
        let result = |threads: usize| {
            let out = dir.path().join(threads.to_string());
            let config = Config { threads: Some(threads), ..config(method, &out) };
            run(&model("base.onnx"), &config, &mut Silent).expect("it trains");
            results(&out)
        };
        let one = result(1);
        for threads in [2, 4] {
            assert!(result(threads) == one, "{method}: {threads} threads write other bytes than one");
        }
    }
}

/// Breaks a run off after a step.
struct StopAt(u64);

impl Observer for StopAt {
    fn step(&mut self, metrics: &StepMetrics) -> ControlFlow<()> {
        if metrics.step == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// A shorter run with everything that has state: shuffled rows that do not fill the last batch, a schedule, evaluation.
fn eventful(out: &Path) -> Config {
    Config {
        order: Order::Shuffle,
        batch: 48,
        duration: Duration::Epochs(3),
        schedule: graft_train::Curve::Cosine,
        warmup: 0.1,
        eval: Some(data("train.npz")),
        eval_every: Some(4),
        keep_best: true,
        seed: 7,
        ..config("lora", out)
    }
}

#[test]
fn a_resumed_run_ends_with_the_same_bytes() {
    for accumulate in [1, 2] {
        let dir = tempfile::tempdir().expect("a folder");
        let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
        let model = model("base.onnx");
        let config = |out: &Path| Config { accumulate, ..eventful(out) };
        let report = run(&model, &config(&whole), &mut Silent).expect("it trains");
        assert!(report.steps > 10 && report.evaluation.is_some_and(|e| e.accuracy.is_some()), "{report:?}");

        let stop = |at: u64, resume: bool| {
            let error =
                run(&model, &Config { resume, ..config(&broken) }, &mut StopAt(at)).expect_err("it stops");
            assert_eq!(error.code, Code::INTERRUPTED);
        };
        stop(3, false);
        stop(7, true);
        run(&model, &Config { resume: true, ..config(&broken) }, &mut Silent).expect("it goes on");
        assert!(results(&whole) == results(&broken), "accumulate {accumulate}: other bytes after two breaks");
        assert_eq!(losses(&whole), losses(&broken));
    }
}

/// Copies a run's folder as it is after a step: what a kill at that moment leaves.
struct Kill<'a> {
    at: u64,
    from: &'a Path,
    to: &'a Path,
}

impl Observer for Kill<'_> {
    fn step(&mut self, metrics: &StepMetrics) -> ControlFlow<()> {
        if metrics.step == self.at {
            copy(self.from, self.to);
        }
        ControlFlow::Continue(())
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_owned();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).expect("a copy");
        }
    }
}

#[test]
fn a_killed_run_goes_on_from_its_last_save() {
    let dir = tempfile::tempdir().expect("a folder");
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let model = model("base.onnx");
    let config =
        |out: &Path| Config { save_every: Some(5), duration: Duration::Steps(20), ..config("lora", out) };
    // The kill comes between two saves: the steps 11 to 13 are lost, but stand in the metrics.
    let mut kill = Kill { at: 13, from: &whole, to: &killed };
    run(&model, &config(&whole), &mut kill).expect("it trains");
    assert_eq!(losses(&killed).len(), 13);
    run(&model, &Config { resume: true, ..config(&killed) }, &mut Silent).expect("it goes on");
    assert!(results(&whole) == results(&killed));
    assert_eq!(losses(&whole), losses(&killed));
}

#[test]
fn a_foreign_state_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("out");
    let short = |out: &Path| Config { duration: Duration::Steps(2), ..config("lora", out) };
    run(&model("base.onnx"), &short(&out), &mut Silent).expect("it trains");
    let before = results(&out);
    let resumed = |config: Config| Config { resume: true, ..config };
    let code = |model_file: &str, config: Config| {
        let error = run(&model(model_file), &config, &mut Silent).expect_err("it is refused");
        (error.code, error.message)
    };
    let (found, message) = code("base.onnx", resumed(Config { lr: 1e-3, ..short(&out) }));
    assert_eq!(found, Code::STATE);
    assert!(message.contains("`lr` was `0.01` and is `0.001`"), "{message}");
    let (found, message) = code("base_dynamo.onnx", resumed(short(&out)));
    assert_eq!(found, Code::STATE);
    assert!(message.contains("`model`"), "{message}");
    let other = Config { data: data("eval.npz"), ..short(&out) };
    assert_eq!(code("base.onnx", resumed(other)).0, Code::LABEL, "the evaluation batch has no labels");
    assert_eq!(code("base.onnx", short(&out)).0, Code::EXISTS);
    assert!(results(&out) == before, "a refusal changes nothing");
}

#[test]
fn a_finished_run_resumes_to_itself() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("out");
    let config = Config { duration: Duration::Steps(3), ..config("lora", &out) };
    let done = run(&model("base.onnx"), &config, &mut Silent).expect("it trains");
    let before = results(&out);
    let again =
        run(&model("base.onnx"), &Config { resume: true, ..config }, &mut Silent).expect("it resumes");
    assert_eq!(again, Report { steps: 3, loss: None, evaluation: None, best: done.best });
    assert!(results(&out) == before);
    assert_eq!(losses(&out).len(), 3);
}

#[test]
fn accumulated_batches_are_one_large_batch() {
    let dir = tempfile::tempdir().expect("a folder");
    let trained = |name: &str, batch: usize, accumulate: usize| {
        let out = dir.path().join(name);
        let config = Config { batch, accumulate, duration: Duration::Steps(5), ..config("lora", &out) };
        run(&model("base.onnx"), &config, &mut Silent).expect("it trains");
        losses(&out)
    };
    let (one, four) = (trained("one", 8, 1), trained("four", 2, 4));
    let far = one.iter().zip(&four).map(|(a, b)| (a - b).abs() / a).fold(0.0, f64::max);
    assert!(far < 1e-5, "losses differ by {far:e}");
}

#[test]
fn failures_before_the_first_step_leave_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("runs/a");
    let good = config("lora", &out);
    let missing = Some(dir.path().join("nothing"));
    for (bad, code) in [
        (Config { label: "label".into(), ..good.clone() }, Code::LABEL),
        (Config { logits: Some("scores".into()), ..good.clone() }, Code::LOSS),
        (Config { loss: "hinge".into(), ..good.clone() }, Code::LOSS),
        (Config { data: "nothing.npz".into(), ..good.clone() }, Code::IO),
        (Config { init: missing.clone(), ..good.clone() }, Code::ADAPTER),
        (Config { resume: true, ..good.clone() }, Code::STATE),
        (Config { precision: Format::Bf16, ..good.clone() }, Code::DEVICE),
        (Config { dump_grads: Some((51, out.join("g"))), ..good.clone() }, Code::USAGE),
        (Config { inject: Some(Options::default().with("rank", 8)), ..good.clone() }, Code::USAGE),
    ] {
        let error = run(&model("base.onnx"), &bad, &mut Silent).expect_err("it is refused");
        assert_eq!(error.code, code, "{error}");
        assert_eq!(fs::read_dir(dir.path()).expect("the folder").count(), 0, "{error}");
    }
}

#[test]
fn a_diverging_run_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("out");
    let config = Config { lr: 1e30, clip: None, save_every: Some(1), ..config("lora", &out) };
    let error = run(&model("base.onnx"), &config, &mut Silent).expect_err("it diverges");
    assert_eq!(error.code, Code::DIVERGED);
    assert!(out.join("state/state.safetensors").exists(), "{error}");
}
