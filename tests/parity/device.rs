//! The same runs on a GPU, or on the emulated one: on a machine that has neither driver nor device, each test runs again in
//! a process that finds the emulated driver, if `GRAFT_NVRTC` names the folder of a compiler.
use crate::{LOSS_TOLERANCE, config, losses, model, pytorch_losses};
use graft_exec::{Device, Format, Options, Session};
use graft_ir::{Graph, Tensor, Type, random};
use graft_kernels::cuda::TILES;
use graft_onnx::Model;
use graft_passes::inject::METHODS;
use graft_train::{Config, Duration, Observer, Order, run};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Relative, on each loss, where activations have 16 bits.
const SHORT_TOLERANCE: f64 = 2e-2;

/// Whether this process finds a device. If it does not, `test` was run in one that finds the emulated one, or skipped.
fn finds_device(test: &str) -> bool {
    let Err(error) = Device::Cuda.describe() else { return true };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-cuda");
    graft_fake_cuda::stand_in(&folder, &format!("device::{test}"), &error.message);
    false
}

/// Keeps what a run says.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn note(&mut self, line: &str) {
        self.0.push(line.into());
    }
}

/// Trains on the device that this process finds: it is named, and the host does nothing for it. The losses.
fn trains(model: &Model, config: &Config) -> Vec<f64> {
    let mut notes = Notes::default();
    run(model, config, &mut notes).unwrap_or_else(|e| panic!("{e}"));
    let Notes(notes) = notes;
    let slow: Vec<&String> = notes.iter().filter(|note| note.contains("slowly")).collect();
    assert!(slow.is_empty(), "{slow:?}");
    let device = Device::Cuda.describe().expect("a device");
    assert!(device.contains("EMULATED") == std::env::var_os("GRAFT_FAKE_CUDA").is_some(), "{device}");
    assert!(notes.iter().any(|note| note.contains(&device)), "{device} is not named: {notes:?}");
    losses(&config.out)
}

fn farthest(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs() / b.abs()).fold(0.0, f64::max)
}

/// A method's 50 losses, beside PyTorch's.
#[expect(clippy::print_stderr, reason = "figures of a run")]
fn has_the_losses_of_pytorch(method: &str, precision: Format, tolerance: f64) {
    let dir = tempfile::tempdir().expect("a folder");
    let config = Config { device: Device::Cuda, precision, ..config(method, &dir.path().join("out")) };
    let far = farthest(&trains(&model("base.onnx"), &config), &pytorch_losses(method));
    eprintln!("{method} in {precision}: 50 losses differ from PyTorch's by {far:.1e} at most");
    assert!(far <= tolerance, "{method} in {precision}: a loss differs by {far:e}");
}

/// A test for each method, in single precision and in bfloat16.
macro_rules! methods {
    ($($single:ident $short:ident $method:literal;)*) => {$(
        #[test]
        fn $single() {
            if finds_device(stringify!($single)) {
                has_the_losses_of_pytorch($method, Format::F32, LOSS_TOLERANCE);
            }
        }
        #[test]
        fn $short() {
            if finds_device(stringify!($short)) {
                has_the_losses_of_pytorch($method, Format::Bf16, SHORT_TOLERANCE);
            }
        }
    )*};
}

methods! {
    bat bat_in_bf16 "bat";
    bone bone_in_bf16 "bone";
    dora dora_in_bf16 "dora";
    hydra hydra_in_bf16 "hydra";
    lora lora_in_bf16 "lora";
    salora salora_in_bf16 "salora";
    tri tri_in_bf16 "tri";
}

