//! Functions.
use super::{Exporter, FUNCTIONS_IR, NOTES_IR, imports, node::split, same};
use crate::{import, proto::*, types};
use graft_ir::{Code, Error, Function, Graph, Result, Value};
use std::collections::BTreeSet;

/// Appends `function`, unless it is there, behind the functions that it calls: readers that go through a model once, such as
/// the official reference evaluator, know what a call means. `open` are those on the way, should they call themselves.
fn callees_first<'g>(
    graph: &'g Graph,
    function: &'g Function,
    done: &mut Vec<&'g Function>,
    open: &mut BTreeSet<&'g str>,
) {
    if done.iter().any(|f| f.name == function.name) || !open.insert(&function.name) {
        return;
    }
    for node in &function.body.nodes {
        if let Some(callee) = graph.functions.get(&node.op) {
            callees_first(graph, callee, done, open);
        }
    }
    done.push(function);
}

impl Exporter<'_> {
    /// The messages of a graph's functions: in the original's order, then the new ones by name, each behind those that it
    /// calls.
    pub(super) fn functions(&mut self, graph: &Graph, old: &[FunctionProto]) -> Result<Vec<FunctionProto>> {
        let index = |f: &Function| f.origin.map_or(usize::MAX, |i| i as usize);
        let mut functions: Vec<&Function> = Vec::with_capacity(graph.functions.len());
        graph.functions.values().for_each(|f| callees_first(graph, f, &mut functions, &mut BTreeSet::new()));
        functions.sort_by_key(|f| index(f));
        let mut protos = Vec::with_capacity(functions.len());
        for function in functions {
            let old = old
                .get(index(function))
                .filter(|old| import::qualified(old.domain(), old.name(), old.overload()) == function.name);
            protos.push(match old {
                Some(old) if same::function(function, old, self.external) => old.clone(),
                old => {
                    let place = |e: Error| e.at(format!("function `{}`", function.name));
                    self.function(graph, function, old).map_err(place)?
                }
            });
        }
        Ok(protos)
    }

    fn function(
        &mut self,
        graph: &Graph,
        f: &Function,
        old: Option<&FunctionProto>,
    ) -> Result<FunctionProto> {
        if let Some(&weight) = f.body.params.first() {
            let message = format!("the body holds the weight `{}`", f.body.name(weight));
            return Err(
                Error::new(Code::GRAPH, message).help("a function's weights are inputs or Constant nodes")
            );
        }
        let blank = FunctionProto::default();
        let (domain, name, overload) = match old {
            Some(old) => (old.domain.clone(), old.name.clone(), old.overload.clone()),
            None => {
                let (domain, name, overload) = split(&f.name);
                let overload = (!overload.is_empty()).then(|| overload.to_string());
                (Some(domain.to_string()), Some(name.to_string()), overload)
            }
        };
        let old = old.unwrap_or(&blank);
        // The domains that the body uses are the function's own imports.
        let outer = std::mem::take(&mut self.domains);
        let (node, _) = self.nodes(&f.body, &old.node)?;
        let opsets = self.body_opsets(graph, f);
        self.domains = outer;
        self.domains.extend(domain.clone().filter(|d| !d.is_empty()));
        self.need_ir(FUNCTIONS_IR);
        if !f.body.meta.is_empty() {
            self.need_ir(NOTES_IR);
        }
        let names = |vs: &[Value]| vs.iter().map(|&v| f.body.name(v).to_string()).collect();
        Ok(FunctionProto {
            name,
            input: names(&f.body.inputs),
            output: names(&f.body.outputs),
            attribute: f.attrs.clone(),
            attribute_proto: self.defaults(f, &old.attribute_proto)?,
            node,
            doc_string: old.doc_string.clone(),
            opset_import: imports(&opsets, &old.opset_import),
            domain,
            overload,
            // Inputs are of any type that the nodes take, and results follow from them.
            value_info: Vec::new(),
            metadata_props: types::write_meta(&f.body.meta, &old.metadata_props),
        })
    }

    /// A body's opsets: its own imports, else the model's, for each domain that it uses.
    fn body_opsets(&self, graph: &Graph, f: &Function) -> std::collections::BTreeMap<String, i64> {
        let used: BTreeSet<&str> = f.body.nodes.iter().map(|n| split(&n.op).0).collect();
        let mut opsets = f.body.opsets.clone();
        for domain in used.into_iter().chain(self.domains.iter().map(String::as_str)) {
            let version = graph.opset(domain).unwrap_or(1);
            opsets.entry(domain.into()).or_insert(version);
        }
        opsets
    }

    fn defaults(&mut self, f: &Function, old: &[AttributeProto]) -> Result<Vec<AttributeProto>> {
        let mut protos = Vec::with_capacity(f.defaults.len());
        for (name, attr) in &f.defaults {
            let old = old.iter().find(|o| o.name() == name);
            protos.push(self.attr(name, attr, old)?);
        }
        Ok(protos)
    }
}
