//! Attributes of nodes.
use crate::{
    external::External,
    import,
    proto::{
        AttributeProto,
        attribute_proto::AttributeType::{self, *},
    },
    tensor,
};
use bytes::Bytes;
use graft_ir::{Attr, Code, Error, Result};
use prost::Message as _;
use std::sync::Arc;

/// The graph's form of an attribute; what it cannot express is carried as the encoded message.
pub(crate) fn read(proto: &AttributeProto, external: &External) -> Result<Attr> {
    let kind = kind(proto)?;
    if let Some(name) = proto.ref_attr_name.as_ref().filter(|n| !n.is_empty()) {
        return Ok(match text_name(kind) {
            Some(kind) => Attr::Ref { name: name.clone(), kind: kind.into() },
            None => opaque(proto),
        });
    }
    let missing = |what: &str| Error::new(Code::MODEL, format!("the attribute has no {what}"));
    Ok(match kind {
        Float => Attr::Float(proto.f.unwrap_or(0.0)),
        Int => Attr::Int(proto.i.unwrap_or(0)),
        String => text(proto.s.as_deref().unwrap_or(&[])).map_or_else(|| opaque(proto), Attr::Str),
        Tensor => {
            let tensor = tensor::read(proto.t.as_ref().ok_or_else(|| missing("tensor"))?, external)?;
            tensor.map_or_else(|| opaque(proto), Attr::Tensor)
        }
        Graph => {
            let graph = proto.g.as_ref().ok_or_else(|| missing("graph"))?;
            Attr::Graph(Arc::new(import::subgraph(graph, external)?))
        }
        Floats => Attr::Floats(proto.floats.clone()),
        Ints => Attr::Ints(proto.ints.clone()),
        Strings => {
            let strings: Option<Vec<_>> = proto.strings.iter().map(|s| text(s)).collect();
            strings.map_or_else(|| opaque(proto), Attr::Strs)
        }
        _ => opaque(proto),
    })
}

fn text(bytes: &[u8]) -> Option<std::string::String> {
    std::str::from_utf8(bytes).ok().map(Into::into)
}

fn opaque(proto: &AttributeProto) -> Attr {
    Attr::Opaque(proto.encode_to_vec().into())
}

/// The declared type, or in models older than that field the one whose data are there.
fn kind(proto: &AttributeProto) -> Result<AttributeType> {
    let present = [
        (Float, proto.f.is_some()),
        (Int, proto.i.is_some()),
        (String, proto.s.is_some()),
        (Tensor, proto.t.is_some()),
        (Graph, proto.g.is_some()),
        (SparseTensor, proto.sparse_tensor.is_some()),
        (TypeProto, proto.tp.is_some()),
        (Floats, !proto.floats.is_empty()),
        (Ints, !proto.ints.is_empty()),
        (Strings, !proto.strings.is_empty()),
        (Tensors, !proto.tensors.is_empty()),
        (Graphs, !proto.graphs.is_empty()),
        (SparseTensors, !proto.sparse_tensors.is_empty()),
        (TypeProtos, !proto.type_protos.is_empty()),
    ];
    let mut present = present.iter().filter(|(_, is)| *is).map(|(kind, _)| *kind);
    let (first, second) = (present.next(), present.next());
    if second.is_some() {
        return Err(Error::new(Code::MODEL, "the attribute has data of more than one type"));
    }
    match (proto.r#type(), first) {
        (Undefined, found) => Ok(found.unwrap_or(Undefined)),
        (declared, Some(found)) if declared != found => {
            let message = format!("the attribute is declared {declared:?} but its data are {found:?}");
            Err(Error::new(Code::MODEL, message))
        }
        (declared, _) => Ok(declared),
    }
}

const TEXT_NAMES: &[(AttributeType, &str)] = &[
    (Float, "float"),
    (Int, "int"),
    (String, "string"),
    (Tensor, "tensor"),
    (Graph, "graph"),
    (Floats, "floats"),
    (Ints, "ints"),
    (Strings, "strings"),
];

fn text_name(kind: AttributeType) -> Option<&'static str> {
    TEXT_NAMES.iter().find(|row| row.0 == kind).map(|row| row.1)
}

/// The message for an attribute; that of a subgraph is empty, for the exporter to fill.
pub(crate) fn write(name: &str, attr: &Attr) -> Result<AttributeProto> {
    let mut proto = AttributeProto { name: Some(name.into()), ..AttributeProto::default() };
    let kind = match attr {
        Attr::Float(v) => {
            proto.f = Some(*v);
            Float
        }
        Attr::Int(v) => {
            proto.i = Some(*v);
            Int
        }
        Attr::Str(v) => {
            proto.s = Some(Bytes::copy_from_slice(v.as_bytes()));
            String
        }
        Attr::Tensor(v) => {
            proto.t = Some(Box::new(tensor::write("", v)?));
            Tensor
        }
        Attr::Floats(v) => {
            proto.floats.clone_from(v);
            Floats
        }
        Attr::Ints(v) => {
            proto.ints.clone_from(v);
            Ints
        }
        Attr::Strs(v) => {
            proto.strings = v.iter().map(|s| Bytes::copy_from_slice(s.as_bytes())).collect();
            Strings
        }
        Attr::Ref { name, kind } => {
            proto.ref_attr_name = Some(name.clone());
            let row = TEXT_NAMES.iter().find(|row| row.1 == kind);
            let unknown = || Error::new(Code::ATTRIBUTE, format!("`{kind}` is no type of attributes"));
            row.ok_or_else(unknown)?.0
        }
        Attr::Opaque(message) => {
            let broken = |e| Error::new(Code::ATTRIBUTE, format!("attribute `{name}` is damaged: {e}"));
            let whole = AttributeProto::decode(message.clone()).map_err(broken)?;
            return Ok(AttributeProto { name: proto.name, ..whole });
        }
        Attr::Elided { dtype, dims } => {
            let message = format!("attribute `{name}`: the data of {dtype}{dims:?} was left out of the text");
            return Err(Error::new(Code::TEXT, message));
        }
        Attr::Graph(_) => Graph,
    };
    proto.r#type = Some(kind as i32);
    Ok(proto)
}
