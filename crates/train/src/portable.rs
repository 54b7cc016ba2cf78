//! Training graphs in the ops that every ONNX Runtime has.
use crate::{graphs::Maker, observer::Observer};
use graft_ir::{Attr, Code, Error, Graph, Result, infer::node_label};
use graft_passes::Stage;
use std::collections::BTreeSet;

/// The ops of ONNX's own domain that stock ONNX Runtime runs on a processor and in WebAssembly, one a line; the suite
/// `tests/python/portable.py` holds the list against the runtime's own.
const STOCK: &str = include_str!("stock_ops.txt");

/// The graph in stock ONNX Runtime's ops, each thing computed once.
///
/// # Errors
/// [`Code::UNKNOWN_OP`] that names every op which the runtime does not have, and its nodes.
pub(crate) fn portable(graph: &Graph, maker: &Maker<'_>, observer: &mut dyn Observer) -> Result<Graph> {
    // Folding must not copy a weight that the base model holds already.
    let stages = [
        Stage::new("inline"),
        Stage::new("fold").with("limit", 1024),
        Stage::new("cse"),
        Stage::new("sweep"),
    ];
    let mut graph = maker.run(&stages, graph, None, observer)?;
    let mut foreign = BTreeSet::new();
    collect_foreign(&graph, &STOCK.lines().collect(), &mut foreign);
    if !foreign.is_empty() {
        let list = foreign.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("no portable graph can hold {list}");
        return Err(Error::new(Code::UNKNOWN_OP, message)
            .help("`--form functions` keeps ops that stock ONNX Runtime does not have"));
    }
    graph.opsets.retain(|domain, _| domain.is_empty());
    // Which adapter a node was of is said by nothing that is left.
    graph.nodes.iter_mut().for_each(|node| node.meta.clear());
    Ok(graph)
}

/// Tells of the nodes, those of subgraphs too, whose ops are not among `stock`.
fn collect_foreign(graph: &Graph, stock: &BTreeSet<&str>, foreign: &mut BTreeSet<String>) {
    for node in &graph.nodes {
        if !stock.contains(node.op.as_str()) {
            foreign.insert(format!("`{}` at node `{}`", node.op, node_label(graph, node)));
        }
        for attr in node.attrs.values() {
            if let Attr::Graph(body) = attr {
                collect_foreign(body, stock, foreign);
            }
        }
    }
}
