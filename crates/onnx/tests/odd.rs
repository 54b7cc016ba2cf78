//! What ONNX allows and few models use: every way to store elements, subgraphs, functions, sparse weights, values that
//! are no tensors. All of it is read, and comes out as it went in; and what passes change is written right.
use bytes::Bytes;
use graft_ir::{Attr, DType, Dim, Graph, Node, Tensor, Type};
use graft_onnx::{ExternalData, Model, SaveOptions, proto::*};
use prost::Message as _;

fn value(name: &str, ty: Option<TypeProto>) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.into()), r#type: ty, ..ValueInfoProto::default() }
}

fn tensor_type(elem: DType) -> TypeProto {
    let tensor = type_proto::Tensor { elem_type: Some(elem as i32), shape: None };
    TypeProto { value: Some(type_proto::Value::TensorType(tensor)), denotation: None }
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
    NodeProto {
        op_type: Some(op.into()),
        input: names(inputs),
        output: names(outputs),
        ..NodeProto::default()
    }
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) }
}

fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: Some("ai.onnx".into()), version: Some(17) }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// Reads a model, and makes sure that it comes out as it went in.
fn lossless(proto: &ModelProto) -> Model {
    let bytes = proto.encode_to_vec();
    let model = graft_onnx::decode(bytes.clone().into(), None).unwrap();
    assert!(model.warnings.is_empty(), "{:?}", model.warnings);
    assert!(graft_onnx::to_bytes(&model.graph, Some(&model)).unwrap() == bytes, "the export differs");
    model
}

fn written(graph: &Graph, origin: Option<&Model>) -> ModelProto {
    ModelProto::decode(&graft_onnx::to_bytes(graph, origin).unwrap()[..]).unwrap()
}

