//! `graft inject`: puts adapters beside linear nodes, fresh or trained.
use crate::{
    command::targets::Select,
    model,
    output::Output,
    ui::{self, Ui},
    usage,
};
use graft_adapter::NO_METHOD;
use graft_ir::{Graph, Result};
use graft_passes::{
    self as passes, Context, Options, Stage,
    inject::{Adapter, Inputs, adapters},
    pipeline,
};
use graft_train::{
    Init,
    trained::{self, Trained},
};
use std::path::{Path, PathBuf};

/// Put adapters beside linear nodes
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    #[command(flatten)]
    flags: AdapterFlags,
    /// Fill in the trained weights of this adapter, and put on the head that was trained with it; method and targets come
    /// from its configuration
    #[arg(long = "adapter", value_name = "DIR")]
    adapter_dir: Option<PathBuf>,
    /// Leave the trained head off
    #[arg(long, requires = "adapter_dir")]
    no_head: bool,
    /// Make the adapters' weights overridable inputs of the graph, to which ONNX Runtime's `LoraAdapter` gives what
    /// `graft convert --to onnx_adapter` writes; with `=scale` the scale too, which is 1. Of any rank where the method
    /// allows it; without --adapter they add nothing
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "weights", value_parser = ["weights", "scale"])]
    inputs: Option<String>,
    /// The seed of initial weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to write (`.onnx` or `.onnxtxt`); `-` prints ONNX text
    #[arg(short, long, required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
    /// List the adapters that would be put on, and write nothing
    #[arg(long, conflicts_with = "output")]
    dry_run: bool,
}

/// Which adapter, and where.
#[derive(clap::Args, Clone, Default)]
#[command(next_help_heading = "Adapter")]
pub(crate) struct AdapterFlags {
    /// The adapter method; `graft methods` lists them, and `train` takes `none` too: the head alone is trained
    #[arg(long)]
    method: Option<String>,
    /// The rank
    #[arg(long)]
    rank: Option<usize>,
    /// The numerator of the scale
    #[arg(long, allow_negative_numbers = true)]
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
    /// The same for training: `None` where there is to be no adapter.
    pub(crate) fn options_or_none(&self) -> Result<Option<Options>> {
        let options = self.options()?;
        if self.method.as_deref() != Some(NO_METHOD) {
            return Ok(Some(options));
        }
        match options == Options::default().with("method", NO_METHOD) {
            true => Ok(None),
            false => Err(usage("`--method none` makes no adapter, so no other flag may say how one is made")),
        }
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
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| usage(format!("--set {setting}: expected KEY=VALUE")))?;
            options = options.with(key, value);
        }
        Ok(options)
    }
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let output = self.output.clone().map(|output| Output { output, force: self.force });
        output.iter().try_for_each(Output::check)?;
        let model = model::load(&self.model, ui)?;
        let options = self.flags.options()?;
        let graph = match &self.adapter_dir {
            Some(_) if options != Options::default() => {
                let message =
                    "method and targets come from the configuration of `--adapter`, so no flag may give them";
                return Err(usage(message));
            }
            Some(dir) => self.inject_trained(&model.graph, dir, ui)?,
            None => apply("inject", options.with("inputs", self.fed()?), &model.graph, self.seed, ui)?,
        };
        match output {
            Some(output) => output.write(&graph, &model, ui),
            None => ui.out(&plan(&adapters(&graph)?)),
        }
    }

    /// What becomes an input.
    fn fed(&self) -> Result<Inputs> {
        self.inputs.as_deref().map_or(Ok(Inputs::None), str::parse)
    }

    fn inject_trained(&self, graph: &Graph, dir: &Path, ui: &Ui) -> Result<Graph> {
        let Trained { adapter, head } = read_trained(dir, self.no_head, ui)?;
        let log = &mut |line: &str| ui.say(line);
        let graph = match adapter {
            Some(adapter) => trained::inject(graph, &adapter, self.fed()?, log)?,
            None => graph.clone(),
        };
        match head {
            Some(head) => trained::put_head(&graph, &head, true, log),
            None => Ok(graph),
        }
    }
}

/// The adapters as a table.
fn plan(adapters: &[Adapter]) -> String {
    let row = |a: &Adapter| {
        let [rank, alpha] = [a.rank.to_string(), a.alpha.to_string()];
        vec![a.target.clone(), a.method.clone(), rank, alpha, ui::thousands(a.parameters as u64)]
    };
    let rows: Vec<_> = adapters.iter().map(row).collect();
    ui::table(&["target", "method", "rank", "alpha", "parameters"], &rows)
}

/// What an adapter's directory holds; with `no_head`, of the adapter alone.
pub(crate) fn read_trained(dir: &Path, no_head: bool, ui: &Ui) -> Result<Trained> {
    let trained = match no_head {
        true => Trained { adapter: Some(Init::read(dir)?), head: None },
        false => Trained::read(dir)?,
    };
    trained.adapter.iter().flat_map(|adapter| &adapter.warnings).for_each(|line| ui.warn(line));
    Ok(trained)
}

/// Runs one pass.
pub(crate) fn apply(pass: &str, options: Options, graph: &Graph, seed: u64, ui: &Ui) -> Result<Graph> {
    let mut log = |line: &str| ui.say(line);
    let mut context = Context { log: &mut log, has_kernel: &graft_kernels::supports, adapter: None, seed };
    let stage = Stage { name: pass.into(), options };
    pipeline::run(passes::ALL, &[stage], graph, &mut context, &mut |_| ())
}
