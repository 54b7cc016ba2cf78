//! Removes what no result depends on.
use crate::{Context, Options, Pass};
use graft_ir::{Graph, Result};

/// Takes no options.
pub const PASS: Pass =
    Pass { name: "sweep", about: "removes nodes and weights that no output depends on", run: sweep };

fn sweep(graph: &Graph, options: &Options, ctx: &mut Context<'_>) -> Result<Graph> {
    options.expect_only(&[])?;
    let mut out = graph.clone();
    out.sweep();
    let n_nodes = graph.nodes.len() - out.nodes.len();
    let n_weights = graph.params.len() - out.params.len();
    (ctx.log)(&format!("sweep: {n_nodes} nodes and {n_weights} weights removed"));
    Ok(out)
}
