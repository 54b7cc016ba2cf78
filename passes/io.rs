//! Names of the inputs and outputs that passes add, and the notes that tell them from the model's own.
use crate::meta;
use graft_ir::{Code, DType, Error, Graph, Result, Type, Value};
use serde_json::{Map, Value as Json};

/// A name for a new input or output: `wanted`, with the prefix `graft.` where the graph has a value of that name.
pub(crate) fn free_name(graph: &Graph, wanted: &str) -> String {
    let mut name = wanted.to_string();
    while graph.find(&name).is_some() {
        name.insert_str(0, "graft.");
    }
    name
}

/// The names that passes gave to roles such as `loss`, `label`, `logits`, `lr`: the note [`meta::IO`].
///
/// # Errors
/// [`Code::GRAPH`] where the note is damaged.
pub fn roles(graph: &Graph) -> Result<Map<String, Json>> {
    let Some(text) = graph.meta.get(meta::IO) else { return Ok(Map::new()) };
    serde_json::from_str(text).map_err(|_| Error::new(Code::GRAPH, format!("note `{}` is damaged", meta::IO)))
}

/// The value that plays `role`, if one does.
///
/// # Errors
/// [`Code::GRAPH`] where the note is damaged.
pub fn role(graph: &Graph, role: &str) -> Result<Option<Value>> {
    Ok(roles(graph)?.get(role).and_then(Json::as_str).and_then(|name| graph.find(name)))
}

/// Notes that `v` plays `role`.
pub(crate) fn set_role(graph: &mut Graph, role: &str, v: Value) -> Result<()> {
    let mut all = roles(graph)?;
    all.insert(role.into(), graph.name(v).into());
    graph.meta.insert(meta::IO.into(), Json::Object(all).to_string());
    Ok(())
}

/// Takes the note of `role` away.
pub(crate) fn drop_role(graph: &mut Graph, role: &str) -> Result<()> {
    let mut all = roles(graph)?;
    if all.shift_remove(role).is_some() {
        match all.is_empty() {
            true => graph.meta.remove(meta::IO),
            false => graph.meta.insert(meta::IO.into(), Json::Object(all).to_string()),
        };
    }
    Ok(())
}

/// The scalar input that plays `role`: the one that is there, or a new one.
pub(crate) fn scalar_input(graph: &mut Graph, name: &str, dtype: DType) -> Result<Value> {
    if let Some(v) = role(graph, name)? {
        return Ok(v);
    }
    let free = free_name(graph, name);
    let v = graph.add_input(free, Type { dtype, shape: Some(Vec::new()) });
    set_role(graph, name, v)?;
    Ok(v)
}
