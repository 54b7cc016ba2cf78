//! Runs that draw random numbers in each step, and runs whose ranks come and go: the same for any number of threads, and,
//! killed and resumed, the same as unbroken; and what they leave.
use graft_exec::{Options as Machine, Session};
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
    ("hydra", &[("balance", "0.05")]),
    ("salora", &[("target_rank", "2"), ("gate_lr", "30")]),
    (
        "tri",
        &[("growth", "linear"), ("target_rank", "5"), ("max_rank", "6"), ("interval", "3"), ("reg", "0.1")],
    ),
    (
        "tri",
        &[
            ("growth", "nonlinear"),
            ("init", "single"),
            ("target_rank", "5"),
            ("interval", "3"),
            ("reg", "0.1"),
        ],
    ),
    ("adalora", &[("target_rank", "2"), ("interval", "3"), ("tfinal", "2"), ("reg", "0.5")]),
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

/// The lines of a run's metrics that have `key`.
fn lines(out: &Path, key: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).expect("the metrics");
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    lines.filter(|line| line.get(key).is_some()).collect()
}

/// Each line's ranks, in the order of the module paths.
fn ranks(out: &Path) -> Vec<(u64, Vec<u64>)> {
    let counts = |line: &serde_json::Value| {
        line["ranks"].as_object().expect("an object").values().filter_map(|n| n.as_u64()).collect()
    };
    lines(out, "ranks").iter().map(|line| (line["step"].as_u64().expect("a step"), counts(line))).collect()
}

/// Logits of the adapted model and of the model with the adapter folded in, both written by the run.
fn exported(config: &Config) -> [Vec<f64>; 2] {
    let tensors = graft_adapter::tensors::read(&data("train.npz")).expect("the data");
    ["adapted", "merged"].map(|form| {
        let model = graft_onnx::load(&config.out.with_extension(format!("{form}.onnx"))).expect("the model");
        let mut session = Session::new(&model.graph, &[], &Machine::default()).expect("it can be run");
        let feeds = ["input_ids", "attention_mask"].map(|name| (name, &tensors[name]));
        let outputs = session.run(&feeds).expect("it runs");
        let logits = outputs.into_iter().find(|(name, _)| name == "logits").expect("logits");
        logits.1.to_f64().expect("floats")
    })
}

/// A run that writes both models and is evaluated on its training data.
fn exporting(method: &str, settings: &[(&str, &str)], out: &Path) -> Config {
    let export = |form: &str| {
        let path = out.with_extension(format!("{form}.onnx"));
        format!("{form}={}", path.display()).parse().expect("an export")
    };
    let exports = vec![export("adapted"), export("merged")];
    Config { exports, eval: Some(data("train.npz")), ..config(method, settings, out) }
}

/// The mean cross-entropy of logits of two classes.
fn cross_entropy(logits: &[f64]) -> f64 {
    let labels = &graft_adapter::tensors::read(&data("train.npz")).expect("the data")["labels"];
    let labels = labels.to_i64().expect("integers");
    let classes = logits.len() / labels.len();
    let rows = logits.chunks_exact(classes).zip(&labels);
    let loss =
        rows.map(|(row, &label)| row.iter().map(|x| (x - row[label as usize]).exp()).sum::<f64>().ln());
    loss.sum::<f64>() / labels.len() as f64
}

/// What the files hold, compacted, is what was trained and evaluated at full width.
#[test]
fn what_is_written_is_what_was_evaluated() {
    let (base, dir) = (base(), tempfile::tempdir().expect("a folder"));
    for (i, (method, settings)) in RUNS.iter().enumerate() {
        let config = exporting(method, settings, &dir.path().join(format!("{i}")));
        let config = Config {
            exports: if *method == "hydra" { config.exports[..1].to_vec() } else { config.exports.clone() },
            ..config
        };
        let report = run(&base, &config, &mut Silent).unwrap_or_else(|e| panic!("{method}: {e}"));
        if *method == "hydra" {
            continue;
        }
        let evaluated = report.evaluation.expect("an evaluation").eval_loss;
        for logits in exported(&config) {
            let loss = cross_entropy(&logits);
            assert!((loss - evaluated).abs() < 1e-5, "{method} {settings:?}: {loss} and {evaluated}");
        }
    }
}

