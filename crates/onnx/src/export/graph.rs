//! Graphs: their nodes, weights and declarations.
use super::{Exporter, NOTES_IR, WEIGHTS_IR, declare::Declarations, keep, same};
use crate::{proto::*, scope, tensor, types};
use graft_ir::{Code, Error, Graph, Result, Value, ValueData};
use std::collections::HashSet;

/// Weights as messages.
#[derive(Default)]
struct Weights {
    dense: Vec<TensorProto>,
    sparse: Vec<SparseTensorProto>,
    /// Whether one has another type or shape than it had.
    reshaped: bool,
}

impl Exporter<'_> {
    /// The messages of a graph, of which `old` is the original and `notes` the notes.
    pub(super) fn graph(
        &mut self,
        graph: &Graph,
        old: Option<&GraphProto>,
        notes: Vec<StringStringEntryProto>,
    ) -> Result<GraphProto> {
        let empty = GraphProto::default();
        let old = old.unwrap_or(&empty);
        let (node, made) = self.nodes(graph, &old.node)?;
        let weights = self.weights(graph, old)?;
        let mut declarations = Declarations::new(graph, old);
        let input = declarations.inputs();
        // With every node as it was, types can only have been refined by inference.
        declarations.trust = made.is_empty() && !weights.reshaped && input == old.input;
        let proto = GraphProto {
            node,
            name: keep(&old.name, &graph.name),
            initializer: weights.dense,
            sparse_initializer: weights.sparse,
            doc_string: old.doc_string.clone(),
            input,
            output: declarations.outputs(),
            value_info: declarations.interior(&made),
            quantization_annotation: declarations.annotations(),
            metadata_props: notes,
        };
        if declarations.noted.get() {
            self.need_ir(NOTES_IR);
        }
        Ok(proto)
    }

    fn weights(&mut self, graph: &Graph, old: &GraphProto) -> Result<Weights> {
        let inputs: HashSet<Value> = graph.inputs.iter().copied().collect();
        let mut weights = Weights::default();
        for &p in &graph.params {
            let data = &graph[p];
            let index = data.origin.map(|i| i as usize);
            let old_dense = index.and_then(|i| old.initializer.get(i)).filter(|t| t.name() == data.name);
            let old_sparse = index
                .and_then(|i| old.sparse_initializer.get(i.checked_sub(old.initializer.len())?))
                .filter(|s| scope::sparse_name(s) == data.name && data.tensor.is_none());
            match (old_dense, old_sparse) {
                (Some(t), _) if self.is_same_weight(data, t) => weights.dense.push(t.clone()),
                (None, Some(s)) => weights.sparse.push(s.clone()),
                (t, _) => {
                    if !inputs.contains(&p) {
                        self.need_ir(WEIGHTS_IR);
                    }
                    let made = self.weight(data, t)?;
                    weights.reshaped |=
                        t.is_some_and(|t| (&t.dims, t.data_type) != (&made.dims, made.data_type));
                    weights.dense.push(made);
                }
            }
        }
        Ok(weights)
    }

    fn is_same_weight(&self, data: &ValueData, old: &TensorProto) -> bool {
        let same = match (tensor::read(old, self.external), &data.tensor) {
            (Ok(Some(old)), Some(new)) => same::tensor(&old, new),
            // What the graph cannot express can only be what it was.
            (Ok(None), None) => return true,
            _ => false,
        };
        same && types::read_meta(&old.metadata_props) == data.meta
    }

    fn weight(&mut self, data: &ValueData, old: Option<&TensorProto>) -> Result<TensorProto> {
        let missing = || {
            let message = format!("weight `{}` has no data", data.name);
            Error::new(Code::GRAPH, message)
                .help("ONNX text leaves large weights out; start from the ONNX file")
        };
        let mut proto = tensor::write(&data.name, data.tensor.as_ref().ok_or_else(missing)?)?;
        if let Some(old) = old {
            proto.doc_string.clone_from(&old.doc_string);
        }
        proto.metadata_props = types::write_meta(&data.meta, old.map_or(&[], |o| &o.metadata_props));
        if !data.meta.is_empty() {
            self.need_ir(NOTES_IR);
        }
        Ok(proto)
    }
}
