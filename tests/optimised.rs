//! A classifier as ONNX Runtime's optimisers leave it: it runs as there, and takes adapters and trains like any other.
use graft_exec::{Options, Session};
use graft_ir::{Array, DType, Graph, Tensor};
use graft_onnx::Model;
use graft_passes::{ALL, Context, pipeline, target};
use graft_tests::{judge, sample};
use graft_train::{Config, Duration, Order, Silent, run};
use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

/// The models, and how many linears each has: one for queries, keys and values together or three.
const MODELS: &[(&str, usize)] = &[("bert_packed", 10), ("bert_heads", 14), ("bert_session", 14)];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models").join(name)
}

fn model(name: &str) -> Model {
    graft_onnx::load(&data(&format!("{name}.onnx"))).expect("the model loads")
}

/// Inputs, labels and logits; integers of the type that `graph` wants.
fn reference(graph: &Graph) -> BTreeMap<String, Tensor> {
    let mut tensors =
        graft_adapter::tensors::read(&data("bert_optimised.npz")).expect("the file can be read");
    for &input in &graph.inputs {
        let tensor = tensors.get_mut(graph.name(input)).expect("an input of that name");
        let array = Array::from_tensor(tensor).expect("integers");
        let dtype = graph.dtype(input).unwrap_or(DType::Int64);
        *tensor = Array { dtype, ..array }.to_tensor().expect("integers");
    }
    tensors
}

#[test]
fn outputs_are_those_of_onnx_runtime() {
    for (name, _) in MODELS {
        let graph = model(name).graph;
        let mut tensors = reference(&graph);
        let expected = tensors.remove("logits").and_then(|t| t.to_f64()).expect("logits");
        tensors.remove("labels");
        let feeds: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let mut session = Session::new(&graph, &[], &Options::default()).expect("a plan");
        let found = session.run(&feeds).expect("it runs")[0].1.to_f64().expect("floats");
        assert_eq!(session.notices(), [""; 0], "{name}: kernels serve the whole graph");
        let far = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(found.len() == expected.len() && far <= 1e-5, "{name}: {far:e}");
    }
}

#[test]
fn linears_keep_their_paths_when_the_graph_is_canonical() {
    for &(name, n) in MODELS {
        let graph = model(name).graph;
        let paths = |graph: &Graph| -> Vec<String> {
            let linears = target::targets(graph).expect("targets");
            linears.into_iter().filter(|l| l.is_eligible()).map(|l| l.path).collect()
        };
        let before = paths(&graph);
        assert_eq!((before.len(), paths(&apply("canonicalize", &graph))), (n, before), "{name}");
    }
}

#[test]
fn names_of_nodes_differ_when_ops_are_written_out() {
    for (name, _) in MODELS {
        for spec in ["canonicalize", "inject{rank=2}"] {
            let graph = apply(spec, &model(name).graph);
            let named = || graph.nodes.iter().map(|n| n.name.as_str()).filter(|name| !name.is_empty());
            let distinct: HashSet<&str> = named().collect();
            assert_eq!(named().count(), distinct.len(), "{name}, {spec}");
        }
    }
}

fn apply(spec: &str, graph: &Graph) -> Graph {
    let has_kernel =
        &|node: &graft_ir::Node, types: &[Option<graft_ir::Type>]| graft_kernels::supports(node, types);
    let mut ctx = Context { log: &mut |_| {}, has_kernel, adapter: None, seed: 0 };
    let stages = pipeline::parse(spec).expect("a pipeline");
    pipeline::run(ALL, &stages, graph, &mut ctx, &mut |_| {}).unwrap_or_else(|e| panic!("{spec}: {e}"))
}

#[test]
fn gradients_are_finite_differences() {
    let passes = "inject{rank=2}, fuse, loss{logits=logits}, grad, fuse";
    for (name, _) in MODELS {
        let graph = model(name).graph;
        let known: sample::Values = (reference(&graph).iter())
            .filter(|(name, _)| *name != "logits")
            .map(|(name, t)| (name.clone(), Array::from_tensor(t).expect("integers")))
            .collect();
        for spec in [format!("canonicalize, {passes}"), passes.into()] {
            let training = apply(&spec, &graph);
            let mut values = sample::values(&training, &known, &BTreeMap::new(), false).expect("values");
            let drawn = sample::values(&training, &known, &BTreeMap::new(), true).expect("values");
            // Away from zero, where adapters start, and small, so that differences tell slopes.
            for &p in training.params.iter().filter(|&&p| training[p].meta.contains_key("graft.trainable")) {
                let name = training.name(p);
                let small = drawn[name].floats().expect("floats").iter().map(|w| 0.1 * w).collect();
                values.insert(name.into(), Array::float(drawn[name].dtype, drawn[name].dims.clone(), small));
            }
            judge::gradients(&training, &values).unwrap_or_else(|e| panic!("{name}, {spec}: {e}"));
        }
    }
}

#[test]
fn they_train() {
    for (name, _) in MODELS {
        let (model, dir) = (model(name), tempfile::tempdir().expect("a folder"));
        let mut tensors = reference(&model.graph);
        tensors.remove("logits");
        let rows = dir.path().join("rows.npz");
        graft_adapter::tensors::write(&rows, &tensors).expect("it is written");
        let config = Config {
            label: "labels".into(),
            logits: Some("logits".into()),
            order: Order::Sequential,
            batch: 3,
            duration: Duration::Steps(30),
            lr: 2e-2,
            ..Config::new(rows, dir.path().join("out"), "cross-entropy")
        };
        run(&model, &config, &mut Silent).unwrap_or_else(|e| panic!("{name}: {e}"));
        let metrics =
            std::fs::read_to_string(dir.path().join("out").join(graft_train::METRICS_FILE)).expect("metrics");
        let loss =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["loss"].as_f64();
        let losses: Vec<f64> = metrics.lines().filter_map(loss).collect();
        assert!(losses.len() == 30 && losses[29] < 0.1 * losses[0], "{name}: {losses:?}");
    }
}
