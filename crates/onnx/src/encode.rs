//! Writing a model piece by piece, so that no more than its largest weight is in memory twice.
use crate::proto::{GraphProto, ModelProto};
use prost::{Message, encoding};
use std::io::{Result, Write};

/// Field numbers of the official schema.
const GRAPH: u32 = 7;
const NODE: u32 = 1;
const INITIALIZER: u32 = 5;

/// Writes the same bytes as `model.encode_to_vec()` has.
pub(crate) fn write(model: ModelProto, out: &mut dyn Write) -> Result<()> {
    let ModelProto { graph, opset_import, metadata_props, training_info, functions, configuration, .. } =
        model;
    let head = ModelProto {
        ir_version: model.ir_version,
        producer_name: model.producer_name,
        producer_version: model.producer_version,
        domain: model.domain,
        model_version: model.model_version,
        doc_string: model.doc_string,
        ..ModelProto::default()
    };
    out.write_all(&head.encode_to_vec())?;
    if let Some(graph) = graph {
        let mut key = Vec::new();
        encoding::encode_key(GRAPH, encoding::WireType::LengthDelimited, &mut key);
        encoding::encode_varint(graph.encoded_len() as u64, &mut key);
        out.write_all(&key)?;
        write_graph(graph, out)?;
    }
    let tail = ModelProto {
        opset_import,
        metadata_props,
        training_info,
        functions,
        configuration,
        ..ModelProto::default()
    };
    out.write_all(&tail.encode_to_vec())
}

fn write_graph(mut graph: GraphProto, out: &mut dyn Write) -> Result<()> {
    write_each(NODE, &std::mem::take(&mut graph.node), out)?;
    let name = GraphProto { name: graph.name.take(), ..GraphProto::default() };
    out.write_all(&name.encode_to_vec())?;
    write_each(INITIALIZER, &std::mem::take(&mut graph.initializer), out)?;
    out.write_all(&graph.encode_to_vec())
}

fn write_each<M: Message>(number: u32, messages: &[M], out: &mut dyn Write) -> Result<()> {
    let mut buffer = Vec::new();
    for message in messages {
        buffer.clear();
        encoding::message::encode(number, message, &mut buffer);
        out.write_all(&buffer)?;
    }
    Ok(())
}
