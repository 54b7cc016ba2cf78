//! `graft train`: trains adapters.
use crate::{
    command::{inject::AdapterFlags, run::Machine},
    memory, model,
    progress::Progress,
    ui::Ui,
    usage,
};
use graft_ir::Result;
use graft_passes::Options;
use graft_train::{Config, Curve, Duration, Observer, Order, Report, data::Text};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// Train adapters on text or tensors
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// A TOML file of flags, such as `lr = 1e-3` and `export = ["merged.onnx"]`; those of the command line win
    #[arg(short, long, value_name = "FILE")]
    // Nothing reads it here: the file's flags are put in before the command line is parsed.
    config: Option<PathBuf>,
    #[command(flatten)]
    adapter: AdapterFlags,
    /// Start from this adapter: method, rank, alpha and targets come from its configuration
    #[arg(long, value_name = "DIR")]
    init: Option<PathBuf>,
    #[command(flatten)]
    task: Task,
    #[command(flatten)]
    results: Results,
}

/// What is to be learnt, from what and how: all that does not depend on the adapter.
#[derive(clap::Args)]
pub(crate) struct Task {
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    objective: Objective,
    #[command(flatten)]
    course: Course,
    #[command(flatten)]
    machine: Machine,
}

/// What is learnt from.
#[derive(clap::Args)]
#[command(next_help_heading = "Data")]
struct Data {
    /// Training data: `.jsonl` (text with --tokenizer, or arrays), `.npz` or `.safetensors`
    #[arg(long)]
    data: PathBuf,
    /// Data to evaluate on
    #[arg(long)]
    eval: Option<PathBuf>,
    #[command(flatten)]
    text: TextFlags,
    /// The field or tensor that holds the label
    #[arg(long, default_value = "label")]
    label: String,
    /// In which order rows are taken
    #[arg(long, default_value = "shuffle", value_parser = ["shuffle", "sequential"])]
    order: String,
    /// Rows of a batch
    #[arg(long, default_value_t = 16)]
    batch: usize,
}

/// How text is read.
#[derive(clap::Args)]
pub(crate) struct TextFlags {
    /// The model's tokenizer.json
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// The field that holds the text
    #[arg(long, default_value = "text")]
    text: String,
    /// Tokens after which a text is cut off
    #[arg(long, default_value_t = 128)]
    max_length: usize,
}

impl TextFlags {
    /// How sentences become tokens, where they are to.
    pub(crate) fn reading(&self) -> Option<Text<'_>> {
        let tokenizer = self.tokenizer.as_ref()?;
        Some(Text { tokenizer, field: &self.text, max_length: self.max_length })
    }
}

/// What is minimised.
#[derive(clap::Args)]
#[command(next_help_heading = "Objective")]
pub(crate) struct Objective {
    /// A new head: `classify:CLASSES[,pool=mean|cls|none][,from=OUTPUT]`
    #[arg(long)]
    head: Option<String>,
    /// The loss
    #[arg(long, value_parser = ["cross-entropy", "mse", "causal-lm", "bce", "none"])]
    loss: String,
    /// The output that the loss reads; the model's only float output by default
    #[arg(long, value_name = "OUTPUT", conflicts_with = "head")]
    logits: Option<String>,
}

/// How the weights change.
#[derive(clap::Args)]
#[command(next_help_heading = "Course")]
struct Course {
    /// Passes over the data [default: 3]
    #[arg(long, conflicts_with = "steps")]
    epochs: Option<u64>,
    /// Steps, in place of epochs
    #[arg(long)]
    steps: Option<u64>,
    #[command(flatten)]
    rule: Rule,
    /// The highest learning rate
    #[arg(long, default_value_t = 2e-4, allow_negative_numbers = true)]
    lr: f64,
    /// How the learning rate changes: constant, linear or cosine
    #[arg(long, default_value = "constant")]
    schedule: String,
    /// The share of the steps over which the learning rate rises
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    warmup: f64,
    /// Batches whose gradients are averaged for one step
    #[arg(long, default_value_t = 1, value_name = "K")]
    accumulate: usize,
    /// Evaluate every N steps (default: after each epoch, and at the end)
    #[arg(long, value_name = "N", requires = "eval")]
    eval_every: Option<u64>,
    /// Stop after N evaluations without improvement
    #[arg(long, value_name = "N", requires = "eval")]
    patience: Option<u64>,
    /// Keep the adapter of the best evaluation, not the last
    #[arg(long, requires = "eval")]
    keep_best: bool,
}

/// How one step changes the weights.
#[derive(clap::Args)]
pub(crate) struct Rule {
    /// The optimiser
    #[arg(long, default_value = "adamw", value_parser = ["adamw", "sgd"])]
    optimizer: String,
    /// Decoupled weight decay
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true)]
    weight_decay: f64,
    /// The largest global norm of the gradients; 0 for no limit
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    clip: f64,
    /// The seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What is written.
