//! An independent decoder reads in what we write just what was in the original.
use graft_ir::{Attr, Graph, Node, Tensor, Type, Value};
use onnx_protobuf::{
    attribute_proto::AttributeType, tensor_shape_proto::dimension::Value as SizeCase,
    type_proto::Value as TypeCase,
};
use protobuf::Message as _;
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

const MODELS: &[&str] = &["parity/base.onnx", "parity/base_dynamo.onnx", "models/tiny_bert_ts14.onnx"];

#[test]
fn reads_the_same_in_an_untouched_export() {
    for name in MODELS {
        let original = std::fs::read(data(name)).unwrap();
        let model = graft_onnx::load(&data(name)).unwrap();
        let written = graft_onnx::to_bytes(&model.graph, Some(&model)).unwrap();
        let read = |bytes: &[u8]| onnx_protobuf::ModelProto::parse_from_bytes(bytes).unwrap();
        assert!(read(&original) == read(&written), "{name}");
    }
}

/// Messages that were all made anew: the other decoder reads from them, field by field, what the graph holds.
#[test]
fn reads_what_the_graph_holds() {
    for name in MODELS {
        let model = graft_onnx::load(&data(name)).unwrap();
        let bytes = graft_onnx::to_bytes(&model.graph, None).unwrap();
        let theirs = onnx_protobuf::ModelProto::parse_from_bytes(&bytes).unwrap();
        same_model(&model.graph, &theirs);
    }
}

fn same_model(graph: &Graph, theirs: &onnx_protobuf::ModelProto) {
    assert_eq!(theirs.ir_version, graph.ir_version);
    let opsets: Vec<_> = theirs.opset_import.iter().map(|o| (o.domain.clone(), o.version)).collect();
    assert!(opsets.into_iter().eq(graph.opsets.clone()));
    assert_eq!(theirs.graph.name, graph.name);
    let names = |vs: &[Value]| vs.iter().map(|&v| graph.name(v).to_string()).collect::<Vec<_>>();
    assert_eq!(
        theirs.graph.initializer.iter().map(|t| t.name.clone()).collect::<Vec<_>>(),
        names(&graph.params)
    );
    for (t, &p) in theirs.graph.initializer.iter().zip(&graph.params) {
        same_tensor(graph[p].tensor.as_ref().unwrap(), t);
    }
    for (infos, values) in [(&theirs.graph.input, &graph.inputs), (&theirs.graph.output, &graph.outputs)] {
        assert_eq!(infos.iter().map(|i| i.name.clone()).collect::<Vec<_>>(), names(values));
        for (info, &v) in infos.iter().zip(values) {
            same_type(graph[v].ty.as_ref().unwrap(), info);
        }
    }
    assert_eq!(theirs.graph.node.len(), graph.nodes.len());
    for (node, theirs) in graph.nodes.iter().zip(&theirs.graph.node) {
        same_node(graph, node, theirs);
    }
}

fn same_node(graph: &Graph, node: &Node, theirs: &onnx_protobuf::NodeProto) {
    let names = |vs: &[Option<Value>]| -> Vec<String> {
        vs.iter().map(|v| v.map_or("", |v| graph.name(v)).to_string()).collect()
    };
    assert_eq!((&theirs.name, &theirs.input), (&node.name, &names(&node.inputs)));
    assert_eq!(theirs.output, names(&node.outputs));
    assert_eq!((theirs.domain.as_str(), theirs.op_type.as_str()), node.domain_and_name());
    let notes = theirs.metadata_props.iter().map(|e| (e.key.clone(), e.value.clone()));
    assert!(notes.eq(node.meta.clone()));
    assert_eq!(theirs.attribute.len(), node.attrs.len());
    for (theirs, (name, attr)) in theirs.attribute.iter().zip(&node.attrs) {
        assert_eq!(theirs.name, *name);
        match (attr, theirs.type_.unwrap()) {
            (Attr::Float(v), AttributeType::FLOAT) => assert_eq!(theirs.f.to_bits(), v.to_bits()),
            (Attr::Int(v), AttributeType::INT) => assert_eq!(theirs.i, *v),
            (Attr::Str(v), AttributeType::STRING) => assert_eq!(theirs.s, v.as_bytes()),
            (Attr::Ints(v), AttributeType::INTS) => assert_eq!(theirs.ints, *v),
            (Attr::Floats(v), AttributeType::FLOATS) => assert_eq!(theirs.floats, *v),
            (Attr::Tensor(v), AttributeType::TENSOR) => same_tensor(v, &theirs.t),
            (attr, kind) => panic!("{name}: {attr:?} was read as {kind:?}"),
        }
    }
}

fn same_tensor(tensor: &Tensor, theirs: &onnx_protobuf::TensorProto) {
    assert_eq!(theirs.data_type, tensor.dtype() as i32);
    assert!(theirs.dims.iter().map(|&d| d as usize).eq(tensor.dims().iter().copied()));
    assert_eq!(theirs.raw_data, tensor.data()[..]);
}

fn same_type(ty: &Type, theirs: &onnx_protobuf::ValueInfoProto) {
    let Some(TypeCase::TensorType(tensor)) = &theirs.type_.value else { panic!("{theirs:?} is no tensor") };
    assert_eq!(tensor.elem_type, ty.dtype as i32);
    let dims = tensor.shape.dim.iter().map(|d| match &d.value {
        Some(SizeCase::DimValue(n)) => n.to_string(),
        Some(SizeCase::DimParam(text)) => text.clone(),
        None => "?".into(),
        Some(other) => panic!("{other:?}"),
    });
    assert!(dims.eq(ty.shape.as_ref().unwrap().iter().map(ToString::to_string)));
}
