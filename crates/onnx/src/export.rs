//! From a graph to ONNX's messages. What is as it was imported is written as it was; the rest is made anew, keeping of
//! the original what the graph does not express (docs, order, annotations).
mod declare;
mod function;
mod graph;
mod node;
mod same;

use crate::{Origin, external::External, import, proto::*, types};
use graft_ir::{Graph, Result};
use std::collections::{BTreeMap, BTreeSet};

/// From this version of the format on, nodes, weights and values may carry notes.
const NOTES_IR: i64 = 10;
/// From this version on, a model may hold functions.
const FUNCTIONS_IR: i64 = 8;
/// From this version on, a weight need not be an input.
const WEIGHTS_IR: i64 = 4;

/// The messages of a whole model. Weights that lie in files beside the original still refer to those.
pub(crate) fn model(graph: &Graph, origin: Option<&Origin>) -> Result<ModelProto> {
    let (scratch, nowhere) = (from_scratch(), External::default());
    let old = origin.map_or(&scratch, |o| &o.proto);
    let mut exporter = Exporter {
        external: origin.map_or(&nowhere, |o| &o.external),
        needs_ir: 0,
        domains: BTreeSet::new(),
    };
    let notes = old.graph.as_ref().map(|g| g.metadata_props.clone()).unwrap_or_default();
    let body = exporter.graph(graph, old.graph.as_ref(), notes)?;
    let functions = exporter.functions(graph, &old.functions)?;
    let mut opsets = graph.opsets.clone();
    for domain in &exporter.domains {
        opsets.entry(domain.clone()).or_insert(1);
    }
    let given = if graph.ir_version > 0 { graph.ir_version } else { oldest_ir(graph.opset("").unwrap_or(1)) };
    Ok(ModelProto {
        ir_version: Some(given.max(exporter.needs_ir)),
        opset_import: imports(&opsets, &old.opset_import),
        producer_name: old.producer_name.clone(),
        producer_version: old.producer_version.clone(),
        domain: old.domain.clone(),
        model_version: old.model_version,
        doc_string: old.doc_string.clone(),
        graph: Some(body),
        metadata_props: types::write_meta(&graph.meta, &old.metadata_props),
        training_info: old.training_info.clone(),
        functions,
        configuration: old.configuration.clone(),
    })
}

/// What a model says of itself that was not imported.
fn from_scratch() -> ModelProto {
    ModelProto {
        producer_name: Some("graft".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        ..ModelProto::default()
    }
}

/// The oldest version of the format with which models of this opset are written (the table of ONNX's releases).
fn oldest_ir(opset: i64) -> i64 {
    match opset {
        ..=8 => 3,
        9 => 4,
        10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19 | 20 => 9,
        21 | 22 => 10,
        23 => 11,
        24 => 12,
        _ => 13,
    }
}

/// Opset imports, in the order of `old` as far as they are there.
fn imports(opsets: &BTreeMap<String, i64>, old: &[OperatorSetIdProto]) -> Vec<OperatorSetIdProto> {
    let kept = old.iter().filter_map(|o| {
        let version = *opsets.get(import::domain(o.domain()))?;
        let same = o.version() == version;
        Some(if same { o.clone() } else { OperatorSetIdProto { version: Some(version), ..o.clone() } })
    });
    let is_new = |domain: &str| old.iter().all(|o| import::domain(o.domain()) != domain);
    let added = opsets.iter().filter(|(domain, _)| is_new(domain)).map(|(domain, version)| {
        OperatorSetIdProto { domain: Some(domain.clone()), version: Some(*version) }
    });
    kept.chain(added).collect()
}

/// `new` as an optional field, which stays absent where it was absent and means the same.
fn keep(old: &Option<String>, new: &str) -> Option<String> {
    if old.as_deref().unwrap_or("") == new { old.clone() } else { Some(new.into()) }
}

/// What is collected while messages are made.
struct Exporter<'a> {
    external: &'a External,
    /// The version of the format that what was made anew asks for.
    needs_ir: i64,
    /// The domains of nodes and functions that were made anew.
    domains: BTreeSet<String>,
}

impl Exporter<'_> {
    fn need_ir(&mut self, version: i64) {
        self.needs_ir = self.needs_ir.max(version);
    }
}
