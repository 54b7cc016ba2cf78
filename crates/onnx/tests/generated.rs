//! The committed messages and the scanner's schema are what `proto/onnx.proto` says. `BLESS=1` rewrites them.
use prost::Message as _;
use protox::prost_reflect::prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use std::{fmt::Write as _, path::Path};

/// Large optional messages of `AttributeProto` are boxed: an attribute is most often one number, and there are many.
const BOXED: &[&str] =
    &["AttributeProto.t", "AttributeProto.g", "AttributeProto.sparse_tensor", "AttributeProto.tp"];

const HEADER: &str =
    "// @generated from proto/onnx.proto by tests/generated.rs; `BLESS=1 cargo test` rewrites it.\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn descriptors() -> FileDescriptorSet {
    let folder = root().join("proto");
    protox::compile([folder.join("onnx.proto")], [&folder]).expect("the official file compiles")
}

/// Compares `text` with the committed file, or rewrites that.
fn check(name: &str, text: &str) {
    let path = root().join("src/generated").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(committed == text, "{} is out of date: run with BLESS=1", path.display());
}

#[test]
fn messages() {
    let out = tempfile::tempdir().unwrap();
    let mut config = prost_build::Config::new();
    config.out_dir(out.path()).bytes(["."]).disable_comments(["."]);
    for field in BOXED {
        config.boxed(format!(".onnx.{field}"));
    }
    let set = FileDescriptorSet::decode(&descriptors().encode_to_vec()[..]).unwrap();
    config.compile_fds(set).unwrap();
    let code = std::fs::read_to_string(out.path().join("onnx.rs")).unwrap();
    check("onnx.rs", &format!("{HEADER}{code}"));
}

#[test]
fn schema() {
    let set = descriptors();
    let mut rows = Vec::new();
    for file in &set.file {
        for message in &file.message_type {
            collect(message, "", "", &mut rows);
        }
    }
    let names: Vec<&str> = rows.iter().map(|r| r.name.as_str()).collect();
    let root = names.iter().position(|n| *n == "ModelProto").expect("the file has a model");
    let mut text = format!("{HEADER}const MODEL: usize = {root};\nconst MESSAGES: &[Message] = &[\n");
    for row in &rows {
        writeln!(text, "    Message {{ name: \"{}\", fields: &[", row.name).unwrap();
        for field in &row.message.field {
            writeln!(text, "        {},", describe(&row.name, field, &names, &rows)).unwrap();
        }
        text.push_str("    ] },\n");
    }
    text.push_str("];\n");
    check("schema.rs", &text);
}

struct Row<'a> {
    name: String,
    path: String,
    message: &'a DescriptorProto,
}

/// Lists a message and those nested in it, with prost's paths (`TypeProto.Tensor` is `type_proto::Tensor`).
fn collect<'a>(message: &'a DescriptorProto, scope: &str, module: &str, rows: &mut Vec<Row<'a>>) {
    let name = format!("{scope}{}", message.name());
    rows.push(Row { name: name.clone(), path: format!("{module}{}", message.name()), message });
    let inner = format!("{module}{}::", snake(message.name()));
    for nested in &message.nested_type {
        collect(nested, &format!("{name}."), &inner, rows);
    }
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

fn describe(owner: &str, field: &FieldDescriptorProto, names: &[&str], rows: &[Row<'_>]) -> String {
    let repeated = field.label() == Label::Repeated;
    let kind = match field.r#type() {
        Type::Message => {
            let name = field.type_name().trim_start_matches(".onnx.");
            let index = names.iter().position(|n| *n == name).expect("a message of this file");
            let boxed = BOXED.contains(&format!("{owner}.{}", field.name()).as_str());
            let size =
                if repeated || boxed { format!("size_of::<{}>()", rows[index].path) } else { "0".into() };
            format!("Kind::Message {{ index: {index}, size: {size} }}")
        }
        Type::String => format!("Kind::String {{ repeated: {repeated} }}"),
        Type::Bytes => format!("Kind::Bytes {{ repeated: {repeated} }}"),
        Type::Float => format!("Kind::Fixed32 {{ repeated: {repeated} }}"),
        Type::Double => format!("Kind::Fixed64 {{ repeated: {repeated} }}"),
        Type::Int32 | Type::Enum => format!("Kind::Varint {{ repeated: {repeated}, width: 4 }}"),
        Type::Int64 | Type::Uint64 => format!("Kind::Varint {{ repeated: {repeated}, width: 8 }}"),
        other => panic!("a field of type {other:?} is new: teach limits.rs about it"),
    };
    format!("({}, {kind})", field.number())
}
