//! What a run trains and what it makes of it: the head alone, and the models that it exports, which must give what was
//! evaluated.
use graft_adapter::{HEAD_FILE, MANIFEST_FILE, MODEL_FILE, Manifest};
use graft_exec::{Options as Machine, Session};
use graft_ir::{Code, Graph, Tensor};
use graft_onnx::{Model, to_bytes};
use graft_passes::{Options, inject::Inputs, meta};
use graft_train::{
    Config, Duration, Observer, Silent, StepMetrics, run,
    trained::{self, Trained},
};
use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/parity").join(path)
}

fn load(path: &Path) -> Model {
    graft_onnx::load(path).expect("the model loads")
}

fn base() -> Model {
    load(&data("base.onnx"))
}

/// A short run with a new head of three classes on the model's own logits; with `adapted`, with LoRA too.
fn config(adapted: bool, out: &Path) -> Config {
    let head = Options::default().with("kind", "classify").with("classes", 3);
    Config {
        inject: adapted.then(|| Options::default().with("method", "lora").with("rank", 2)),
        head: Some(head.with("from", "logits").with("pool", "none")),
        eval: Some(data("train.npz")),
        label: "labels".into(),
        batch: 40,
        duration: Duration::Steps(12),
        lr: 2e-2,
        ..Config::new(data("train.npz"), out, "cross-entropy")
    }
}

/// The outputs for the rows of the training data.
fn outputs(graph: &Graph) -> BTreeMap<String, Vec<f64>> {
    let tensors = graft_adapter::tensors::read(&data("train.npz")).expect("the data can be read");
    let is_input = |name: &&str| graph.inputs.iter().any(|&v| graph.name(v) == *name);
    let names = ["input_ids", "attention_mask"].into_iter().filter(is_input);
    let feeds: Vec<(&str, &Tensor)> = names.map(|name| (name, &tensors[name])).collect();
    let mut session = Session::new(graph, &[], &Machine::default()).expect("the graph can be run");
    let outputs = session.run(&feeds).expect("it runs").into_iter();
    outputs.map(|(name, tensor)| (name, tensor.to_f64().expect("floats"))).collect()
}

/// max|a − b| / max|a|.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    largest(&mut a.iter().zip(b).map(|(a, b)| (a - b).abs())) / largest(&mut a.iter().map(|a| a.abs()))
}

/// The mean cross-entropy and the accuracy of logits of three classes.
fn judged(logits: &[f64]) -> (f64, f64) {
    let labels = &graft_adapter::tensors::read(&data("train.npz")).expect("the data can be read")["labels"];
    let labels = labels.to_i64().expect("integers");
    let (mut loss, mut right) = (0.0, 0.0);
    for (row, &label) in logits.chunks_exact(3).zip(&labels) {
        let of_label = row[label as usize];
        loss += row.iter().map(|x| (x - of_label).exp()).sum::<f64>().ln();
        right += f64::from(u8::from(row.iter().all(|&x| x <= of_label)));
    }
    (loss / labels.len() as f64, right / labels.len() as f64)
}

/// Breaks a run off after a step.
struct StopAt(u64);

impl Observer for StopAt {
    fn step(&mut self, metrics: &StepMetrics) -> ControlFlow<()> {
        if metrics.step == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn the_head_alone_is_trained_saved_and_resumed() {
    let dir = tempfile::tempdir().expect("a folder");
    let [whole, broken] = ["whole", "broken"].map(|name| dir.path().join(name));
    let exported = dir.path().join("adapted.onnx");
    let exports = vec![exported.display().to_string().parse().expect("a form")];
    let report = run(&base(), &Config { exports, ..config(false, &whole) }, &mut Silent).expect("it trains");

    let mut files: Vec<_> =
        fs::read_dir(&whole).expect("the folder").map(|e| e.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["graft.json", "head.safetensors", "loss.svg", "metrics.jsonl", "state"]);
    let manifest = Manifest::read(&whole.join(MANIFEST_FILE)).expect("a manifest");
    assert_eq!((manifest.method.as_str(), manifest.modules.len()), ("none", 0));
    let Trained { adapter, head } = Trained::read(&whole).expect("it reads back");
    assert!(adapter.is_none() && head.is_some_and(|head| head.tensors.len() == 2));
    assert_eq!(graft_adapter::load(&whole).expect_err("no adapter").code, Code::ADAPTER);

    // The encoder is the base model's, to the bit; the head on it is what was evaluated.
    let (before, after) = (outputs(&base().graph), outputs(&load(&exported).graph));
    assert_eq!(before["logits"], after["logits"]);
    let evaluation = report.evaluation.expect("it evaluates");
    let (loss, accuracy) = judged(&after["graft.logits"]);
    assert!((loss - evaluation.eval_loss).abs() < 1e-5 * loss, "{loss} {evaluation:?}");
    assert_eq!(Some(accuracy), evaluation.accuracy);

    let error = run(&base(), &config(false, &broken), &mut StopAt(5)).expect_err("it stops");
    assert_eq!(error.code, Code::INTERRUPTED);
    let other = Config { resume: true, ..config(true, &broken) };
    assert_eq!(run(&base(), &other, &mut Silent).expect_err("another run").code, Code::STATE);
    run(&base(), &Config { resume: true, ..config(false, &broken) }, &mut Silent).expect("it goes on");
    for file in [HEAD_FILE, MANIFEST_FILE, "state/state.safetensors"] {
        assert!(fs::read(whole.join(file)).unwrap() == fs::read(broken.join(file)).unwrap(), "{file}");
    }
}

#[test]
fn a_run_that_begins_anew_leaves_no_adapter_of_the_one_before() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("out");
    run(&base(), &config(true, &out), &mut Silent).expect("it trains");
    assert!(out.join(MODEL_FILE).exists());
    run(&base(), &Config { force: true, ..config(false, &out) }, &mut Silent).expect("it trains");
    assert!(!out.join(MODEL_FILE).exists() && !out.join("adapter_config.json").exists());
    assert!(Trained::read(&out).expect("a head").adapter.is_none());
}

#[test]
fn exported_models_give_what_was_evaluated() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("out");
    let files = ["adapted", "merged"].map(|form| dir.path().join(form).with_extension("onnx"));
    let exports = files.iter().map(|f| f.display().to_string().parse().expect("a form")).collect();
    let config = Config { exports, keep_best: true, eval_every: Some(4), ..config(true, &out) };
    let report = run(&base(), &config, &mut Silent).expect("it trains");
    let (best, _) = report.best.expect("it evaluates");