#[test]
fn penalties_are_reported_beside_the_loss() {
    let (base, dir) = (base(), tempfile::tempdir().expect("a folder"));
    let losses = |name: &str, settings: &[(&str, &str)]| {
        let config = config("tri", settings, &dir.path().join(name));
        run(&base, &config, &mut Silent).expect("it runs");
        (lines(&config.out, "loss"), lines(&config.out, "penalty"))
    };
    let (plain, none) = losses("plain", &[]);
    let (with, penalties) = losses("with", &[("reg", "0.1")]);
    assert!(none.is_empty() && penalties.len() == with.len());
    assert_eq!(plain[0]["loss"], with[0]["loss"], "the loss is that of the task");
    assert_ne!(plain[11]["loss"], with[11]["loss"], "the penalty acts");
    // ‖AᵀA − I‖ of a small A and ‖0 − I‖ are about √3; their mean over matrices times the weight.
    let first = penalties[0]["penalty"].as_f64().expect("a number");
    assert!((first - 0.1 * 3f64.sqrt()).abs() < 0.02, "{first}");
}

#[test]
fn tri_grows_to_its_target() {
    let (base, dir) = (base(), tempfile::tempdir().expect("a folder"));
    let settings = [("growth", "linear"), ("target_rank", "4"), ("max_rank", "5"), ("interval", "2")];
    let mut config = config("tri", &settings, &dir.path().join("run"));
    let inject = config.inject.take().expect("options");
    config.inject = Some(inject.with("rank", 2));
    config.duration = Duration::Steps(24);
    run(&base, &config, &mut Silent).expect("it runs");
    let ranks = ranks(&config.out);
    let total = |i: usize| ranks[i].1.iter().sum::<u64>();
    let linears = ranks[0].1.len() as u64;
    assert_eq!((ranks[0].0, total(0)), (0, 2 * linears));
    assert!((1..ranks.len()).all(|i| total(i) > total(i - 1) && ranks[i].0.is_multiple_of(2)), "{ranks:?}");
    let end = total(ranks.len() - 1);
    assert!((4 * linears..5 * linears).contains(&end), "{ranks:?}");

    // The files hold each linear's ranks, and an alpha that keeps the scale 16/4.
    let saved = graft_adapter::load(&config.out).expect("the adapter");
    let rank = |path: &str| {
        let a = &saved.tensors[&format!("{path}.lora_A.weight")];
        let [l, u] =
            ["lora_L", "lora_U"].map(|name| saved.tensors[&format!("{path}.{name}")].dims().to_vec());
        assert_eq!((l, u), (vec![a.dims()[0]; 2], vec![a.dims()[0]; 2]));
        a.dims()[0]
    };
    let paths: Vec<String> =
        lines(&config.out, "ranks")[0]["ranks"].as_object().expect("an object").keys().cloned().collect();
    let last = &ranks[ranks.len() - 1].1;
    assert_eq!(paths.iter().map(|p| rank(p) as u64).collect::<Vec<_>>(), *last);
    for path in &paths {
        let rank = saved.config.rank_pattern.get(path).copied().unwrap_or(saved.config.rank);
        let alpha = saved.config.alpha_pattern.get(path).copied().or(saved.config.alpha).expect("an alpha");
        assert!((alpha / rank as f64 - 4.0).abs() < 1e-6, "{path}: {alpha} / {rank}");
    }
}

/// As in the original new ranks are random numbers, b too, and alpha is divided by the ranks that count.
#[test]
fn ranks_that_begin_at_random_and_are_counted_in_the_scale() {
    let (base, dir) = (base(), tempfile::tempdir().expect("a folder"));
    let settings = [("growth", "topk"), ("init", "single"), ("target_rank", "4"), ("top", "9")];
    let run_of = |steps| {
        let out = dir.path().join(format!("{steps}"));
        let growing = [&settings[..], &[("interval", "2")]].concat();
        let config = config("tri", &growing, &out);
        let inject = config.inject.clone().expect("options").with("alpha", 6);
        // So small a step that what is there is what has grown.
        let config = Config { inject: Some(inject), duration: Duration::Steps(steps), lr: 1e-9, ..config };
        run(&base, &config, &mut Silent).expect("it runs");
        graft_adapter::load(&out).expect("the adapter")
    };
    let (three, four) = (run_of(1), run_of(2));
    assert_eq!((three.config.rank, three.config.alpha), (3, Some(6.0)));
    assert_eq!((four.config.rank, four.config.alpha), (4, Some(6.0)));
    for (key, b) in four.tensors.iter().filter(|(key, _)| key.ends_with("lora_B.weight")) {
        let columns: Vec<f64> = b.to_f64().expect("floats");
        let column = |k: usize| columns.iter().skip(k).step_by(4).map(|x| x * x).sum::<f64>().sqrt();
        assert!((0..3).all(|k| column(k) < 1e-6) && column(3) > 1e-2, "{key}");
    }
}

