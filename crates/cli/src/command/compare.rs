//! `graft compare`: trains several methods on the same data, with the same seeds and about as many trainable parameters.
mod entry;
mod page;
mod report;
mod runs;

pub(crate) use entry::{Entry, Rules};
pub(crate) use report::{Comparison, PAGE_FILE};
pub(crate) use runs::Contest;

use crate::{
    command::{inject::apply, targets::Select, train::Task},
    model,
    spelled::Spelled,
    ui::{self, Ui},
    usage,
};
use graft_ir::{Code, Error, Result};
use graft_passes::Options;
use graft_train::{Config, Silent};
use std::path::{Path, PathBuf};

/// Train several methods on the same data, at equal sizes
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// A TOML file of flags, as for `train`; those of the command line win
    #[arg(short, long, value_name = "FILE")]
    // Nothing reads it here: the file's flags are put in before the command line is parsed.
    config: Option<PathBuf>,
    /// What to compare: `all`, or methods with their settings, such as `lora,lora+dora=true,hydra+experts=4`; `none` trains
    /// the head alone
    #[arg(long, default_value = "all", value_name = "METHOD[+KEY=VALUE…],…")]
    methods: String,
    /// Trainable parameters of the adapters, the head aside; each method gets the rank that comes nearest. By default those
    /// of LoRA at its default rank
    #[arg(long, value_name = "PARAMETERS")]
    budget: Option<usize>,
    /// How many seeds each method is trained with, from --seed on
    #[arg(long, default_value_t = 3, value_name = "N")]
    seeds: u64,
    /// The highest learning rate of one method, in place of --lr (repeatable)
    #[arg(long, value_name = "METHOD=LR")]
    method_lr: Vec<String>,
    #[command(flatten)]
    select: Spelled<Select>,
    #[command(flatten)]
    task: Spelled<Task>,
    /// The folder that receives the comparison (`comparison.html`, `comparison.json`) and every run
    #[arg(long)]
    out: PathBuf,
    /// Replace what is in --out
    #[arg(long)]
    force: bool,
    /// Say which ranks the budget gives, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the comparison as one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        if self.seeds == 0 {
            return Err(usage("--seeds 0: at least one run is needed"));
        }
        let config = Config { force: self.force, ..self.task.parsed.config(&self.out)? };
        config.check()?;
        let model = model::load(&self.model, ui)?;
        let quiet = ui.quieter();
        let graph = apply("canonicalize", Options::default(), &model.graph, 0, &quiet)?;
        let options = self.select.parsed.options(Options::default());
        let rules =
            Rules { graph: &graph, select: &options, budget: self.budget, config: &config, rates: &self.method_lr, ui };
        let entries = rules.entries(&self.methods)?;
        entries.iter().filter_map(Entry::warning).for_each(|line| ui.warn(&line));
        let contest = Contest {
            model: self.model.clone(),
            flags: self.task.flags_without(&["lr", "seed"]).collect(),
            select: self.select.flags_without(&[]).collect(),
            entries,
            seeds: config.seed..config.seed.saturating_add(self.seeds),
            keeps_best: config.keep_best,
            out: self.out.clone(),
            force: self.force,
        };
        contest.check_folder()?;
        // What training would refuse is refused before anything is written.
        let first = Config { inject: contest.entries[0].options(&options), ..config.clone() };
        graft_train::plan(&model, &first, &mut Silent)?;
        if self.dry_run {
            return ui.out(&format!("{}dry run: nothing was written\n", plan(&contest.entries)));
        }
        let comparison = contest.run(ui)?;
        comparison.write(&self.out)?;
        match self.json {
            true => ui.json(&comparison.json())?,
            false => ui.out(&summary(&comparison, &self.out))?,
        }
        comparison.check()
    }
}

/// The ranks as a table.
fn plan(entries: &[Entry]) -> String {
    let row = |e: &Entry| {
        let rank = e.rank.map_or("-".into(), |rank| rank.to_string());
        vec![e.label.clone(), rank, ui::thousands(e.parameters as u64), e.lr.to_string()]
    };
    ui::table(&["method", "rank", "parameters", "lr"], &entries.iter().map(row).collect::<Vec<_>>())
}

fn summary(comparison: &Comparison, out: &Path) -> String {
    let page = out.join(PAGE_FILE);
    format!("{}curves and all numbers in {}\n", comparison.table(), page.display())
}

/// What it means that runs have failed.
fn failed(n: usize, of: usize) -> Error {
    Error::new(Code::RUNS, format!("{n} of {of} runs failed")).help("the report has the error of each")
}
