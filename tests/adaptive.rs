//! Runs that draw random numbers in each step: the same for any number of threads, and, killed and resumed, the same as
//! unbroken.
use graft_ir::Code;
use graft_onnx::Model;
use graft_passes::Options;
use graft_train::{Config, Duration, Observer, Silent, StepMetrics, run};
use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/parity").join(path)
}

fn base() -> Model {
    graft_onnx::load(&data("base.onnx")).expect("the model loads")
}

/// Settings that make a run's course depend on more than its batches.
const RUNS: &[(&str, &[(&str, &str)])] = &[
    ("lora", &[("dropout", "0.3")]),
    ("lora", &[("dora", "true"), ("dropout", "0.3")]),
    ("hydra", &[("dropout", "0.3")]),
    ("salora", &[]),
];

/// A short run on two linears.
fn config(method: &str, settings: &[(&str, &str)], out: &Path) -> Config {
    let inject = Options::default().with("method", method).with("rank", 3).with("targets", "query");
    let inject = settings.iter().fold(inject, |options, (key, value)| options.with(key, value));
    Config {
        inject: Some(inject),
        label: "labels".into(),
        logits: Some("logits".into()),
        batch: 8,
        duration: Duration::Steps(12),
        lr: 1e-2,
        ..Config::new(data("train.npz"), out, "cross-entropy")
    }
}

/// Breaks a run off after a step.
struct StopAt(u64);

impl Observer for StopAt {
    fn step(&mut self, metrics: &StepMetrics) -> ControlFlow<()> {
        if metrics.step == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// What a run leaves that must not depend on how it came about.
fn files(out: &Path) -> Vec<Vec<u8>> {
    let names = ["adapter_model.safetensors", "adapter_config.json", "state/state.safetensors"];
    names.map(|name| fs::read(out.join(name)).expect("the file is there")).into()
}

#[test]
fn a_run_is_the_same_broken_or_whole_and_for_any_number_of_threads() {
    let (base, dir) = (base(), tempfile::tempdir().expect("a folder"));
    for (i, (method, settings)) in RUNS.iter().enumerate() {
        for accumulate in [1, 2] {
            let config = |name: &str| Config {
                accumulate,
                ..config(method, settings, &dir.path().join(format!("{i}-{accumulate}-{name}")))
            };
            let whole = Config { threads: Some(1), ..config("whole") };
            let broken = Config { threads: Some(2), ..config("broken") };
            run(&base, &whole, &mut Silent).unwrap_or_else(|e| panic!("{method} {settings:?}: {e}"));
            let error = run(&base, &broken, &mut StopAt(5)).expect_err("it is broken off");
            assert_eq!(error.code, Code::INTERRUPTED, "{error}");
            run(&base, &Config { resume: true, ..broken.clone() }, &mut Silent).expect("it goes on");
            assert!(files(&whole.out) == files(&broken.out), "{method} {settings:?} ×{accumulate}");
            let other = Config { seed: 1, ..config("other") };
            run(&base, &other, &mut Silent).expect("it runs");
            assert!(files(&whole.out) != files(&other.out), "{method} {settings:?} ×{accumulate}");
        }
    }
}
