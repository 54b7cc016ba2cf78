//! `graft inject`: puts adapters beside linear nodes, fresh or trained.
use crate::{command::targets::Select, model, ui::Ui, usage};
use graft_ir::{Graph, Result, Tensor};
use graft_onnx::SaveOptions;
use graft_train::Init;
use graft_passes::{self as passes, Context, Options, Stage, pipeline};
use std::{collections::BTreeMap, path::PathBuf};

/// Put adapters beside linear nodes
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    #[command(flatten)]
    flags: AdapterFlags,
    /// Fill in the trained weights of this adapter; method and targets come from its configuration
    #[arg(long = "adapter", value_name = "DIR")]
    adapter_dir: Option<PathBuf>,
    /// Make the adapters' weights overridable inputs of the graph
    #[arg(long)]
    inputs: bool,
    /// The seed of initial weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to write (`.onnx` or `.onnxtxt`)
    #[arg(short, long)]
    output: PathBuf,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
}

/// Which adapter, and where.
#[derive(clap::Args, Clone, Default)]
#[command(next_help_heading = "Adapter")]
pub(crate) struct AdapterFlags {
    /// The adapter method; `graft methods` lists them
    #[arg(long)]
    method: Option<String>,
    /// The rank
    #[arg(long)]
    rank: Option<usize>,
    /// The numerator of the scale
    #[arg(long)]
    alpha: Option<f64>,
    #[command(flatten)]
    select: Select,
    /// The rank of some targets (repeatable)
    #[arg(long, value_name = "SEL=R")]
    rank_pattern: Vec<String>,
    /// The alpha of some targets (repeatable)
    #[arg(long, value_name = "SEL=A")]
    alpha_pattern: Vec<String>,
    /// A setting of the method (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl AdapterFlags {
    /// The method, LoRA by default.
    pub(crate) fn method_or_default(&self) -> &str {
        self.method.as_deref().unwrap_or("lora")
    }
    /// What was given, as options of the pass `inject`.
    pub(crate) fn options(&self) -> Result<Options> {
        let mut options = self.select.options(Options::default());
        let given = [
            ("method", self.method.clone()),
            ("rank", self.rank.map(|r| r.to_string())),
            ("alpha", self.alpha.map(|a| a.to_string())),
        ];
        for (key, value) in given {
            if let Some(value) = value {
                options = options.with(key, value);
            }
        }
        for (key, values) in [("rank-pattern", &self.rank_pattern), ("alpha-pattern", &self.alpha_pattern)] {
            options = values.iter().fold(options, |options, value| options.with(key, value));
        }
        for setting in &self.set {
            let (key, value) = setting.split_once('=').ok_or_else(|| usage(format!("--set {setting}: expected KEY=VALUE")))?;
            options = options.with(key, value);
        }
        Ok(options)
    }
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let model = model::load(&self.model, ui)?;
        let mut options = self.flags.options()?;
        let mut trained = None;
        if let Some(dir) = &self.adapter_dir {
            if options != Options::default() {
                let message = "method and targets come from the configuration of `--adapter`, so no flag may give them";
                return Err(usage(message));
            }
            let (config_options, tensors) = read_adapter(dir, ui)?;
            (options, trained) = (config_options, Some(tensors));
        }
        if self.inputs {
            options = options.with("inputs", true);
        }
        let graph = apply("inject", options, &model.graph, trained.as_ref(), self.seed, ui)?;
        let save = SaveOptions { force: self.force, ..SaveOptions::default() };
        graft_onnx::save(&graph, Some(&model), &self.output, &save)?;
        ui.say(&format!("wrote {}", self.output.display()));
        Ok(())
    }
}

/// An adapter's directory: its configuration as options of `inject`, and its tensors.
pub(crate) fn read_adapter(dir: &std::path::Path, ui: &Ui) -> Result<(Options, BTreeMap<String, Tensor>)> {
    let adapter = Init::read(dir)?;
    adapter.warnings.iter().for_each(|line| ui.warn(line));
    Ok((adapter.options, adapter.tensors))
}

/// Runs one pass.
pub(crate) fn apply(
    pass: &str,
    options: Options,
    graph: &Graph,
    adapter: Option<&BTreeMap<String, Tensor>>,
    seed: u64,
    ui: &Ui,
) -> Result<Graph> {
    let mut log = |line: &str| ui.say(line);
    let mut context = Context { log: &mut log, has_kernel: &graft_kernels::supports, adapter, seed };
    let stage = Stage { name: pass.into(), options };
    pipeline::run(passes::ALL, &[stage], graph, &mut context, &mut |_| ())
}