/// Ranks that do not count stay as they were made, whatever the optimiser does with the others.
#[test]
fn ranks_that_do_not_count_are_not_trained() {
    let (base, dir) = (base(), tempfile::tempdir().expect("a folder"));
    let settings = [("growth", "topk"), ("target_rank", "5"), ("max_rank", "6"), ("interval", "100")];
    let states = [1, 12].map(|steps| {
        let out = dir.path().join(steps.to_string());
        let config = Config { duration: Duration::Steps(steps), ..config("tri", &settings, &out) };
        run(&base, &config, &mut Silent).expect("it runs");
        graft_adapter::tensors::read(&out.join("state/state.safetensors")).expect("the state")
    });
    let mut seen = 0;
    for (name, early) in &states[0] {
        let (early, late) = (early.to_f64(), states[1][name].to_f64());
        let (Some(early), Some(late)) = (early, late) else { continue };
        // b is (6, 32): its last three rows are those of ranks that do not count.
        if states[0][name].dims().first() == Some(&6) && name.ends_with("_b") {
            let half = early.len() / 2;
            assert!(early[half..].iter().chain(&late[half..]).all(|x| *x == 0.0), "{name}");
            assert_ne!(early[..half], late[..half], "{name}");
            seen += 1;
        }
    }
    assert!(seen > 0, "{:?}", states[0].keys());
}

#[test]
fn adalora_leaves_out_ranks_until_the_target() {
    let (base, dir) = (base(), tempfile::tempdir().expect("a folder"));
    let settings = [("target_rank", "1"), ("tinit", "2"), ("tfinal", "4"), ("interval", "2")];
    let mut config = config("adalora", &settings, &dir.path().join("run"));
    config.duration = Duration::Steps(20);
    run(&base, &config, &mut Silent).expect("it runs");
    let ranks = ranks(&config.out);
    let total = |i: usize| ranks[i].1.iter().sum::<u64>();
    let linears = ranks[0].1.len() as u64;
    assert_eq!((ranks[0].0, total(0)), (0, 3 * linears));
    let (last, end) = (&ranks[ranks.len() - 1], total(ranks.len() - 1));
    assert!(last.0 <= 16 && end == linears, "{ranks:?}");
    let saved = graft_adapter::load(&config.out).expect("the adapter");
    let kept: usize = saved
        .tensors
        .iter()
        .filter(|(key, _)| key.ends_with("lora_E"))
        .map(|(_, e)| e.to_f64().expect("floats").iter().filter(|x| **x != 0.0).count())
        .sum();
    assert_eq!(kept as u64, end, "the singular values of the others are 0");

    // PEFT is told of this training, and of the next one where that goes on from here.
    assert_eq!(saved.config.keys["total_step"], 20);
    let mut next =
        Config { init: Some(config.out.clone()), inject: Some(Options::default()), ..config.clone() };
    (next.out, next.duration) = (dir.path().join("next"), Duration::Steps(9));
    run(&base, &next, &mut Silent).expect("it runs");
    assert_eq!(graft_adapter::load(&next.out).expect("the adapter").config.keys["total_step"], 9);
    let short = Config { duration: Duration::Steps(6), out: dir.path().join("short"), ..config };
    let error = run(&base, &short, &mut Silent).expect_err("no step is left to choose ranks in");
    assert_eq!(error.code, Code::METHOD, "{error}");
    assert!(!dir.path().join("short").exists(), "nothing is left behind");
}

#[test]
fn salora_reaches_its_budget_and_is_a_lora_then() {
    let (base, dir) = (base(), tempfile::tempdir().expect("a folder"));
    let settings = [("target_rank", "2"), ("gate_lr", "5"), ("gate_decay", "false")];
    let mut config = exporting("salora", &settings, &dir.path().join("run"));
    let inject = config.inject.take().expect("options");
    config.inject = Some(inject.with("rank", 6));
    config.duration = Duration::Steps(100);
    run(&base, &config, &mut Silent).expect("it runs");
    let ranks = ranks(&config.out);
    let (linears, end) = (ranks[0].1.len() as u64, ranks[ranks.len() - 1].1.iter().sum::<u64>());
    assert_eq!(ranks[0].1, vec![6; linears as usize]);
    assert!((linears..=2 * linears).contains(&end), "within a rank of the budget of 2 a linear: {ranks:?}");
    assert!(ranks.len() > 3, "the budget falls by and by: {ranks:?}");
    let saved = graft_adapter::load(&config.out).expect("the adapter");
    assert_eq!(saved.config.peft_type, "LORA");
    let written: usize =
        saved.tensors.iter().filter(|(k, _)| k.ends_with("lora_A.weight")).map(|(_, a)| a.dims()[0]).sum();
    assert_eq!(written as u64, end);
    assert!(saved.tensors.keys().all(|key| key.contains("lora_A") || key.contains("lora_B")));
}
