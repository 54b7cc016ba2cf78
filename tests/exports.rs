//! GPT-2, Llama, ViT and ALBERT through both of PyTorch's exporters: what `all-linear` stands for, what they give, how they
//! train and what merging makes of them, against what PEFT, PyTorch and ONNX Runtime said (`tests/python/exports.py`).
use graft_adapter::{Adapter, Config as AdapterConfig, Targets};
use graft_exec::{Options as Machine, Session};
use graft_ir::{Graph, Tensor, random};
use graft_onnx::Model;
use graft_passes::{ALL, Context, Options, Selector, inject::Inputs, pipeline, target};
use graft_train::{
    Config, Duration, Init, METRICS_FILE, Order, Silent, run,
    trained::{self, Trained},
};
use serde_json::Value as Json;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The models, and the loss that each is trained on.
const KINDS: &[(&str, &str)] =
    &[("gpt2", "causal-lm"), ("llama", "causal-lm"), ("vit", "cross-entropy"), ("albert", "causal-lm")];
const EXPORTERS: &[&str] = &["torchscript", "dynamo"];
/// max|a − b| / max|a| of logits, and relative on each loss.
const TOLERANCE: f64 = 1e-5;

/// One file, and what belongs to its kind.
struct Export {
    kind: &'static str,
    exporter: &'static str,
    loss: &'static str,
}

impl Export {
    fn all() -> impl Iterator<Item = Export> {
        let of = |&(kind, loss): &'static (&str, &str)| {
            EXPORTERS.iter().map(move |&exporter| Export { kind, exporter, loss })
        };
        KINDS.iter().flat_map(of)
    }

    fn path(&self, file: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data/exports").join(self.kind).join(file)
    }

    fn name(&self) -> String {
        format!("{} by {}", self.kind, self.exporter)
    }

    fn model(&self) -> Model {
        let file = self.path(&format!("{}.onnx", self.exporter));
        graft_onnx::load(&file).unwrap_or_else(|e| panic!("{}: {e}", self.name()))
    }

    fn tensors(&self, file: &str) -> BTreeMap<String, Tensor> {
        graft_adapter::tensors::read(&self.path(file)).expect("the file can be read")
    }

    /// What PEFT and PyTorch said.
    fn facts(&self) -> Json {
        let text = fs::read_to_string(self.path("run.json")).expect("the facts are there");
        serde_json::from_str(&text).expect("they are JSON")
    }

    /// The logits for the committed inputs.
    fn logits(&self, graph: &Graph) -> Vec<f64> {
        let inputs = self.tensors("inputs.npz");
        let feeds: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let mut session = Session::new(graph, &[], &Machine::default()).expect("the graph can be run");
        let outputs = session.run(&feeds).unwrap_or_else(|e| panic!("{}: {e}", self.name()));
        let logits = outputs.iter().find(|(name, _)| name == "logits").expect("logits");
        logits.1.to_f64().expect("floats")
    }

    /// The logits that others computed.
    fn expected(&self, by: &str) -> Vec<f64> {
        self.tensors("outputs.npz")[by].to_f64().expect("floats")
    }

    #[track_caller]
    fn assert_close(&self, ours: &[f64], theirs: &[f64], what: &str) {
        let far = difference(theirs, ours);
        assert!(far <= TOLERANCE, "{}: {what} differs by {far:e}", self.name());
    }

    /// The run that PyTorch made.
    fn config(&self, out: &Path) -> Config {
        let facts = self.facts();
        let number = |key: &str| facts[key].as_f64().expect("a number");
        Config {
            init: Some(self.path("init")),
            label: "labels".into(),
            order: Order::Sequential,
            batch: number("batch") as usize,
            duration: Duration::Epochs(number("epochs") as u64),
            lr: number("lr"),
            weight_decay: number("weight_decay"),
            clip: Some(number("clip")),
            ..Config::new(self.path("train.npz"), out, self.loss)
        }
    }
}

