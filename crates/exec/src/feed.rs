//! Checks of what a run is fed.
use graft_ir::{Code, Error, Graph, Result, Tensor, error::nearest};

/// One tensor for each of `graph.inputs`, `None` for those that `is_state`; a param's own data where it is not fed.
pub(crate) fn resolve(
    graph: &Graph,
    feeds: &[(&str, &Tensor)],
    is_state: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    let mut tensors: Vec<Option<Tensor>> = vec![None; graph.inputs.len()];
    for &(name, tensor) in feeds {
        let Some(i) = graph.inputs.iter().position(|&v| graph.name(v) == name) else {
            return Err(unknown(graph, name));
        };
        if is_state[i] {
            let message = format!("`{name}` is state of the session and cannot be fed");
            return Err(Error::new(Code::FEED, message));
        }
        if tensors[i].replace(tensor.clone()).is_some() {
            return Err(Error::new(Code::FEED, format!("`{name}` is fed twice")));
        }
        let declared = graph.dtype(graph.inputs[i]);
        if declared.is_some_and(|d| d != tensor.dtype()) {
            let declared = declared.map_or("?".into(), |d| d.to_string());
            let message = format!("`{name}` is fed as {}, but is declared as {declared}", tensor.dtype());
            return Err(Error::new(Code::FEED, message));
        }
    }
    let mut missing = Vec::new();
    for ((tensor, &v), state) in tensors.iter_mut().zip(&graph.inputs).zip(is_state) {
        if tensor.is_none() && !state {
            tensor.clone_from(&graph[v].tensor);
            missing.extend(tensor.is_none().then(|| format!("`{}`", graph.name(v))));
        }
    }
    if missing.is_empty() {
        return Ok(tensors);
    }
    Err(Error::new(Code::FEED, format!("missing input {}", missing.join(", "))))
}

fn unknown(graph: &Graph, name: &str) -> Error {
    let names = graph.inputs.iter().map(|&v| graph.name(v));
    let nearest = nearest(name, names).join("`, `");
    Error::new(Code::FEED, format!("the graph has no input `{name}`")).help(format!("nearest: `{nearest}`"))
}
