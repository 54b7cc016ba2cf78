//! Declarations of values: the old ones as far as they hold, new ones where they are needed.
use crate::{proto::*, scope, types};
use graft_ir::{Graph, Meta, Value};
use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
};

/// What a graph declares, and what it declared when it was imported.
pub(super) struct Declarations<'a> {
    /// Whether old declarations hold whatever the graph says now of their types.
    pub(super) trust: bool,
    /// Whether notes were written anew.
    pub(super) noted: Cell<bool>,
    graph: &'a Graph,
    old: &'a GraphProto,
    params: HashSet<Value>,
    /// Values in use now, by name.
    now: HashMap<&'a str, Value>,
    /// Names of values that were in use.
    then: HashSet<&'a str>,
    /// The notes that import read, where there are some.
    notes: HashMap<&'a str, Meta>,
    /// Names of dimensions that inputs have.
    symbols: HashSet<String>,
}

impl<'a> Declarations<'a> {
    pub(super) fn new(graph: &'a Graph, old: &'a GraphProto) -> Declarations<'a> {
        let results = old.node.iter().flat_map(|n| &n.output).map(String::as_str);
        let weights = old.initializer.iter().map(TensorProto::name);
        let sparse = old.sparse_initializer.iter().map(scope::sparse_name);
        let inputs = old.input.iter().map(ValueInfoProto::name);
        let dims = graph.inputs.iter().filter_map(|&v| graph.shape(v)).flatten();
        let mut notes = HashMap::new();
        for info in old.input.iter().chain(&old.value_info).chain(&old.output) {
            if !info.metadata_props.is_empty() {
                notes.entry(info.name()).or_insert_with(|| types::read_meta(&info.metadata_props));
            }
        }
        Declarations {
            trust: false,
            noted: Cell::new(false),
            graph,
            old,
            params: graph.params.iter().copied().collect(),
            now: graph.used_values().into_iter().map(|v| (graph.name(v), v)).collect(),
            then: results.chain(weights).chain(sparse).chain(inputs).collect(),
            notes,
            symbols: dims.flat_map(|d| d.symbols()).map(Into::into).collect(),
        }
    }

    /// The graph's inputs, weights that are inputs too among them.
    pub(super) fn inputs(&self) -> Vec<ValueInfoProto> {
        let old = by_name(&self.old.input);
        let declare = |&v: &Value| {
            let ty = &self.graph[v].ty;
            let is_same = |old: &ValueInfoProto| {
                let declared = types::declared(old);
                // A weight that is an input too tells its type where the declaration does not.
                let untyped = declared.is_none() && self.params.contains(&v);
                (untyped || declared == *ty) && self.has_same_notes(v)
            };
            let old = old.get(self.graph.name(v)).copied();
            old.filter(|o| is_same(o)).cloned().unwrap_or_else(|| self.declare(v, old))
        };
        self.graph.inputs.iter().map(declare).collect()
    }

    /// The graph's outputs.
    pub(super) fn outputs(&self) -> Vec<ValueInfoProto> {
        let old = by_name(&self.old.output);
        let declare = |(i, &v): (usize, &Value)| {
            let name = self.graph.name(v);
            // One value may be returned twice, under different declarations.
            let at_place = self.old.output.get(i).filter(|o| o.name() == name);
            let old = at_place.or_else(|| old.get(name).copied());
            old.filter(|o| self.holds(o, v)).cloned().unwrap_or_else(|| self.declare(v, old))
        };
        self.graph.outputs.iter().enumerate().map(declare).collect()
    }

    /// Declarations of other values: the old ones, but for values that are gone, and one for each result of `made`
    /// nodes whose type is known.
    pub(super) fn interior(&self, made: &[Value]) -> Vec<ValueInfoProto> {
        let kept = self.old.value_info.iter().filter_map(|info| match self.now.get(info.name()) {
            Some(&v) if self.holds(info, v) => Some(info.clone()),
            Some(&v) => Some(self.declare(v, Some(info))),
            None => (!self.then.contains(info.name())).then(|| info.clone()),
        });
        let outputs: HashSet<Value> = self.graph.outputs.iter().copied().collect();
        let old = by_name(&self.old.value_info);
        let is_new = |v: &&Value| {
            let typed = self.graph[**v].ty.is_some();
            typed && !outputs.contains(v) && !old.contains_key(self.graph.name(**v))
        };
        kept.chain(made.iter().filter(is_new).map(|&v| self.declare(v, None))).collect()
    }

    /// Quantisation parameters, but for tensors that are gone.
    pub(super) fn annotations(&self) -> Vec<TensorAnnotation> {
        let gone = |name: &str| self.then.contains(name) && !self.now.contains_key(name);
        let old = self.old.quantization_annotation.iter();
        old.filter(|a| !gone(a.tensor_name())).cloned().collect()
    }

    /// Whether an old declaration can stay as it is.
    fn holds(&self, old: &ValueInfoProto, v: Value) -> bool {
        let ty = self.graph[v].ty.as_ref();
        self.has_same_notes(v)
            && (self.trust || types::still_holds(types::declared(old).as_ref(), ty, &self.symbols))
    }

    /// A weight's notes are written with its data, not here.
    fn has_same_notes(&self, v: Value) -> bool {
        let (meta, old) = (&self.graph[v].meta, self.notes.get(self.graph.name(v)));
        self.params.contains(&v) || old.map_or(meta.is_empty(), |old| old == meta)
    }

    fn declare(&self, v: Value, old: Option<&ValueInfoProto>) -> ValueInfoProto {
        let data = &self.graph[v];
        let old_notes = old.map_or(&[][..], |o| &o.metadata_props);
        let metadata_props = if self.params.contains(&v) {
            old_notes.to_vec()
        } else {
            self.noted.set(self.noted.get() || !data.meta.is_empty());
            types::write_meta(&data.meta, old_notes)
        };
        // What the graph cannot express, such as a sequence, stays.
        let ty = data.ty.as_ref().map(types::write).or_else(|| old.and_then(|o| o.r#type.clone()));
        let doc_string = old.and_then(|o| o.doc_string.clone());
        ValueInfoProto { name: Some(data.name.clone()), r#type: ty, doc_string, metadata_props }
    }
}

fn by_name(infos: &[ValueInfoProto]) -> HashMap<&str, &ValueInfoProto> {
    infos.iter().map(|info| (info.name(), info)).collect()
}