/// max|a − b| / max|a|.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    largest(&mut a.iter().zip(b).map(|(a, b)| (a - b).abs())) / largest(&mut a.iter().map(|a| a.abs()))
}

fn adapter(dir: &Path) -> Init {
    Trained::read(dir).expect("it can be read").adapter.expect("an adapter")
}

fn understood(config: AdapterConfig, tensors: BTreeMap<String, Tensor>) -> Init {
    Init::of(Adapter { config, tensors, warnings: Vec::new() }).expect("the configuration is known")
}

fn adapted(graph: &Graph, adapter: &Init) -> Graph {
    trained::inject(graph, adapter, Inputs::None, &mut |_| ()).expect("it fits")
}

fn merged(graph: &Graph, adapter: &Init) -> Graph {
    trained::merge(graph, adapter, 1.0, &mut |_| ()).expect("it fits")
}

fn losses(out: &Path) -> Vec<f64> {
    let text = fs::read_to_string(out.join(METRICS_FILE)).expect("the run wrote metrics");
    let line = |line: &str| serde_json::from_str::<Json>(line).expect("a line is JSON");
    text.lines().filter_map(|l| line(l)["loss"].as_f64()).collect()
}

#[test]
fn all_linear_is_what_peft_adapts() {
    for export in Export::all() {
        let linears = target::targets(&export.model().graph).expect("they are found");
        let selector = Selector::new(&Options::default()).expect("`all-linear` is the default");
        let selected = selector.select(&linears).expect("some match");
        let firsts = selected.iter().filter(|l| l.nth_use == 0);
        let mut ours: Vec<&str> = firsts.map(|l| l.path.as_str()).collect();
        let facts = export.facts();
        let list = facts["modules"].as_array().expect("a list").iter();
        let mut theirs: Vec<&str> = list.map(|m| m.as_str().expect("a path")).collect();
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs, "{}", export.name());
        let others: Vec<&str> = linears.iter().filter(|l| l.is_output).map(|l| l.path.as_str()).collect();
        let head = match export.kind {
            "vit" => "classifier",
            "albert" => "predictions.decoder",
            _ => "lm_head",
        };
        // Three uses of each of the six linears in ALBERT's layer.
        let again = if export.kind == "albert" { 12 } else { 0 };
        let count = theirs.len() + 1 + again;
        assert_eq!((others, linears.len()), (vec![head], count), "{}", export.name());
    }
}

#[test]
fn every_attention_is_raised() {
    for export in Export::all() {
        let mut ctx =
            Context { log: &mut |_| {}, has_kernel: &graft_kernels::supports, adapter: None, seed: 0 };
        let stages = pipeline::parse("canonicalize").expect("it is a pass");
        let model = export.model();
        let graph = pipeline::run(ALL, &stages, &model.graph, &mut ctx, &mut |_| {}).expect("it runs");
        let count = |op: &str| graph.nodes.iter().filter(|n| n.op == op).count();
        let found = [count("graft.Attention"), count("graft.GroupedAttention"), count("Softmax")];
        let expected = match export.kind {
            "llama" => [0, 2, 0],
            "albert" => [3, 0, 0],
            _ => [2, 0, 0],
        };
        assert_eq!(found, expected, "{}", export.name());
    }
}

#[test]
fn models_give_what_onnx_runtime_gives() {
    for export in Export::all() {
        let ours = export.logits(&export.model().graph);
        export.assert_close(&ours, &export.expected(&format!("onnxruntime_{}", export.exporter)), "logits");
        export.assert_close(&ours, &export.expected("pytorch"), "PyTorch");
    }
}

#[test]
fn adapted_models_give_what_peft_gives() {
    for export in Export::all() {
        let model = export.model();
        let ours = export.logits(&adapted(&model.graph, &adapter(&export.path("init"))));
        export.assert_close(&ours, &export.expected("adapted"), "the adapted model");
        assert!(difference(&export.expected("pytorch"), &ours) > 1e-2, "the adapter does something");
    }
}