#[derive(clap::Args)]
#[command(next_help_heading = "Results")]
struct Results {
    /// The folder that receives adapter, metrics, curve and state
    #[arg(long)]
    out: PathBuf,
    /// Go on from the state in --out
    #[arg(long)]
    resume: bool,
    /// Replace what is in --out
    #[arg(long, conflicts_with = "resume")]
    force: bool,
    /// Say what the run would be like, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print how the run ended as one JSON object
    #[arg(long)]
    json: bool,
    /// Save the state every N steps (default: after each epoch, and at the end)
    #[arg(long, value_name = "N")]
    save_every: Option<u64>,
    /// Write the gradients of one step, before clipping, under the adapter file's names
    #[arg(long, value_name = "STEP=FILE")]
    dump_grads: Option<String>,
    /// Write the model too, with its head (repeatable): `adapted=FILE` has the adapter beside the weights, `merged=FILE`
    /// folded into them; a FILE whose name ends in `adapted` or `merged` (`out/bert-merged.onnx`) needs no more
    #[arg(long, value_name = "[FORM=]FILE")]
    export: Vec<String>,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let start = Instant::now();
        let config = self.config()?;
        let model = model::load(&self.model, ui)?;
        if self.results.dry_run {
            graft_train::plan(&model, &config, &mut Plan(ui))?;
            return ui.out("dry run: nothing was written\n");
        }
        let mut progress = Progress::new(ui);
        let report = graft_train::run(&model, &config, &mut progress);
        progress.finish();
        let report = report?;
        if self.results.json {
            return ui.json(&json(&report, start.elapsed().as_secs_f64()));
        }
        let loss = report.loss.map_or_else(String::new, |loss| format!(", loss {loss:.6}"));
        let evaluation = report.evaluation.map_or_else(String::new, |e| format!("; {e}"));
        ui.out(&format!("{} steps{loss}{evaluation}; results in {}\n", report.steps, config.out.display()))
    }

    fn config(&self) -> Result<Config> {
        let results = &self.results;
        Ok(Config {
            inject: self.adapter.options_or_none()?,
            init: self.init.clone(),
            resume: results.resume,
            force: results.force,
            save_every: results.save_every,
            dump_grads: results.dump_grads.as_deref().map(dump).transpose()?,
            exports: results.export.iter().map(|text| text.parse()).collect::<Result<_>>()?,
            ..self.task.config(&results.out)?
        })
    }
}

impl Objective {
    /// The configuration of a run that minimises this.
    pub(crate) fn config(&self, config: Config) -> Result<Config> {
        Ok(Config {
            head: self.head.as_deref().map(head).transpose()?,
            loss: self.loss.clone(),
            logits: self.logits.clone(),
            ..config
        })
    }
}

impl Rule {
    /// The configuration of a run whose steps are made by this.
    pub(crate) fn config(&self, config: Config) -> Config {
        Config {
            optimizer: self.optimizer.clone(),
            weight_decay: self.weight_decay,
            clip: (self.clip != 0.0).then_some(self.clip),
            seed: self.seed,
            ..config
        }
    }
}

impl Task {
    /// A run of a fresh LoRA with all defaults, whose results go to `out`.
    pub(crate) fn config(&self, out: &Path) -> Result<Config> {
        let (data, objective, course) = (&self.data, &self.objective, &self.course);
        let duration = match (course.epochs, course.steps) {
            (_, Some(steps)) => Duration::Steps(steps),
            (epochs, None) => Duration::Epochs(epochs.unwrap_or(3)),
        };
        let config = Config {
            eval: data.eval.clone(),
            tokenizer: data.text.tokenizer.clone(),
            text: data.text.text.clone(),
            label: data.label.clone(),
            max_length: data.text.max_length,
            duration,
            batch: data.batch,
            accumulate: course.accumulate,
            order: if data.order == "shuffle" { Order::Shuffle } else { Order::Sequential },
            lr: course.lr,
            schedule: course.schedule.parse::<Curve>()?,
            warmup: course.warmup,
            precision: self.machine.precision,
            device: self.machine.device,
            threads: self.machine.threads,
            eval_every: course.eval_every,
            patience: course.patience,
            keep_best: course.keep_best,
            ..Config::new(&data.data, out, &objective.loss)
        };
        Ok(course.rule.config(objective.config(config)?))
    }
}

/// How a run ended, how long it took (in seconds), and what memory it needed.
fn json(report: &Report, seconds: f64) -> serde_json::Value {
    let best = report.best.map(|(loss, step)| json!({"step": step, "eval_loss": loss}));
    json!({"schema": "graft.train/1", "steps": report.steps, "loss": report.loss, "evaluation": report.evaluation,
        "best": best, "seconds": seconds, "rss_mb": memory::peak_rss_mb()})
}

/// Shows what a run would be like: a result, so it goes to stdout.
struct Plan<'a>(&'a Ui);

impl Observer for Plan<'_> {
    fn note(&mut self, line: &str) {
        // A reader that is gone wants no more; anything else is reported by the last line.
        let _ = self.0.out(&format!("{line}\n"));
    }
}

/// `classify:2,pool=mean,from=OUTPUT` as options of the pass `head`.
fn head(text: &str) -> Result<Options> {
    let bad =
        || usage(format!("--head {text}: expected classify:CLASSES[,pool=mean|cls|none][,from=OUTPUT]"));
    let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
    let mut parts = rest.split(',');
    let classes = parts.next().ok_or_else(bad)?;
    let options = Options::default().with("kind", kind).with("classes", classes);
    parts.try_fold(options, |options, part| {
        let (key, value) = part.split_once('=').ok_or_else(bad)?;
        Ok(options.with(key, value))
    })
}

/// `STEP=FILE`.
fn dump(text: &str) -> Result<(u64, PathBuf)> {
    let bad = || usage(format!("--dump-grads {text}: expected STEP=FILE"));
    let (step, file) = text.split_once('=').ok_or_else(bad)?;
    Ok((step.parse().map_err(|_| bad())?, file.into()))
}
