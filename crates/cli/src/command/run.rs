//! `graft run`: runs a model on given inputs.
use crate::{
    model,
    ui::{self, Ui},
};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use graft_adapter::tensors;
use graft_exec::{Device, Entry, Format, Options, Session};
use graft_ir::{Result, Tensor};
use std::{collections::BTreeMap, path::PathBuf};

/// Run a model on given inputs
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// The inputs by name (`.npz` or `.safetensors`)
    #[arg(long)]
    inputs: PathBuf,
    /// Where to write the outputs by name (`.npz` or `.safetensors`)
    #[arg(short, long)]
    output: PathBuf,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    machine: Machine,
    /// Print the time of each op, and with --verbose of each node
    #[arg(long)]
    profile: bool,
}

/// What to run on.
#[derive(clap::Args, Clone)]
pub(crate) struct Machine {
    /// The device
    #[arg(long, default_value = "cpu", value_parser = devices())]
    pub(crate) device: Device,
    /// What activations are computed in
    #[arg(long, default_value = "f32", value_parser = formats())]
    pub(crate) precision: Format,
    /// Threads; by default as many as there are cores
    #[arg(long)]
    pub(crate) threads: Option<usize>,
}

/// The names of devices.
pub(crate) fn devices() -> impl TypedValueParser<Value = Device> {
    PossibleValuesParser::new(["cpu", "cuda"]).try_map(|name| name.parse::<Device>())
}

/// The names of precisions.
fn formats() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["f32", "bf16"]).try_map(|name| name.parse::<Format>())
}

impl Machine {
    /// The executor's options; an error for what this build cannot do.
    pub(crate) fn options(&self, profile: bool) -> Result<Options> {
        if self.threads == Some(0) {
            return Err(crate::usage("--threads 0: at least one thread is needed"));
        }
        Ok(Options { threads: self.threads, device: self.device, format: self.precision, profile })
    }
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        tensors::check_name(&self.output)?;
        graft_onnx::check_target(&self.output, self.force)?;
        let options = self.machine.options(self.profile)?;
        let model = model::load(&self.model, ui)?;
        let inputs = tensors::read(&self.inputs)?;
        let feeds: Vec<(&str, &Tensor)> =
            inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut session = Session::new(&model.graph, &[], &options)?;
        if session.is_emulated() {
            ui.say(&format!("device: {}", session.device()));
        }
        let outputs: BTreeMap<String, Tensor> = session.run(&feeds)?.into_iter().collect();
        session.notices().iter().for_each(|notice| ui.say(notice));
        tensors::write(&self.output, &outputs)?;
        ui.say(&format!("wrote {}", self.output.display()));
        print_profile(&session, ui)
    }
}

/// Prints what was measured, if anything was: time, rate and traffic by op or, verbosely, by node.
pub(crate) fn print_profile(session: &Session, ui: &Ui) -> Result<()> {
    let Some(profile) = session.profile() else { return Ok(()) };
    ui.out(&table(&if ui.is_verbose() { profile.by_node() } else { profile.by_op() }))
}

fn table(entries: &[Entry]) -> String {
    let row = |e: &Entry| {
        let ms = format!("{:.3}", e.time.as_secs_f64() * 1e3);
        let rates = [e.flops_per_second() / 1e9, e.bytes_per_second() / 1e9].map(|r| format!("{r:.2}"));
        let [flops, traffic] = rates;
        vec![e.op.clone(), e.node.clone(), e.calls.to_string(), ms, flops, traffic]
    };
    ui::table(&["op", "node", "calls", "ms", "GFLOP/s", "GB/s"], &entries.iter().map(row).collect::<Vec<_>>())
}