#[test]
fn training_is_that_of_pytorch_and_merging_keeps_it() {
    for export in Export::all() {
        let (dir, model) = (tempfile::tempdir().expect("a folder"), export.model());
        let out = dir.path().join("out");
        run(&model, &export.config(&out), &mut Silent).unwrap_or_else(|e| panic!("{}: {e}", export.name()));
        let (ours, facts) = (losses(&out), export.facts());
        let list = facts["losses"].as_array().expect("a list").iter();
        let theirs: Vec<f64> = list.map(|l| l.as_f64().expect("a number")).collect();
        assert_eq!((ours.len(), theirs.len()), (20, 20));
        let far = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
        assert!(far <= TOLERANCE, "{}: a loss differs by {far:e}", export.name());
        // Losses that stay where they are would prove little: the second epoch has the rows of the first.
        let (first, second) = ours.split_at(10);
        assert!(second.iter().sum::<f64>() < 0.99 * first.iter().sum::<f64>(), "{ours:?}");

        let trained = adapter(&out);
        let [beside, inside] = [adapted, merged].map(|f| export.logits(&f(&model.graph, &trained)));
        export.assert_close(&inside, &beside, "the merged model");
        assert!(difference(&export.expected("adapted"), &beside) > 1e-2, "training does something");
    }
}

#[test]
fn adapter_files_may_have_longer_paths() {
    // TorchScript leaves out the scope of a module whose parts are called directly, as OPT's decoder is.
    let long = |path: &str| format!("outer.{path}");
    for export in Export::all() {
        let Init { config, tensors, .. } = adapter(&export.path("init"));
        let Targets::List(paths) = &config.targets else { panic!("PEFT writes a list") };
        let targets = Targets::List(paths.iter().map(|p| long(p)).collect());
        let tensors = tensors.iter().map(|(key, t)| (long(key), t.clone())).collect();
        let longer = understood(AdapterConfig { targets, ..config }, tensors);
        let ours = export.logits(&adapted(&export.model().graph, &longer));
        export.assert_close(&ours, &export.expected("adapted"), "the adapted model");
    }
}

/// A LoRA of rank 2 on `lm_head`, all of whose numbers are random.
fn on_the_head(d_in: usize, d_out: usize) -> Init {
    let drawn = |id: u64, dims: [usize; 2]| {
        let n = (dims[0] * dims[1]) as u64;
        let values = (0..n).map(|i| f64::from(random::uniform(1, 0, id, i)) - 0.5);
        Tensor::from_f64(graft_ir::DType::Float, &dims, values).expect("floats")
    };
    let tensors = [("lora_A", drawn(0, [2, d_in])), ("lora_B", drawn(1, [d_out, 2]))];
    let tensors = tensors.map(|(name, tensor)| (format!("lm_head.{name}.weight"), tensor));
    understood(
        AdapterConfig::new("LORA", 2, Targets::List(vec!["lm_head".into()])),
        tensors.into_iter().collect(),
    )
}

#[test]
fn merging_into_a_tied_head_leaves_the_embedding_as_it_is() {
    let export = Export { kind: "gpt2", exporter: "torchscript", loss: "causal-lm" };
    let graph = export.model().graph;
    let linears = target::targets(&graph).expect("they are found");
    let head = linears.iter().find(|l| l.path == "lm_head").expect("it is a linear");
    assert_eq!(head.steps, ["Transpose"], "the head reads the embedding's weight");
    let adapter = on_the_head(head.d_in, head.d_out);
    let inside = merged(&graph, &adapter);
    let [base, beside, inside_logits] =
        [&graph, &adapted(&graph, &adapter), &inside].map(|g| export.logits(g));
    export.assert_close(&inside_logits, &beside, "the merged model");
    assert!(difference(&base, &beside) > 1e-2, "the adapter does something");
    let weight = |graph: &Graph| target::weight(graph, head).cloned();
    assert_eq!(weight(&inside), weight(&graph), "`{}` has other readers", head.weight);
}
