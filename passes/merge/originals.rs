//! What a merge replaces in a model, so that it can be put back byte for byte. (Computing a weight back from the merged one
//! would lose what rounding took.)
use graft_ir::{Attr, Code, Error, Graph, Node, Result, Tensor, Value, check, error::nearest};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a merged model does not have of the one before.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Originals {
    /// The stored weights that were replaced, by the name of their initializer or constant.
    pub weights: BTreeMap<String, Tensor>,
    /// Operands that were exchanged for others, as those of a linear that got a weight of its own: the name of a result
    /// of the node, the number of the operand, and the name of what was read.
    pub operands: BTreeSet<(String, usize, String)>,
    /// The values that came with the merge: weights, results of nodes, outputs.
    pub added: BTreeSet<String>,
    /// The model's notes that changed, as they were before; `None` for one that was not there.
    pub notes: BTreeMap<String, Option<String>>,
}

impl Originals {
    /// What `merged`, which was made of `base`, does not have of it.
    pub fn of(base: &Graph, merged: &Graph) -> Originals {
        let (before, after) = (stored(base), stored(merged));
        let is_replaced =
            |(name, tensor): &(&&str, &&Tensor)| after.get(*name).is_some_and(|now| now != *tensor);
        let weights = before.iter().filter(is_replaced);
        let weights = weights.map(|(name, tensor)| (name.to_string(), (*tensor).clone())).collect();
        let known: BTreeSet<&str> = defined(base).collect();
        let added = defined(merged).filter(|name| !known.contains(name)).map(String::from).collect();
        let keys = base.meta.keys().chain(merged.meta.keys());
        let changed = keys.filter(|key| base.meta.get(*key) != merged.meta.get(*key));
        let notes = changed.map(|key| (key.clone(), base.meta.get(key).cloned())).collect();
        Originals { weights, operands: exchanged(base, merged), added, notes }
    }

    /// The model as it was before the merge: the same weights, byte for byte, and the same nodes.
    ///
    /// # Errors
    /// [`Code::ORIGINALS`] where something that was merged is not in `merged`.
    pub fn put_back(&self, merged: &Graph) -> Result<Graph> {
        let mut graph = merged.clone();
        for (name, tensor) in &self.weights {
            put_weight(&mut graph, name, tensor)?;
        }
        for (result, i, name) in &self.operands {
            let operand = found(&graph, name)?;
            let reader = found(&graph, result)?;
            let node = graph.nodes.iter_mut().find(|n| n.defines().any(|v| v == reader));
            *node.and_then(|n| n.inputs.get_mut(*i)).ok_or_else(|| lost(result, merged))? = Some(operand);
        }
        let is_added = |v: Value| self.added.contains(merged.name(v));
        graph.nodes.retain(|node| !node.defines().any(is_added));
        graph.params.retain(|&v| !is_added(v));
        graph.outputs.retain(|&v| !is_added(v));
        for (key, note) in &self.notes {
            graph.meta.remove(key);
            graph.meta.extend(note.clone().map(|note| (key.clone(), note)));
        }
        graph.sweep_functions();
        // What is put back was read from a file.
        check(&graph)
            .map_err(|e| Error::new(Code::ORIGINALS, "the originals do not fit the model").help(e.message))?;
        Ok(graph)
    }

    /// The weights of `merged` that are not as they were, by name: replaced or added.
    ///
    /// # Errors
    /// [`Code::ORIGINALS`] where there is none in the place of an original.
    pub fn changed<'g>(&self, merged: &'g Graph) -> Result<BTreeMap<&'g str, &'g Tensor>> {
        let mut stored = stored(merged);
        if let Some(name) = self.weights.keys().find(|name| !stored.contains_key(name.as_str())) {
            return Err(lost(name, merged));
        }
        stored.retain(|name, _| self.weights.contains_key(*name) || self.added.contains(*name));
        Ok(stored)
    }
}

/// Every weight with its data: initializers and constants.
fn stored(graph: &Graph) -> BTreeMap<&str, &Tensor> {
    let params = graph.params.iter().filter_map(|&v| Some((graph.name(v), graph[v].tensor.as_ref()?)));
    let constants = graph.nodes.iter().filter(|n| n.op == "Constant").filter_map(|n| {
        let Some(Attr::Tensor(tensor)) = n.attrs.get("value") else { return None };
        Some((graph.name(n.output(0)?), tensor))
    });
    params.chain(constants).collect()
}

/// The names of all weights and results of nodes.
fn defined(graph: &Graph) -> impl Iterator<Item = &str> {
    let results = graph.nodes.iter().flat_map(Node::defines);
    graph.params.iter().copied().chain(results).map(|v| graph.name(v))
}

/// The operands that differ between nodes with the same result.
fn exchanged(base: &Graph, merged: &Graph) -> BTreeSet<(String, usize, String)> {
    let by_result: HashMap<&str, &Node> =
        merged.nodes.iter().filter_map(|n| Some((merged.name(n.output(0)?), n))).collect();
    let mut all = BTreeSet::new();
    for node in &base.nodes {
        let Some(result) = node.output(0).map(|v| base.name(v)) else { continue };
        let Some(now) = by_result.get(result) else { continue };
        for (i, operand) in node.inputs.iter().enumerate() {
            let Some(name) = operand.map(|v| base.name(v)) else { continue };
            if now.input(i).is_some_and(|v| merged.name(v) != name) {
                all.insert((result.to_string(), i, name.to_string()));
            }
        }
    }
    all
}

fn put_weight(graph: &mut Graph, name: &str, tensor: &Tensor) -> Result<()> {
    let v = found(graph, name)?;
    match graph.nodes.iter_mut().find(|n| n.output(0) == Some(v)) {
        Some(node) => *node = std::mem::take(node).with("value", Attr::Tensor(tensor.clone())),
        None => graph[v].tensor = Some(tensor.clone()),
    }
    Ok(())
}

fn found(graph: &Graph, name: &str) -> Result<Value> {
    graph.find(name).ok_or_else(|| lost(name, graph))
}

fn lost(name: &str, graph: &Graph) -> Error {
    let near = nearest(name, stored(graph).into_keys()).join("`, `");
    Error::new(Code::ORIGINALS, format!("the model has no `{name}`, which a merge changed"))
        .help(format!("give the model that was written together with these originals; nearest: `{near}`"))
}