    let [adapted, merged] = files.each_ref().map(|file| load(file));
    let [ours, theirs] = [&adapted, &merged].map(|model| outputs(&model.graph));
    let (loss, _) = judged(&ours["graft.logits"]);
    assert!((loss - best).abs() < 1e-5 * best, "{loss} {best}");
    for name in ["logits", "graft.logits"] {
        let far = difference(&ours[name], &theirs[name]);
        assert!(far < 1e-5, "{name}: merged and adapted differ by {far:e}");
    }
    assert!(
        difference(&outputs(&base().graph)["logits"], &ours["logits"]) > 1e-2,
        "the adapter did something"
    );

    // The folder says the same as the files.
    let Trained { adapter: Some(adapter), head: Some(head) } = Trained::read(&out).expect("it reads back")
    else {
        panic!("there are an adapter and a head");
    };
    let (base, log) = (base(), &mut |_: &str| ());
    let again = trained::inject(&base.graph, &adapter, Inputs::None, log).expect("it fits");
    let again = trained::put_head(&again, &head, true, log).expect("it fits");
    assert!(to_bytes(&again, Some(&base)).unwrap() == fs::read(&files[0]).unwrap());
    let again = trained::merge(&base.graph, &adapter, 1.0, log).expect("it fits");
    let again = trained::put_head(&again, &head, false, log).expect("it fits");
    assert!(to_bytes(&again, Some(&base)).unwrap() == fs::read(&files[1]).unwrap());

    // The merged model is a model like any other: nothing in it is known as trained.
    let trains =
        |model: &Model| model.graph.params.iter().any(|&v| model.graph[v].meta.contains_key(meta::TRAINABLE));
    assert!(trains(&adapted) && !trains(&merged));
}

#[test]
fn an_export_that_cannot_be_written_is_refused_before_the_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let (out, there) = (dir.path().join("out"), dir.path().join("merged.onnx"));
    fs::write(&there, "mine").expect("a file");
    let with = |path: &Path, force| {
        let exports = vec![path.display().to_string().parse().expect("a form")];
        let error = run(&base(), &Config { exports, force, ..config(true, &out) }, &mut Silent).err();
        error.map(|e| e.code)
    };
    assert_eq!(with(&there, false), Some(Code::EXISTS));
    assert_eq!(with(&dir.path().join("nowhere/merged.onnx"), false), Some(Code::IO));
    assert!(!out.exists() && fs::read(&there).unwrap() == b"mine");
    assert_eq!(with(&there, true), None);
    assert!(outputs(&load(&there).graph).contains_key("graft.logits"));
    // HydraLoRA depends on the input, so no weight has its effect.
    let exports = vec![dir.path().join("hydra-merged.onnx").display().to_string().parse().expect("a form")];
    let hydra = Some(Options::default().with("method", "hydra").with("rank", 2));
    let config = Config { inject: hydra, exports, ..config(true, &dir.path().join("hydra")) };
    assert_eq!(run(&base(), &config, &mut Silent).expect_err("never").code, Code::MERGE);
    assert!(!dir.path().join("hydra").exists());
}

#[test]
fn a_head_that_nobody_can_place_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("out");
    run(&base(), &config(true, &out), &mut Silent).expect("it trains");
    let path = out.join(MANIFEST_FILE);
    let manifest = Manifest::read(&path).expect("a manifest");
    Manifest { head: None, ..manifest }.write(&path).expect("it is written");
    assert_eq!(Trained::read(&out).expect_err("no options").code, Code::ADAPTER);
    fs::remove_file(&path).expect("the manifest is there");
    let error = Trained::read(&out).expect_err("no manifest");
    assert_eq!(error.code, Code::ADAPTER);
    assert!(error.to_string().contains("--no-head"), "{error}");
    assert!(graft_adapter::load(&out).is_ok(), "the adapter itself is whole");
}
