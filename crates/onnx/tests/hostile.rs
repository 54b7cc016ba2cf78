//! Damaged and hostile files: an error or a model, never a panic, in bounded time.
use graft_ir::{Code, Tensor};
use graft_onnx::proto::*;
use proptest::prelude::*;
use prost::Message as _;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

fn parity() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/parity/base_dynamo.onnx");
    std::fs::read(path).unwrap()
}

/// The parity model without its weights: mutations then hit structure, not numbers.
fn skeleton() -> Vec<u8> {
    let mut model = ModelProto::decode(&parity()[..]).unwrap();
    for t in &mut model.graph.as_mut().unwrap().initializer {
        if t.raw_data.as_ref().is_some_and(|d| d.len() > 64) {
            t.dims = vec![1];
            t.data_type = Some(tensor_proto::DataType::Float as i32);
            t.raw_data = Some(bytes::Bytes::from_static(&[0; 4]));
        }
    }
    model.encode_to_vec()
}

/// What happens to one byte string; a model that still reads must also be written and read again.
fn survive(bytes: Vec<u8>) {
    let started = Instant::now();
    if let Ok(model) = graft_onnx::decode(bytes.into(), None) {
        let written = graft_onnx::to_bytes(&model.graph, Some(&model)).unwrap();
        let again = graft_onnx::decode(written.into(), None).unwrap();
        assert_eq!(again.graph.nodes.len(), model.graph.nodes.len());
    }
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
}

