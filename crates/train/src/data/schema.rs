//! What a graph wants to be fed with, told by its inputs and notes.
use graft_ir::{Code, Error, Graph, Result, Type, Value};
use graft_passes::{inject::trainable, io, optimizer};
use std::collections::HashSet;

/// What a training graph wants to be fed with.
#[derive(Clone, PartialEq, Debug)]
pub struct Schema {
    /// The model's inputs.
    pub inputs: Vec<Input>,
    /// The label, where the loss reads one.
    pub label: Option<Label>,
}

/// One input of the model.
#[derive(Clone, PartialEq, Debug)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its type; the outermost size is the batch.
    pub ty: Type,
    /// Where it holds indices into a table of embeddings: how many there are.
    pub vocabulary: Option<usize>,
}

/// The label that the loss reads.
#[derive(Clone, PartialEq, Debug)]
pub struct Label {
    /// Its name in the data, and as an input of the training graph.
    pub name: String,
    /// Its type; the outermost size is the batch.
    pub ty: Type,
    /// Where it is the number of a class: how many there are.
    pub classes: Option<usize>,
}

impl Schema {
    /// What `graph`, a model up to its loss or a training graph, is to be fed with besides the state and what counts
    /// steps. `loss` is the kind of its loss.
    ///
    /// # Errors
    /// [`Code::DATA`] and [`Code::LABEL`] where the type of an input is not known; [`Code::GRAPH`] for damaged notes.
    pub fn of(graph: &Graph, loss: &str) -> Result<Schema> {
        let label = io::role(graph, "label")?;
        let others = others(graph)?;
        let mut inputs = Vec::new();
        for &v in graph.inputs.iter().filter(|v| Some(**v) != label && !others.contains(v)) {
            let name = graph.name(v).to_string();
            let unknown =
                || Error::new(Code::DATA, format!("the type of the model's input `{name}` is not known"));
            let ty = graph[v].ty.clone().ok_or_else(unknown)?;
            inputs.push(Input { vocabulary: vocabulary(graph, v), name, ty });
        }
        let label = label.map(|v| {
            let ty = graph[v].ty.clone();
            let unknown = || Error::new(Code::LABEL, "the type of the label is not known");
            let classes = if loss == "cross-entropy" { classes(graph)? } else { None };
            Ok(Label { name: graph.name(v).to_string(), ty: ty.ok_or_else(unknown)?, classes })
        });
        Ok(Schema { inputs, label: label.transpose()? })
    }
}

/// The inputs that are no data: weights, state, and what passes added.
fn others(graph: &Graph) -> Result<HashSet<Value>> {
    let mut others: HashSet<Value> = graph.params.iter().copied().chain(trainable(graph)).collect();
    let state = optimizer::state(graph)?.into_iter().map(|(input, _)| input);
    let added = io::roles(graph)?.into_iter().filter(|(role, _)| role != "label");
    let added = added.filter_map(|(_, name)| Some(name.as_str()?.to_string()));
    others.extend(state.chain(added).filter_map(|name| graph.find(&name)));
    Ok(others)
}

/// The size of the last axis of the logits.
fn classes(graph: &Graph) -> Result<Option<usize>> {
    let logits = io::role(graph, "logits")?;
    Ok(logits.and_then(|v| graph.shape(v)?.last()?.as_size()))
}

/// The number of rows of the table that the input's values are looked up in.
fn vocabulary(graph: &Graph, input: Value) -> Option<usize> {
    let mut same = vec![input];
    for node in &graph.nodes {
        let reads = |i: usize| node.input(i).is_some_and(|v| same.contains(&v));
        match node.op.as_str() {
            "Cast" | "Identity" if reads(0) => same.extend(node.output(0)),
            "Gather" if reads(1) && matches!(node.int("axis"), Ok(None | Some(0))) => {
                let table = node.input(0).filter(|&v| graph.is_param(v))?;
                return graph.shape(table)?.first()?.as_size();
            }
            _ => {}
        }
    }
    None
}
