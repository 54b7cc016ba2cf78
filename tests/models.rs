//! Models as exporters write them, and the training graph made of them, judged by evaluation in f64.
use graft_ir::{Array, Data, Graph, Precision, Tensor, eval::eval};
use graft_passes::{ALL, Context, inject, optimizer, pipeline, target};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/parity").join(path)
}

fn tensors(path: &str) -> BTreeMap<String, Tensor> {
    graft_adapter::tensors::read(&data(path)).expect("the file can be read")
}

/// The modules of the parity model that are linear, in the order of the graph.
fn modules() -> Vec<String> {
    let layer = |i: usize| {
        let parts = [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        ];
        parts.map(|part| format!("bert.encoder.layer.{i}.{part}"))
    };
    let last = ["bert.pooler.dense".to_string(), "classifier".to_string()];
    [layer(0), layer(1)].concat().into_iter().chain(last).collect()
}

#[test]
fn a_canonical_linear_keeps_its_path() {
    // Named by its weight alone, as linears outside of modules are: the node's name tells nothing but an op, which
    // canonicalisation replaces.
    let graph = graft_ir::parse(
        "<opset_import: [\"\" : 17]>
        g (float[n, 4] x) => (float[n, 2] y) <float[8, 4] rnn_w, float[8] rnn_b, float[8, 2] out_w> {
          [\"/Gemm\"] h = Gemm <transB = 1> (x, rnn_w, rnn_b)
          a = Tanh (h)
          [\"/out/MatMul\"] y = MatMul (a, out_w)
        }",
    )
    .unwrap();
    let paths =
        |graph: &Graph| target::targets(graph).unwrap().into_iter().map(|l| l.path).collect::<Vec<_>>();
    let stages = pipeline::parse("canonicalize").unwrap();
    let mut ctx = Context { log: &mut |_| {}, has_kernel: &|_, _| true, adapter: None, seed: 0 };
    let canonical = pipeline::run(ALL, &stages, &graph, &mut ctx, &mut |_| {}).unwrap();
    assert_eq!(paths(&graph), ["rnn_w", "out"]);
    assert_eq!(paths(&canonical), paths(&graph));
}

#[test]
fn both_exporters_models_have_their_module_paths() {
    for name in ["base.onnx", "base_dynamo.onnx"] {
        let model = graft_onnx::load(&data(name)).expect("the model loads");
        let linears = target::targets(&model.graph).unwrap();
        let paths: Vec<&str> = linears.iter().map(|l| l.path.as_str()).collect();
        assert_eq!(paths, modules(), "{name}");
        assert!(linears.iter().all(target::Linear::is_eligible), "{name}");
        let outputs: Vec<&str> = linears.iter().filter(|l| l.is_output).map(|l| l.path.as_str()).collect();
        assert_eq!(outputs, ["classifier"], "{name}");
        assert!(linears.iter().take(12).all(|l| l.layout == "(in, out)"), "{name}");
        assert!(linears[12..].iter().all(|l| l.layout == "(out, in)"), "{name}");
        assert_eq!((linears[4].d_in, linears[4].d_out), (64, 160), "{name}");
    }
}

/// The training graph of the parity runs.
fn training_graph(model: &str, method: &str) -> Graph {
    let graph = graft_onnx::load(&data(model)).expect("the model loads").graph;
    let spec = format!(
        "canonicalize, inject{{rank=4,alpha=8,rslora={},targets=\"query,key,value,dense\"}}, fuse, \
         loss{{logits=logits}}, grad, optimizer{{clip=1,keep_grads=true}}, fuse",
        method == "rslora"
    );
    let adapter: BTreeMap<String, Tensor> = tensors(&format!("{method}/init/adapter_model.safetensors"))
        .into_iter()
        .map(|(key, t)| (key.trim_start_matches("base_model.model.").to_string(), t))
        .collect();
    let mut ctx = Context { log: &mut |_| {}, has_kernel: &|_, _| true, adapter: Some(&adapter), seed: 0 };
    pipeline::run(ALL, &pipeline::parse(&spec).unwrap(), &graph, &mut ctx, &mut |_| {})
        .unwrap_or_else(|e| panic!("{model} {method}: {e}"))
}

/// Rows `8·step..8·step + 8` of a tensor of integers.
fn batch(tensor: &Tensor, step: usize) -> Array {
    let width: usize = tensor.dims()[1..].iter().product();
    let all = tensor.to_i64().expect("integers");
    let mut dims = tensor.dims().to_vec();
    dims[0] = 8;
    Array::int(tensor.dtype(), dims, all[step * 8 * width..(step + 1) * 8 * width].to_vec())
}

/// Runs one step; state moves from outputs to inputs.
fn step(graph: &Graph, state: &mut BTreeMap<String, Array>, i: usize) -> BTreeMap<String, Array> {
    let train = tensors("train.npz");
    let feed = |name: &str| match name {
        "lr" => Array::float(graft_ir::DType::Float, vec![], vec![1e-2]),
        "step" => Array::int(graft_ir::DType::Int64, vec![], vec![i as i64 + 1]),
        _ => state.get(name).cloned().unwrap_or_else(|| batch(&train[name], i)),
    };
    let feeds: Vec<Option<Array>> = graph.inputs.iter().map(|&v| Some(feed(graph.name(v)))).collect();
    let results = eval(graph, &feeds, Precision::Exact).unwrap();
    let named: BTreeMap<String, Array> =
        graph.outputs.iter().map(|&v| graph.name(v).to_string()).zip(results).collect();
    for (input, output) in optimizer::state(graph).unwrap() {
        state.insert(input, named[&output].clone());
    }
    named
}

fn floats(array: &Array) -> &[f64] {
    match &array.data {
        Data::Float(v) => v,
        Data::Int(_) => panic!("expected floating-point elements"),
    }
}

/// ‖a − b‖ / ‖b‖.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn the_training_graph_agrees_with_pytorch() {
    let losses: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(data("losses.json")).unwrap()).unwrap();
    for (model, method) in [("base.onnx", "lora"), ("base.onnx", "rslora"), ("base_dynamo.onnx", "lora")] {
        let graph = training_graph(model, method);
        assert_eq!(graph.nodes.iter().filter(|n| n.op == "graft.Lora").count(), 13, "{model} {method}");
        assert_eq!(graph.nodes.iter().filter(|n| n.op == "graft.LoraGrad").count(), 13, "{model} {method}");
        let mut state: BTreeMap<String, Array> = optimizer::initial_state(&graph)
            .unwrap()
            .into_iter()
            .map(|(name, t)| (name, Array::from_tensor(&t).unwrap()))
            .collect();
        let first = step(&graph, &mut state, 0);
        let second = step(&graph, &mut state, 1);
        for (i, results) in [&first, &second].into_iter().enumerate() {
            let expected = losses["methods"][method]["losses"][i].as_f64().unwrap();
            let loss = floats(&results["loss"])[0];
            assert!(
                (loss / expected - 1.0).abs() < 1e-7,
                "{model} {method} step {i}: {loss} is not {expected}"
            );
        }
        let get = |name: &str| Ok(second.get(&format!("{name}.grad")).map(|a| a.to_tensor().unwrap()));
        let ours = inject::file_tensors(&graph, &get).unwrap();
        let theirs = tensors(&format!("{method}/grad_step1.safetensors"));
        assert_eq!(ours.len(), theirs.len());
        for (key, gradient) in &theirs {
            let key = key.trim_start_matches("base_model.model.");
            let (a, b) = (ours[key].to_f64().unwrap(), gradient.to_f64().unwrap());
            assert!(apart(&a, &b) < 1e-6, "{model} {method} `{key}`: {:e}", apart(&a, &b));
        }
    }
}
