//! `graft opt`: runs any pipeline of passes, and shows what each of them does.
use crate::{model, output::Output, ui::Ui, usage};
use graft_ir::{Graph, Result};
use graft_passes::{self as passes, Context, diff, pipeline};
use std::path::PathBuf;

/// Run a pipeline of passes over a model
#[derive(clap::Args)]
#[command(after_long_help = passes_help())]
pub(crate) struct Args {
    /// The model (`.onnx` or `.onnxtxt`)
    model: PathBuf,
    /// The passes, such as 'canonicalize, inject{method=lora,rank=4}, fuse'; none: import and export
    #[arg(short, long, default_value = "")]
    passes: String,
    /// Where to write (`.onnx` or `.onnxtxt`); `-` (the default) prints ONNX text
    #[arg(short, long, default_value = "-")]
    output: PathBuf,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
    /// Print the graph after this pass (repeatable); `all`: after each
    #[arg(long, value_name = "PASS")]
    print_after: Vec<String>,
    /// Print what each pass changed, as a diff of the text
    #[arg(long)]
    print_changed: bool,
    /// Say how long each pass took
    #[arg(long)]
    time_passes: bool,
    /// Say why rules did not apply
    #[arg(long)]
    explain: bool,
    /// The seed of random initial weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn passes_help() -> String {
    let rows: Vec<Vec<String>> = passes::ALL.iter().map(|p| vec![p.name.into(), p.about.into()]).collect();
    format!("Passes:\n{}", crate::ui::table(&["pass", "what it does"], &rows))
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let known = |name: &String| name == "all" || passes::ALL.iter().any(|p| p.name == *name);
        if let Some(name) = self.print_after.iter().find(|n| !known(n)) {
            return Err(usage(format!("--print-after: there is no pass `{name}`")));
        }
        let output = Output { output: self.output.clone(), force: self.force };
        output.check()?;
        let model = model::load(&self.model, ui)?;
        output.write(&self.transform(&model.graph, ui)?, &model, ui)
    }

    fn transform(&self, graph: &Graph, ui: &Ui) -> Result<Graph> {
        let explain = self.explain || ui.is_verbose();
        let mut log = |line: &str| {
            if explain {
                ui.say(line);
            }
        };
        let mut context = Context { log: &mut log, has_kernel: &graft_kernels::supports, adapter: None, seed: self.seed };
        let stages = pipeline::parse(&self.passes)?;
        pipeline::run(passes::ALL, &stages, graph, &mut context, &mut |step| self.show(step, ui))
    }

    fn show(&self, step: &pipeline::Step<'_>, ui: &Ui) {
        if self.time_passes {
            ui.say(&format!("{:>9.3} ms  {}", step.elapsed.as_secs_f64() * 1e3, step.name));
        }
        if self.print_changed {
            ui.say(&format!("# {}\n{}", step.name, diff::lines(&step.before.to_string(), &step.after.to_string())));
        }
        if self.print_after.iter().any(|n| n == "all" || n == step.name) {
            ui.say(&format!("# after {}\n{}", step.name, step.after));
        }
    }
}
