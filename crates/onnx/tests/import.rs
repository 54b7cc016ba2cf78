//! What real models look like once read.
use graft_ir::{DType, Dim};
use std::path::{Path, PathBuf};

fn parity(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/parity").join(name)
}

#[test]
fn torchscript_model() {
    let model = graft_onnx::load(&parity("base.onnx")).unwrap();
    let g = &model.graph;
    assert!(model.warnings.is_empty(), "{:?}", model.warnings);
    assert_eq!(g.name, "main_graph");
    assert_eq!(g.opset(""), Some(17));
    let inputs: Vec<&str> = g.inputs.iter().map(|&v| g.name(v)).collect();
    assert_eq!(inputs, ["input_ids", "attention_mask"]);
    assert_eq!(g.dtype(g.inputs[0]), Some(DType::Int64));
    assert_eq!(g.shape(g.inputs[0]).unwrap(), [Dim::symbol("batch"), Dim::symbol("seq")]);
    assert!(g.params.iter().all(|&p| g[p].tensor.is_some()));
}
