//! Functions of the domain `graft` whose bodies are written here once, as text.
use crate::{Code, Error, Graph, Result};

/// Makes sure that `graph` has the library function `name`, and those that it calls.
pub fn require(graph: &mut Graph, name: &str) -> Result<()> {
    if graph.functions.contains_key(name) {
        return Ok(());
    }
    Err(Error::new(Code::UNKNOWN_OP, format!("there is no library function `{name}`")))
}