#[test]
fn truncated_anywhere() {
    let whole = skeleton();
    for end in (0..whole.len()).step_by(7) {
        survive(whole[..end].to_vec());
    }
    let whole = parity();
    for end in (0..whole.len()).step_by(whole.len() / 100) {
        assert!(graft_onnx::decode(whole[..end].to_vec().into(), None).is_err(), "{end}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated(edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..5, any::<u8>()), 1..6)) {
        let mut bytes = skeleton();
        for (at, kind, byte) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => bytes.insert(at, byte),
                3 => drop(bytes.remove(at)),
                _ => {
                    let piece = bytes[at..bytes.len().min(at + byte as usize)].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        survive(bytes);
    }

    #[test]
    fn arbitrary(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survive(bytes);
    }
}

fn refused(model: &ModelProto) -> graft_ir::Error {
    graft_onnx::decode(model.encode_to_vec().into(), None).unwrap_err()
}

/// A model that adds `x` and the weight `w`.
fn small() -> ModelProto {
    let mut graph = graft_ir::Graph::default();
    graph.opsets.insert(String::new(), 17);
    let x = graph.add_input("x", graft_ir::Type::new(graft_ir::DType::Float, [2usize]));
    let w = graph.add_param("w", Tensor::f32(&[2], &[1.0, 2.0]));
    let y = graph.add_value("y", Some(graft_ir::Type::new(graft_ir::DType::Float, [2usize])));
    graph.nodes.push(graft_ir::Node { name: "n".into(), ..graft_ir::Node::new("Add", &[x, w], &[y]) });
    graph.outputs.push(y);
    ModelProto::decode(&graft_onnx::to_bytes(&graph, None).unwrap()[..]).unwrap()
}

#[test]
fn what_breaks_a_rule_is_named() {
    type Break = fn(&mut ModelProto, &mut GraphProto);
    let cases: &[(Break, &str)] = &[
        (|m, _| m.ir_version = None, "no ir_version"),
        (|m, _| m.opset_import.clear(), "which opsets"),
        (|_, g| g.node[0].input[1] = "v".into(), "node `n` (Add): `v` is not defined"),
        (|_, g| g.node[0].output[0] = "x".into(), "`x` is defined twice"),
        (|_, g| g.node[0].op_type = None, "no op_type"),
        (|_, g| g.node[0].input[0] = "y".into(), "depends on its own result"),
        (|_, g| g.output[0].name = Some("z".into()), "`z` is not defined"),
        (|_, g| g.initializer[0].dims = vec![3], "initializer `w`: float[3] needs 12 bytes, found 8"),
        (|_, g| g.initializer[0].dims = vec![-1], "dimension of -1"),
        (|_, g| g.initializer[0].dims = vec![i64::MAX, 8], "more than memory"),
        (|_, g| g.initializer[0].data_type = None, "no element type"),
        (|_, g| g.initializer.push(g.initializer[0].clone()), "`w` is defined twice"),
        (|_, g| g.input.push(g.input[0].clone()), "`x` is defined twice"),
        (|_, g| g.node[0].attribute.push(AttributeProto::default()), "an attribute has no name"),
    ];
    for (breaks, message) in cases {
        let mut model = small();
        let mut graph = model.graph.take().unwrap();
        breaks(&mut model, &mut graph);
        model.graph = Some(graph);
        let error = refused(&model);
        assert_eq!(error.code, Code::MODEL, "{error}");
        assert!(error.to_string().contains(message), "{error}: expected {message}");
    }
    assert!(refused(&ModelProto { graph: None, ..small() }).to_string().contains("no graph"));
    assert!(graft_onnx::decode(bytes::Bytes::new(), None).is_err());
}

#[test]
fn a_weight_of_unknown_type_is_carried_along_whatever_is_noted_of_it() {
    let mut model = small();
    let graph = model.graph.as_mut().unwrap();
    graph.initializer[0].data_type = Some(200);
    let note = StringStringEntryProto { key: Some("k".into()), value: Some("v".into()) };
    graph.value_info = vec![ValueInfoProto {
        name: Some("w".into()),
        metadata_props: vec![note],
        ..ValueInfoProto::default()
    }];
    survive(model.encode_to_vec());
}

#[test]
fn nodes_out_of_order_are_sorted_and_it_is_said() {
    let mut model = small();
    let graph = model.graph.as_mut().unwrap();
    let first = NodeProto {
        op_type: Some("Neg".into()),
        input: vec!["y".into()],
        output: vec!["z".into()],
        ..NodeProto::default()
    };
    graph.node.insert(0, first);
    let read = graft_onnx::decode(model.encode_to_vec().into(), None).unwrap();
    assert_eq!(read.graph.nodes.iter().map(|n| n.op.as_str()).collect::<Vec<_>>(), ["Add", "Neg"]);
    assert!(read.warnings[0].contains("topological order"), "{:?}", read.warnings);
}

/// The small model with `w` in a file.
fn with_external(folder: &Path, entries: &[(&str, &str)]) -> Result<graft_onnx::Model, graft_ir::Error> {
    let mut model = small();
    let w = &mut model.graph.as_mut().unwrap().initializer[0];
    w.raw_data = None;
    w.data_location = Some(tensor_proto::DataLocation::External as i32);
    let entry =
        |(k, v): &(&str, &str)| StringStringEntryProto { key: Some((*k).into()), value: Some((*v).into()) };
    w.external_data = entries.iter().map(entry).collect();
    let path = folder.join("m.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    graft_onnx::load(&path)
}

fn folder_with_data() -> (tempfile::TempDir, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("model");
    std::fs::create_dir(&inner).unwrap();
    for path in [outer.path().join("secret"), inner.join("data")] {
        std::fs::write(path, [0, 0, 0, 0, 0, 0, 128, 63, 0, 0, 0, 64]).unwrap();
    }
    (outer, inner)
}

#[test]
fn external_data_are_read_from_where_they_are() {
    let (_outer, inner) = folder_with_data();
    for entries in [
        &[("location", "data"), ("offset", "4"), ("length", "8")][..],
        &[("location", "./data"), ("offset", "4")],
    ] {
        let model = with_external(&inner, entries).unwrap();
        let w = model.graph[model.graph.params[0]].tensor.clone().unwrap();
        assert_eq!(w, Tensor::f32(&[2], &[1.0, 2.0]));
    }
}

#[test]
fn external_data_that_lie_or_lead_outside_are_refused() {
    let (outer, inner) = folder_with_data();
    let absolute = outer.path().join("secret");
    let absolute = absolute.to_str().unwrap();
    let mut locations = vec!["", "../secret", absolute, "sub/../../secret", "missing", ".", "..\\secret"];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../secret", inner.join("link")).unwrap();
        std::os::unix::fs::symlink("..", inner.join("up")).unwrap();
        locations.extend(["link", "up/secret"]);
    }
    for location in locations {
        let error = with_external(&inner, &[("location", location)]).unwrap_err();
        assert_eq!(error.code, Code::EXTERNAL, "{location}: {error}");
        assert!(error.to_string().contains("initializer `w`"), "{error}");
    }
    for (offset, length) in
        [("8", "8"), ("0", "12"), ("0", "4"), ("-1", "8"), ("18446744073709551615", "8"), ("x", "8")]
    {
        let entries = [("location", "data"), ("offset", offset), ("length", length)];
        let error = with_external(&inner, &entries).unwrap_err();
        assert_eq!(error.code, Code::EXTERNAL, "{offset} {length}: {error}");
    }
    assert_eq!(with_external(&inner, &[]).unwrap_err().code, Code::EXTERNAL);
}