/// Two steps of the demo's language model, with a row of 32 tokens each, beside the host's.
#[test]
fn the_demo_model_trains_as_on_the_host() {
    if !finds_device("the_demo_model_trains_as_on_the_host") {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let whale = graft_onnx::load(&folder.join("../crates/cli/demo/whale.onnx")).expect("the model loads");
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("rows.jsonl");
    let row = |from: u32| (from..from + 32).map(|i| (i * i % 97).to_string()).collect::<Vec<_>>().join(",");
    let rows = [5, 40].map(|from| format!("{{\"input_ids\":[{}]}}\n", row(from)));
    std::fs::write(&data, rows.concat()).expect("the rows are written");
    let config = |device| Config {
        order: Order::Sequential,
        batch: 1,
        duration: Duration::Steps(2),
        device,
        ..Config::new(data.clone(), dir.path().join(device.to_string()), "causal-lm")
    };
    let on_host = config(Device::Cpu);
    run(&whale, &on_host, &mut Notes::default()).expect("it trains");
    let far = farthest(&trains(&whale, &config(Device::Cuda)), &losses(&on_host.out));
    assert!(far <= LOSS_TOLERANCE, "a loss differs by {far:e}");
}

/// q, k and v of one x and their gradients, on these names of x.
fn three_layers([q, k, v]: [&str; 3]) -> Graph {
    let lora = METHODS.iter().find(|m| m.name == "lora").expect("a method");
    let xs: BTreeSet<&str> = [q, k, v].into();
    let inputs: Vec<String> = xs.iter().map(|x| format!("float[70, 48] {x}")).collect();
    let weights = |n: &str, out| format!("float[48, {out}] w{n}, float[48, 4] a{n}, float[4, {out}] b{n}");
    // The gradients become ready one after the other, as they do behind an attention.
    let text = format!(
        "<ir_version: 10, opset_import: [\"\" : 18, \"graft\" : 1]>
         g ({inputs}, {wq}, {wk}, {wv}, float s) => (yq, yk, yv, dxq, daq, dbq, dxk, dak, dbk, dxv, dav, dbv) {{
           yq, hq = graft.Lora ({q}, wq, aq, bq, s)
           tq = Tanh (yq)
           yk, hk = graft.Lora ({k}, wk, ak, bk, s)
           tk = Tanh (yk)
           yv, hv = graft.Lora ({v}, wv, av, bv, s)
           dxq, daq, dbq = graft.LoraGrad (tq, {q}, wq, aq, bq, s, hq)
           both = Add (tk, yv)
           dk = Sin (both)
           dxk, dak, dbk = graft.LoraGrad (dk, {k}, wk, ak, bk, s, hk)
           dv = Cos (yv)
           dxv, dav, dbv = graft.LoraGrad (dv, {v}, wv, av, bv, s, hv)
         }}
         <domain: \"graft\", opset_import: [\"\" : 18]>{functions}",
        inputs = inputs.join(", "),
        wq = weights("q", 40),
        wk = weights("k", 24),
        wv = weights("v", 24),
        functions = lora.functions,
    );
    graft_ir::parse(&text).unwrap_or_else(|e| panic!("{e}"))
}

/// What a graph of the three layers makes, on random values by the inputs' names, and how often each op ran.
fn run_layers(graph: &Graph, format: Format) -> (Vec<Tensor>, BTreeMap<String, u64>) {
    let value = |name: &str, dims: &[usize]| {
        let tensor = if name.starts_with('x') { 0 } else { name.bytes().map(u64::from).sum() };
        let stream = random::Stream::new(3, 1, tensor);
        let n: usize = dims.iter().product();
        let elements: Vec<f32> = (0..n as u64).map(|i| stream.uniform(i) - 0.5).collect();
        Tensor::f32(dims, &elements)
    };
    let feeds: Vec<(&str, Tensor)> = graph
        .inputs
        .iter()
        .map(|&v| {
            let dims = graph[v].ty.as_ref().and_then(Type::sizes).expect("fixed sizes");
            (graph.name(v), value(graph.name(v), &dims))
        })
        .collect();
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let options = Options { device: Device::Cuda, format, profile: true, ..Options::default() };
    let mut session = Session::new(graph, &[], &options).expect("a session");
    let results = session.run(&feeds).expect("it runs").into_iter().map(|(_, tensor)| tensor).collect();
    let ops = session.profile().expect("it was measured").by_op();
    (results, ops.into_iter().map(|entry| (entry.op, entry.calls)).collect())
}

/// Layers that read the same x are one step each way, which makes the same bits as three steps on copies of x do.
#[test]
fn layers_that_read_the_same_are_one_step() {
    if !finds_device("layers_that_read_the_same_are_one_step") {
        return;
    }
    for format in [Format::F32, Format::Bf16] {
        let (together, ops) = run_layers(&three_layers(["x"; 3]), format);
        // A step's label names what it does together, and what became its epilogues.
        let steps = |ops: &BTreeMap<String, u64>, op: &str| -> u64 {
            let has = |(label, _): &(&String, &u64)| label.split(['+', '×']).any(|part| part == op);
            ops.iter().filter(has).map(|(_, calls)| calls).sum()
        };
        for op in ["graft.Lora", "graft.LoraGrad"] {
            assert_eq!(steps(&ops, op), 1, "{ops:?}");
        }
        let (apart, ops) = run_layers(&three_layers(["x", "x2", "x3"]), format);
        for op in ["graft.Lora", "graft.LoraGrad"] {
            assert_eq!(steps(&ops, op), 3, "{ops:?}");
        }
        assert!(together == apart, "other bits in {format}");
    }
}

/// What a tuning finds is a line for each kind of product, and changes no result.
#[test]
fn tiles_of_products_are_measured() {
    if !finds_device("tiles_of_products_are_measured") {
        return;
    }
    let graph = graft_ir::parse(
        "<ir_version: 10, opset_import: [\"\" : 18]>\ng (float[60, 64] x, float[64, 32] w) => (float[60, 32] z) { y = \
         MatMul (x, w) z = Tanh (y) }",
    );
    let tensor = |dims: &[usize; 2]| {
        let elements: Vec<f32> = (0..dims[0] * dims[1]).map(|i| (i as f32 * 0.37).sin()).collect();
        Tensor::f32(dims, &elements)
    };
    let (x, w) = (tensor(&[60, 64]), tensor(&[64, 32]));
    let options = Options { device: Device::Cuda, ..Options::default() };
    let mut session = Session::new(&graph.expect("a graph"), &[], &options).expect("a session");
    let before = session.run(&[("x", &x), ("w", &w)]).expect("it runs");
    let table = session.tune(&[("x", &x), ("w", &w)]).expect("it is tuned").table().to_string();
    let words: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(words[1..5], ["float", "64", "32", "64"], "{table}");
    assert!(words[5].parse::<usize>().is_ok_and(|i| i < TILES.len()), "{table}");
    assert!(matches!(words[6..], [] | ["cublaslt"]), "{table}");
    assert_eq!(session.run(&[("x", &x), ("w", &w)]).expect("it runs"), before);
}

/// Outputs of a graph that is run once on the device, and the ops of its steps.
fn run_once(graph: &str, feeds: &[(&str, &Tensor)]) -> (Vec<Tensor>, Vec<String>) {
    let lora = "Lora (x, w, a, b, scale) => (y, h) { base = MatMul (x, w) h = MatMul (x, a) up = MatMul (h, b) delta = Mul \
                (up, scale) y = Add (base, delta) }";
    let text = format!(
        "<ir_version: 10, opset_import: [\"\" : 18, \"graft\" : 1]>\ng {graph}\n<domain: \"graft\", opset_import: [\"\" : \
         18]>\n{lora}"
    );
    let options = Options { device: Device::Cuda, profile: true, ..Options::default() };
    let graph = graft_ir::parse(&text).expect("a graph");
    let mut session = Session::new(&graph, &[], &options).expect("a session");
    let outputs = session.run(feeds).expect("it runs").into_iter().map(|(_, tensor)| tensor).collect();
    let ops = session.profile().expect("it was asked for").by_op();
    (outputs, ops.into_iter().map(|entry| entry.op).collect())
}

/// What stands right behind an adapted linear is done with it, and comes to the same bits as in a session of its own.
#[test]
fn epilogues_change_no_bit() {
    if !finds_device("epilogues_change_no_bit") {
        return;
    }
    let tensor = |dims: &[usize]| {
        let elements: Vec<f32> = (0..dims.iter().product()).map(|i| (i as f32 * 0.37).sin()).collect();
        Tensor::f32(dims, &elements)
    };
    let sizes: [&[usize]; 7] = [&[60, 64], &[64, 33], &[64, 8], &[8, 33], &[], &[33], &[60, 33]];
    let tensors = sizes.map(tensor);
    let feeds: Vec<(&str, &Tensor)> =
        ["x", "w", "a", "b", "scale", "bias", "r"].into_iter().zip(&tensors).collect();
    let lora = "float[60, 64] x, float[64, 33] w, float[64, 8] a, float[8, 33] b, float scale";
    let (call, tail) =
        ("y, h = graft.Lora (x, w, a, b, scale)", "s = Add (y, bias) t = Tanh (s) z = Add (t, r)");
    let (more, results) = ("float[33] bias, float[60, 33] r", "float[60, 33] s, float[60, 33] z");
    let together = run_once(&format!("({lora}, {more}) => ({results}) {{ {call} {tail} }}"), &feeds);
    assert_eq!(together.1, ["graft.Lora+Add+Tanh+Add"]);
    let (y, ops) = run_once(&format!("({lora}) => (float[60, 33] y) {{ {call} }}"), &feeds[..5]);
    assert_eq!(ops, ["graft.Lora"]);
    let feeds = [&[("y", &y[0])], &feeds[5..]].concat();
    let (apart, ops) = run_once(&format!("(float[60, 33] y, {more}) => ({results}) {{ {tail} }}"), &feeds);
    assert_eq!((ops, &apart), (vec!["Add+Tanh+Add".to_string()], &together.0));
}
