//! From ONNX's messages to a graph. Every refusal names what it is about.
use crate::{Model, Origin, attr, external::External, proto::*, scope::Scope, types};
use graft_ir::{Attrs, Code, Error, Function, Graph, Result};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

/// The newest version of the format that the committed schema describes.
const NEWEST_IR: i64 = 14;

/// The graph of a model with its external data.
pub(crate) fn model(proto: ModelProto, external: External, mut warnings: Vec<String>) -> Result<Model> {
    let origin = Origin { proto, external };
    let proto = &origin.proto;
    let ir_version = proto.ir_version.filter(|v| *v > 0);
    let ir_version = ir_version.ok_or_else(|| Error::new(Code::MODEL, "the model has no ir_version"))?;
    if ir_version > NEWEST_IR {
        warnings
            .push(format!("the model has ir_version {ir_version}, newer than the {NEWEST_IR} known here"));
    }
    let body = proto.graph.as_ref().ok_or_else(|| Error::new(Code::MODEL, "the model has no graph"))?;
    let mut opsets = opsets(&proto.opset_import)?;
    if opsets.is_empty() {
        if ir_version >= 3 {
            return Err(Error::new(Code::MODEL, "the model does not say which opsets it uses"));
        }
        opsets.insert(String::new(), 1);
    }
    let mut scope = Scope::new(&origin.external, false);
    scope.graph_body(body)?;
    let (graph, sorted) = scope.finish()?;
    if !sorted {
        warnings.push("the nodes were not in topological order and have been sorted".into());
    }
    let functions = functions(&proto.functions, &origin.external)?;
    let meta = types::read_meta(&proto.metadata_props);
    let name = body.name().into();
    let graph = Graph { name, ir_version, opsets, meta, functions, ..graph };
    Ok(Model { graph, origin: Some(Arc::new(origin)), warnings })
}

/// A graph held by an attribute: what it takes from the graphs around it are its captures.
pub(crate) fn subgraph(proto: &GraphProto, external: &External) -> Result<Graph> {
    let mut scope = Scope::new(external, true);
    scope.graph_body(proto)?;
    let (graph, _) = scope.finish()?;
    Ok(Graph { name: proto.name().into(), meta: types::read_meta(&proto.metadata_props), ..graph })
}

/// Version by domain; ONNX's own may be spelled `ai.onnx`.
fn opsets(imports: &[OperatorSetIdProto]) -> Result<BTreeMap<String, i64>> {
    let mut opsets = BTreeMap::new();
    for import in imports {
        let domain = domain(import.domain());
        let version = import.version();
        if opsets.insert(domain.to_string(), version).is_some_and(|old| old != version) {
            let message = format!("the opset of domain `{domain}` is imported in two versions");
            return Err(Error::new(Code::MODEL, message));
        }
    }
    Ok(opsets)
}

/// A domain as the graph spells it.
pub(crate) fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// The domain-qualified name of an op or function; an overload follows a colon.
pub(crate) fn qualified(domain_name: &str, name: &str, overload: &str) -> String {
    let mut out = domain(domain_name).to_string();
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(name);
    if !overload.is_empty() {
        out.push(':');
        out.push_str(overload);
    }
    out
}

fn functions(protos: &[FunctionProto], external: &External) -> Result<BTreeMap<String, Arc<Function>>> {
    let mut functions = BTreeMap::new();
    for (i, proto) in protos.iter().enumerate() {
        let name = qualified(proto.domain(), proto.name(), proto.overload());
        let place = |e: Error| e.at(format!("function `{name}`"));
        if proto.name().is_empty() {
            return Err(Error::new(Code::MODEL, format!("function {i} has no name")));
        }
        let mut function = function(&name, proto, external).map_err(place)?;
        function.origin = u32::try_from(i).ok();
        if functions.insert(name.clone(), Arc::new(function)).is_some() {
            return Err(Error::new(Code::MODEL, format!("function `{name}` is defined twice")));
        }
    }
    Ok(functions)
}

/// One function, without its place in the model.
pub(crate) fn function(name: &str, proto: &FunctionProto, external: &External) -> Result<Function> {
    let mut scope = Scope::new(external, false);
    scope.function_body(proto)?;
    let (graph, _) = scope.finish()?;
    let opsets = opsets(&proto.opset_import)?;
    let meta = types::read_meta(&proto.metadata_props);
    let defaults = attrs(&proto.attribute_proto, external)?;
    let mut seen: HashSet<&str> = defaults.keys().map(String::as_str).collect();
    if let Some(twice) = proto.attribute.iter().find(|a| !seen.insert(a)) {
        return Err(Error::new(Code::MODEL, format!("attribute `{twice}` is declared twice")));
    }
    let body = Graph { name: proto.name().into(), opsets, meta, ..graph };
    Ok(Function { name: name.into(), attrs: proto.attribute.clone(), defaults, body, origin: None })
}

/// Attributes by name, which must be there and differ.
pub(crate) fn attrs(protos: &[AttributeProto], external: &External) -> Result<Attrs> {
    let mut attrs = Attrs::new();
    for proto in protos {
        if proto.name().is_empty() {
            return Err(Error::new(Code::MODEL, "an attribute has no name"));
        }
        let attr = attr::read(proto, external).map_err(|e| e.at(format!("attribute `{}`", proto.name())))?;
        if attrs.insert(proto.name().into(), attr).is_some() {
            return Err(Error::new(Code::MODEL, format!("attribute `{}` is given twice", proto.name())));
        }
    }
    Ok(attrs)
}
