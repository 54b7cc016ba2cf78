//! Trains an adapter with graft's executor, from the file that `train.py` trains with ONNX Runtime:
//!
//! ```text
//! graft export MODEL.onnx --train --head classify:2 --loss cross-entropy --with adapter -o train.onnx
//! cargo run --release --example train -- train.onnx tokenizer.json train.jsonl [EPOCHS]
//! ```
//! `graft merge` and PEFT read the adapter, which then lies in `train.adapter`.
#![allow(clippy::print_stdout, reason = "the losses are what it has to say")]

use graft_adapter::{HEAD_FILE, MODEL_FILE, tensors};
use graft_exec::{Options, Session};
use graft_ir::{Result, Tensor};
use graft_passes::optimizer;
use graft_train::data::{Dataset, Schema, Text};
use graft_train::{Curve, Order, Schedule, Stream};
use std::{collections::BTreeMap, env, path::Path};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [path, tokenizer, data, epochs @ ..] = &arguments[..] else { panic!("see the head of this file") };
    let (path, tokenizer, data) = (Path::new(path), Path::new(tokenizer), Path::new(data));
    let epochs = epochs.first().and_then(|n| n.parse().ok()).unwrap_or(2);

    let graph = graft_onnx::load(path)?.graph;
    let mut session = Session::new(&graph, &optimizer::state(&graph)?, &Options::default())?;
    for (name, tensor) in tensors::read(&path.with_extension("state.safetensors"))? {
        session.set_state(&name, &tensor)?;
    }

    let text = Text { tokenizer, field: "text", max_length: 128 };
    let schema = Schema::of(&graph, "cross-entropy")?;
    let data = Dataset::read(data, &schema, Some(&text), &mut |_| ())?;
    let mut stream = Stream::new(Order::Shuffle, data.lengths(), 32, 0, 0);
    let schedule = Schedule::new(1e-3, Curve::Linear, 0.1, epochs * stream.per_epoch());
    for step in 1..=schedule.total {
        let (lr, count) = (Tensor::f32(&[], &[schedule.at(step) as f32]), Tensor::i64(&[], &[step as i64]));
        let batch = data.batch(stream.next_batch());
        let mut feeds: Vec<(&str, &Tensor)> = batch.iter().map(|(name, t)| (name.as_str(), t)).collect();
        feeds.extend([("lr", &lr), ("step", &count)]);
        let outputs: BTreeMap<String, Tensor> = session.run(&feeds)?.into_iter().collect();
        println!("step {step} loss {:.6}", outputs["loss"].to_f64().unwrap_or_default()[0]);
    }

    let (folder, to_files) = (path.with_extension("adapter"), path.with_extension("adapter.onnx"));
    let to_files = graft_onnx::load(&to_files)?.graph;
    let names: Vec<&str> = to_files.inputs.iter().map(|&v| to_files.name(v)).collect();
    let weights: Vec<Tensor> = names.iter().map(|name| session.state(name)).collect::<Result<_>>()?;
    let feeds: Vec<(&str, &Tensor)> = names.into_iter().zip(&weights).collect();
    let files = Session::new(&to_files, &[], &Options::default())?.run(&feeds)?.into_iter().collect();
    tensors::write(&folder.join(MODEL_FILE), &files)?;
    let head = folder.join(HEAD_FILE);
    if head.exists() {
        let keys = tensors::read(&head)?.into_keys();
        let trained: Result<_> = keys.map(|key| Ok((key.clone(), session.state(&key)?))).collect();
        tensors::write(&head, &trained?)?;
    }
    Ok(())
}
