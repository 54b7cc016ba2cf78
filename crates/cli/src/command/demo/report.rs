//! What the demo says.
use super::{BATCH, Files, WHALE, corpus::CONTEXT, corpus::Corpus};
use crate::{
    command::compare::{Comparison, PAGE_FILE},
    ui::{self, Ui},
};
use graft_ir::{Graph, Result, Tensor};
use graft_passes::inject::adapters;
use std::path::Path;

/// The widest line of a sample.
const WIDTH: usize = 88;

/// Model, corpus and adapter, with their sizes.
pub(super) fn introduction(base: &Graph, fresh: &Graph, corpus: &Corpus) -> Result<String> {
    let tensors = base.params.iter().filter_map(|&v| base[v].tensor.as_ref());
    let adapters = adapters(fresh)?;
    let added = adapters.iter().map(|a| a.parameters).sum();
    let counts = [tensors.map(Tensor::len).sum(), added, corpus.train.len(), corpus.held_out.len()];
    let [parameters, added, learnt, held_out] = counts.map(|n: usize| ui::thousands(n as u64));
    let (method, rank) = adapters.first().map_or(("none", 0), |a| (a.method.as_str(), a.rank));
    Ok(format!(
        "A language model that has read nothing but Moby Dick learns to address Congress.\n\n\
         model     {parameters} parameters over the bytes of ASCII, {} of ONNX\n\
         corpus    State of the Union addresses, 1961 to 1966: {learnt} bytes to learn from, {held_out} held out\n\
         adapter   {method} of rank {rank} on {} linear nodes: {added} trainable parameters\n",
        ui::bytes(WHALE.len() as u64),
        adapters.len(),
    ))
}

/// How long the training took.
pub(super) fn training(steps: u64, seconds: f64) -> String {
    format!("training  {steps} steps of {BATCH} × {CONTEXT} bytes in {seconds:.1} s\n")
}

/// The losses on what was held out.
pub(super) fn losses(before: f64, adapted: f64, merged: f64) -> String {
    let row = |name: &str, loss: f64| vec![name.to_string(), format!("{loss:.4}"), format!("{:.3}", loss.exp())];
    let rows = [row("whale.onnx", before), row("adapted.onnx", adapted), row("merged.onnx", merged)];
    let header = ["held out", "loss, nats/byte", "perplexity/byte"];
    format!("\n{}", ui::table(&header, &rows))
}

/// What the models say.
pub(super) fn samples(before: &str, after: &str, ui: &Ui) -> String {
    let said = |name: &str, text: &str| format!("\n{}\n{}", ui.bold(&format!("{name} says")), wrapped(text));
    said("whale.onnx", before) + &said("merged.onnx", after)
}

/// Every method beside the others.
pub(super) fn comparison(steps: u64, comparison: &Comparison) -> String {
    format!("\nevery method, for {steps} steps, with as many parameters as LoRA as a rank allows\n{}", comparison.table())
}

/// Where everything is, and what to type next.
pub(super) fn farewell(files: &Files, out: &Path) -> String {
    let page = files.comparison.join(PAGE_FILE);
    let rows = [
        (&files.base, "the model before"),
        (&files.adapted, "the model with the adapter beside its linear nodes"),
        (&files.merged, "the model with the adapter folded into its weights"),
        (&files.adapter, "the adapter as PEFT has it, the curve `loss.svg`, `metrics.jsonl`"),
        (&page, "all methods: curves, losses, times, memory"),
        (&files.train, "the rows that were learnt from"),
        (&files.held_out, "the rows that were held out"),
    ];
    let row = |(path, what): &(&std::path::PathBuf, &str)| vec![path.display().to_string(), what.to_string()];
    let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
    let graft = std::env::args().next().unwrap_or_else(|| "graft".into());
    let again = out.join("again.onnx");
    let paths = [Path::new(&graft), &files.base, &files.adapted, &files.adapter, &again];
    let [graft, base, adapted, adapter, again] = paths.map(quoted);
    let next = [
        format!("{graft} targets {base}"),
        format!("{graft} inspect {adapted} --tree"),
        format!("{graft} merge {base} --adapter {adapter} -o {again} --verify"),
    ];
    format!("\n{}\nnext, try\n  {}\n", ui::table(&["file", "what it is"], &rows), next.join("\n  "))
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,\\".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The text in indented lines that are not too wide; what breaks lines in it goes.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < WIDTH => *line += &format!(" {word}"),
            _ => lines.push(format!(" {word}")),
        }
    }
    lines.iter().map(|line| format!(" {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_wrapped() {
        let text = "whale ".repeat(40);
        let lines = wrapped(&text);
        assert!(lines.lines().all(|l| l.starts_with("  whale") && l.len() <= WIDTH + 2), "{lines}");
        assert_eq!(lines.split_whitespace().count(), 40);
        assert_eq!(wrapped("a\n\nb"), "  a b\n");
    }

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("graft-demo/whale.onnx")), "graft-demo/whale.onnx");
        assert_eq!(quoted(Path::new("it's here")), r"'it'\''s here'");
    }
}