#[test]
fn every_element_type_in_its_typed_field() {
    let cases: Vec<(DType, TensorProto, Vec<u8>)> = vec![
        (
            DType::Float,
            TensorProto { float_data: vec![1.5, -0.0], ..Default::default() },
            vec![0, 0, 192, 63, 0, 0, 0, 128],
        ),
        (
            DType::Double,
            TensorProto { double_data: vec![1.0, 2.0], ..Default::default() },
            [1f64, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        (
            DType::Int64,
            TensorProto { int64_data: vec![-1, 7], ..Default::default() },
            [-1i64, 7].iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        (
            DType::Uint64,
            TensorProto { uint64_data: vec![u64::MAX, 7], ..Default::default() },
            [u64::MAX, 7].iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        (
            DType::Uint32,
            TensorProto { uint64_data: vec![9, 7], ..Default::default() },
            vec![9, 0, 0, 0, 7, 0, 0, 0],
        ),
        (
            DType::Int32,
            TensorProto { int32_data: vec![-2, 7], ..Default::default() },
            vec![254, 255, 255, 255, 7, 0, 0, 0],
        ),
        (DType::Int16, TensorProto { int32_data: vec![-2, 7], ..Default::default() }, vec![254, 255, 7, 0]),
        (
            DType::Float16,
            TensorProto { int32_data: vec![0x3c00, 0xc000], ..Default::default() },
            vec![0, 0x3c, 0, 0xc0],
        ),
        (
            DType::Bfloat16,
            TensorProto { int32_data: vec![0x3f80, 1], ..Default::default() },
            vec![0x80, 0x3f, 1, 0],
        ),
        (DType::Uint8, TensorProto { int32_data: vec![255, 7], ..Default::default() }, vec![255, 7]),
        (DType::Int8, TensorProto { int32_data: vec![-1, 7], ..Default::default() }, vec![255, 7]),
        (DType::Bool, TensorProto { int32_data: vec![1, 0], ..Default::default() }, vec![1, 0]),
        (DType::Float8e4m3fn, TensorProto { int32_data: vec![0x38, 1], ..Default::default() }, vec![0x38, 1]),
        (DType::Int4, TensorProto { int32_data: vec![0xf1], ..Default::default() }, vec![0xf1]),
        (DType::Uint2, TensorProto { int32_data: vec![0b0110], ..Default::default() }, vec![0b0110]),
        (
            DType::Complex64,
            TensorProto { float_data: vec![1.0, 0.0, 0.0, 0.0], ..Default::default() },
            vec![0, 0, 128, 63, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            DType::String,
            TensorProto { string_data: vec![Bytes::from_static(b"ab"), Bytes::new()], ..Default::default() },
            vec![2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 0],
        ),
    ];
    let mut graph = GraphProto::default();
    for (dtype, t, _) in &cases {
        let t = TensorProto {
            name: Some(dtype.to_string()),
            dims: vec![2],
            data_type: Some(*dtype as i32),
            ..t.clone()
        };
        graph.initializer.push(t);
    }
    let model = lossless(&model(graph));
    let params: Vec<_> = model.graph.params.iter().map(|&p| model.graph[p].tensor.clone().unwrap()).collect();
    for ((dtype, _, bytes), tensor) in cases.iter().zip(&params) {
        assert_eq!(tensor.data()[..], bytes[..], "{dtype}");
    }
    // Made anew they are raw, and read as the same tensors.
    let anew = written(&model.graph, None);
    let anew = graft_onnx::decode(anew.encode_to_vec().into(), None).unwrap();
    assert!(anew.graph.params.iter().map(|&p| anew.graph[p].tensor.clone().unwrap()).eq(params));
}

/// A model with much of what ONNX allows.
fn odd() -> ModelProto {
    let branch = |inner: &str| GraphProto {
        name: Some("branch".into()),
        node: vec![node("Add", &["h", inner], &["r"])],
        initializer: vec![TensorProto {
            name: Some("local".into()),
            data_type: Some(1),
            float_data: vec![f32::NAN],
            ..Default::default()
        }],
        output: vec![value("r", None)],
        metadata_props: vec![entry("k", "v")],
        ..Default::default()
    };
    let graph_attr = |name: &str, g: GraphProto| AttributeProto {
        name: Some(name.into()),
        r#type: Some(5),
        g: Some(Box::new(g)),
        ..Default::default()
    };
    let branches = NodeProto {
        attribute: vec![graph_attr("then_branch", branch("w")), graph_attr("else_branch", branch("local"))],
        doc_string: Some("chooses".into()),
        ..node("If", &["c"], &["y"])
    };
    let odd_attrs = vec![
        AttributeProto {
            name: Some("z".into()),
            r#type: Some(3),
            s: Some(Bytes::from_static(&[0xff])),
            ..Default::default()
        },
        AttributeProto {
            name: Some("a".into()),
            r#type: Some(13),
            tp: Some(Box::new(tensor_type(DType::Int64))),
            ..Default::default()
        },
        AttributeProto {
            name: Some("i".into()),
            r#type: Some(2),
            doc_string: Some("no value: 0".into()),
            ..Default::default()
        },
    ];
    let custom = NodeProto {
        domain: Some("com.example".into()),
        overload: Some("o".into()),
        attribute: odd_attrs,
        ..node("Odd", &["x", "", "s"], &["", "h"])
    };
    let sequence = type_proto::Sequence { elem_type: Some(Box::new(tensor_type(DType::Float))) };
    let sequence =
        TypeProto { value: Some(type_proto::Value::SequenceType(Box::new(sequence))), denotation: None };
    let sparse = SparseTensorProto {
        values: Some(TensorProto {
            name: Some("sp".into()),
            dims: vec![1],
            data_type: Some(1),
            float_data: vec![1.0],
            ..Default::default()
        }),
        indices: Some(TensorProto {
            dims: vec![1],
            data_type: Some(7),
            int64_data: vec![3],
            ..Default::default()
        }),
        dims: vec![9],
    };
    let weight = TensorProto {
        name: Some("w".into()),
        data_type: Some(1),
        raw_data: Some(Bytes::from_static(&[0, 0, 128, 63])),
        ..Default::default()
    };
    let float6 = TensorProto {
        name: Some("f6".into()),
        dims: vec![4],
        data_type: Some(27),
        raw_data: Some(Bytes::from_static(&[1, 2, 3])),
        ..Default::default()
    };
    let graph = GraphProto {
        node: vec![custom, branches, node("Call", &["sp", "f6"], &["u"])],
        initializer: vec![weight, float6],
        sparse_initializer: vec![sparse],
        input: vec![
            value("x", Some(tensor_type(DType::Float))),
            value("c", Some(tensor_type(DType::Bool))),
            value("s", Some(sequence)),
            value("w", Some(tensor_type(DType::Float))),
        ],
        output: vec![value("y", Some(tensor_type(DType::Float))), value("y", None), value("u", None)],
        value_info: vec![value("h", None), value("nowhere", Some(tensor_type(DType::Float)))],
        quantization_annotation: vec![TensorAnnotation {
            tensor_name: Some("h".into()),
            quant_parameter_tensor_names: vec![entry("SCALE_TENSOR", "w")],
        }],
        doc_string: Some("odd".into()),
        metadata_props: vec![entry("b", "1"), entry("a", "2"), entry("b", "3")],
        ..Default::default()
    };
    let function = |name: &str| FunctionProto {
        name: Some(name.into()),
        domain: Some("local".into()),
        input: vec!["p".into()],
        output: vec!["q".into()],
        attribute: vec!["alpha".into()],
        attribute_proto: vec![AttributeProto {
            name: Some("beta".into()),
            r#type: Some(1),
            f: Some(0.5),
            ..Default::default()
        }],
        node: vec![NodeProto {
            attribute: vec![AttributeProto {
                name: Some("alpha".into()),
                r#type: Some(1),
                ref_attr_name: Some("alpha".into()),
                ..Default::default()
            }],
            ..node("LeakyRelu", &["p"], &["q"])
        }],
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        value_info: vec![value("q", Some(tensor_type(DType::Float)))],
        ..Default::default()
    };
    ModelProto {
        functions: vec![function("Zed"), function("Abe")],
        metadata_props: vec![entry("graft", "x"), entry("a", "y")],
        producer_name: Some("hand".into()),
        training_info: vec![TrainingInfoProto {
            initialization_binding: vec![entry("w", "q")],
            ..Default::default()
        }],
        ..model(graph)
    }
}

#[test]
fn oddities_survive() {
    let model = lossless(&odd());
    let g = &model.graph;
    assert_eq!(g.opset(""), Some(17));
    assert_eq!(g.nodes[0].op, "com.example.Odd:o");
    assert!(
        matches!(g.nodes[0].attrs["z"], Attr::Opaque(_)) && matches!(g.nodes[0].attrs["a"], Attr::Opaque(_))
    );
    assert!(matches!(g.nodes[0].attrs["i"], Attr::Int(0)));
    assert_eq!((g.nodes[0].input(1), g.nodes[0].output(0)), (None, None));
    let captured: Vec<&str> = g.nodes[1].captures.iter().map(|&v| g.name(v)).collect();
    assert_eq!(captured, ["h", "w"]);
    assert_eq!(g.params.iter().map(|&p| g.name(p)).collect::<Vec<_>>(), ["w", "f6", "sp"]);
    assert!(g.inputs.contains(&g.params[0]), "a weight that is an input too is one value");
    let f = &g.functions["local.Zed"];
    assert_eq!((f.attrs.clone(), f.origin), (vec!["alpha".to_string()], Some(0)));
    assert!(
        matches!(&f.body.nodes[0].attrs["alpha"], Attr::Ref { name, kind } if name == "alpha" && kind == "float")
    );
}

#[test]
fn a_change_changes_only_its_own_message() {
    let original = odd();
    let model = lossless(&original);
    let mut g = model.graph.clone();
    g.nodes[1].meta.insert("graft.note".into(), "1".into());
    let out = written(&g, Some(&model));
    let mut expected = original.clone();
    // Nodes with notes need version 10 of the format.
    expected.ir_version = Some(10);
    expected.graph.as_mut().unwrap().node[1].metadata_props = vec![entry("graft.note", "1")];
    assert!(out.encode_to_vec() == expected.encode_to_vec());
}

#[test]
fn a_changed_subgraph_keeps_what_is_not_changed_in_it() {
    let model = lossless(&odd());
    let mut g = model.graph.clone();
    let Attr::Graph(branch) = g.nodes[1].attrs["then_branch"].clone() else { panic!("a subgraph") };
    let mut branch = Graph::clone(&branch);
    branch.nodes[0].name = "named".into();
    g.nodes[1].attrs.insert("then_branch".into(), Attr::Graph(branch.into()));
    let out = written(&g, Some(&model));
    let mut expected = odd();
    let attribute = &mut expected.graph.as_mut().unwrap().node[1].attribute[0];
    attribute.g.as_mut().unwrap().node[0].name = Some("named".into());
    assert!(out.encode_to_vec() == expected.encode_to_vec());
}

#[test]
fn what_is_gone_takes_its_declarations_along() {
    let model = lossless(&odd());
    let mut g = model.graph.clone();
    g.nodes.drain(..2);
    g.outputs.drain(..2);
    g.functions.remove("local.Zed");
    let out = written(&g, Some(&model));
    let graph = out.graph.unwrap();
    assert!(graph.quantization_annotation.is_empty());
    assert_eq!(graph.value_info.iter().map(|i| i.name()).collect::<Vec<_>>(), ["nowhere"]);
    assert_eq!(out.functions.iter().map(|f| f.name()).collect::<Vec<_>>(), ["Abe"]);
}

#[test]
fn new_functions_and_calls_bring_their_domain() {
    let text = "<ir_version: 4, opset_import: [\"\": 17, \"graft\": 1]> g (float[n] x) => (float[n] y) { y = graft.F (x) }\n\
        <domain: \"graft\", opset_import: [\"\": 17]> F (p) => (q) { q = Neg (p) }";
    let mut g = graft_ir::parse(text).unwrap();
    g.opsets.remove("graft");
    let out = written(&g, None);
    assert_eq!(out.ir_version, Some(8));
    let imports: Vec<_> = out.opset_import.iter().map(|o| (o.domain().to_string(), o.version())).collect();
    assert_eq!(imports, [(String::new(), 17), ("graft".to_string(), 1)]);
    assert_eq!((out.functions[0].domain(), out.functions[0].name()), ("graft", "F"));
    let again = graft_onnx::decode(out.encode_to_vec().into(), None).unwrap();
    assert!(again.graph.functions.contains_key("graft.F"));
}

/// A graph with one large and one small weight.
fn weighted() -> Graph {
    let mut g = Graph { name: "g".into(), ..Graph::default() };
    g.opsets.insert(String::new(), 17);
    let x = g.add_input("x", Type::new(DType::Float, [Dim::symbol("n"), Dim::from(600i64)]));
    let large: Vec<f32> = (0..600 * 600).map(|i| i as f32).collect();
    let w = g.add_param("w", Tensor::f32(&[600, 600], &large));
    let b = g.add_param("b", Tensor::f32(&[600], &large[..600]));
    let h = g.add_value("h", None);
    let y = g.add_value("y", None);
    g.nodes = vec![Node::new("MatMul", &[x, w], &[h]), Node::new("Add", &[h, b], &[y])];
    g.outputs.push(y);
    g
}

fn entries(folder: &std::path::Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn two_files_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let options = SaveOptions { external: ExternalData::Always, ..SaveOptions::default() };
    let g = weighted();
    graft_onnx::save(&g, None, &path, &options).unwrap();
    let first = [std::fs::read(&path).unwrap(), std::fs::read(folder.path().join("m.onnx.data")).unwrap()];
    assert_eq!(entries(folder.path()), ["m.onnx", "m.onnx.data"]);
    let proto = ModelProto::decode(&first[0][..]).unwrap();
    let at = |i: usize| proto.graph.as_ref().unwrap().initializer[i].external_data[1].value().to_string();
    assert_eq!((at(0).as_str(), at(1).parse::<usize>().unwrap() % 4096), ("0", 0));
    // Refused as a whole where only the weights are in the way.
    std::fs::remove_file(&path).unwrap();
    let refused = graft_onnx::save(&g, None, &path, &options).unwrap_err();
    assert_eq!(
        (refused.code, entries(folder.path())),
        (graft_ir::Code::EXISTS, vec!["m.onnx.data".to_string()])
    );
    // Deterministic, and over itself: the weights are read from the file that is replaced.
    let options = SaveOptions { force: true, ..options };
    graft_onnx::save(&g, None, &path, &options).unwrap();
    let mut model = graft_onnx::load(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first[0]);
    for p in model.graph.params.clone() {
        model.graph[p].origin = None;
    }
    model.save(&path, &options).unwrap();
    assert_eq!(
        [std::fs::read(&path).unwrap(), std::fs::read(folder.path().join("m.onnx.data")).unwrap()],
        first
    );
    // A weight without data stops the export before anything is written.
    let mut empty = weighted();
    let w = empty.params[0];
    empty[w].tensor = None;
    let other = folder.path().join("n.onnx");
    assert_eq!(graft_onnx::save(&empty, None, &other, &options).unwrap_err().code, graft_ir::Code::GRAPH);
    assert_eq!(entries(folder.path()), ["m.onnx", "m.onnx.data"]);
}

#[test]
fn text_in_and_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnxtxt");
    let text = "<ir_version: 8, opset_import: [\"\": 17]> g (float[n] x) => (float[n] y) { y = Neg (x) }";
    std::fs::write(&path, text).unwrap();
    let model = graft_onnx::load(&path).unwrap();
    assert!(model.origin.is_none());
    let options = SaveOptions { force: true, ..SaveOptions::default() };
    model.save(&path, &options).unwrap();
    assert_eq!(graft_onnx::load(&path).unwrap().graph.to_string(), model.graph.to_string());
    std::fs::write(&path, [0xff]).unwrap();
    assert_eq!(graft_onnx::load(&path).unwrap_err().code, graft_ir::Code::TEXT);
}
