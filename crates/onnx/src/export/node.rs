//! Nodes and their attributes.
use super::{Exporter, NOTES_IR, keep, same};
use crate::{attr, import, proto::*, types};
use graft_ir::{Attr, Graph, Node, Result, Value};
use std::collections::HashSet;

impl Exporter<'_> {
    /// The messages of a graph's nodes, and the results of those that were made anew.
    pub(super) fn nodes(&mut self, graph: &Graph, old: &[NodeProto]) -> Result<(Vec<NodeProto>, Vec<Value>)> {
        let (mut nodes, mut made) = (Vec::with_capacity(graph.nodes.len()), Vec::new());
        for node in &graph.nodes {
            let old = node.origin.and_then(|i| old.get(i as usize));
            match old.filter(|old| same::node(graph, node, old, self.external)) {
                Some(same) => nodes.push(same.clone()),
                None => {
                    made.extend(node.defines());
                    nodes.push(self.node(graph, node, old)?);
                }
            }
        }
        Ok((nodes, made))
    }

    fn node(&mut self, graph: &Graph, node: &Node, old: Option<&NodeProto>) -> Result<NodeProto> {
        let spelled =
            |old: &&NodeProto| import::qualified(old.domain(), old.op_type(), old.overload()) == node.op;
        let names = |values: &[Option<Value>]| -> Vec<String> {
            values.iter().map(|v| v.map_or(String::new(), |v| graph.name(v).into())).collect()
        };
        let output = names(&node.outputs);
        let blank = NodeProto::default();
        // An index can be that of another graph's node, if a body was put in place of a call.
        let old = old.filter(spelled).filter(|old| old.output.first() == output.first());
        let (domain, name, overload) = match old {
            Some(old) => (old.domain.clone(), old.op_type.clone(), old.overload.clone()),
            None => self.spell(&node.op),
        };
        let old = old.unwrap_or(&blank);
        if !node.meta.is_empty() {
            self.need_ir(NOTES_IR);
        }
        Ok(NodeProto {
            input: names(&node.inputs),
            output,
            name: keep(&old.name, &node.name),
            op_type: name,
            domain,
            overload,
            attribute: self.attrs(node, &old.attribute)?,
            doc_string: old.doc_string.clone(),
            metadata_props: types::write_meta(&node.meta, &old.metadata_props),
            device_configurations: old.device_configurations.clone(),
        })
    }

    /// Domain, name and overload of an op, each where it is not empty.
    fn spell(&mut self, op: &str) -> (Option<String>, Option<String>, Option<String>) {
        let (domain, name, overload) = split(op);
        if !domain.is_empty() {
            self.domains.insert(domain.into());
        }
        let given = |s: &str| (!s.is_empty()).then(|| s.to_string());
        (given(domain), given(name), given(overload))
    }

    /// Attributes: those that are still there in their old order, then the new ones by name.
    fn attrs(&mut self, node: &Node, old: &[AttributeProto]) -> Result<Vec<AttributeProto>> {
        let mut seen = HashSet::new();
        let mut protos = Vec::with_capacity(node.attrs.len());
        for old in old {
            if let Some(attr) = node.attrs.get(old.name()).filter(|_| seen.insert(old.name())) {
                let is_same = attr::read(old, self.external).is_ok_and(|read| same::attr(&read, attr));
                protos.push(if is_same { old.clone() } else { self.attr(old.name(), attr, Some(old))? });
            }
        }
        for (name, attr) in node.attrs.iter().filter(|(name, _)| !seen.contains(name.as_str())) {
            protos.push(self.attr(name, attr, None)?);
        }
        Ok(protos)
    }

    pub(super) fn attr(
        &mut self,
        name: &str,
        attr: &Attr,
        old: Option<&AttributeProto>,
    ) -> Result<AttributeProto> {
        let mut proto = attr::write(name, attr)?;
        if let Attr::Graph(graph) = attr {
            let old = old.and_then(|o| o.g.as_deref());
            let notes = types::write_meta(&graph.meta, old.map_or(&[], |o| &o.metadata_props));
            proto.g = Some(Box::new(self.graph(graph, old, notes)?));
        }
        if let Some(old) = old {
            proto.doc_string.clone_from(&old.doc_string);
        }
        Ok(proto)
    }
}

/// Domain, name and overload within a qualified name.
pub(super) fn split(op: &str) -> (&str, &str, &str) {
    let (domain, name) = op.rsplit_once('.').unwrap_or(("", op));
    let (name, overload) = name.split_once(':').unwrap_or((name, ""));
    (domain, name, overload)
}
