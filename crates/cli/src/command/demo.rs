//! `graft demo`: the whole path on a small model and a corpus that are built in.
mod corpus;
mod report;

use crate::{
    command::{
        compare::{Comparison, Contest, Rules},
        inject::apply,
        run::Machine,
        verify,
    },
    model,
    progress::Progress,
    sample::Sampler,
    ui::Ui,
};
use bytes::Bytes;
use corpus::{CONTEXT, Corpus, rows};
use graft_exec::Session;
use graft_ir::{Code, Error, Graph, Result};
use graft_onnx::{Model, SaveOptions, atomic_write};
use graft_passes::{Options, inject::Inputs};
use graft_train::{Config, Curve, Duration, Init, Silent, trained};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// The language model; its source stands in `crates/cli/demo/README.md`.
const WHALE: &[u8] = include_bytes!("../../demo/whale.onnx");
/// What the model before and the model after are asked to continue.
const PROMPT: &str = "The people of ";
/// Bytes that follow the prompt.
const SAMPLE: u64 = 280;
/// Learning rates in the comparison of methods that LoRA's does not suit.
const RATES: [&str; 2] = ["bat=2e-3", "bone=2e-3"];
/// Rows of a batch.
const BATCH: usize = 16;
/// The highest learning rate.
const LEARNING_RATE: f64 = 5e-3;
/// The comparison's runs have so many times fewer steps.
const SHORTER: u64 = 5;
/// The largest max|a−b| / max|a| between the adapted and the merged model.
const TOLERANCE: f64 = 1e-4;

/// Adapt a language model that is built in: inject, train, merge, verify, compare the methods
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder that receives models, data, adapter and curve
    #[arg(long, default_value = "graft-demo")]
    out: PathBuf,
    /// Replace what an earlier demo left in --out
    #[arg(long)]
    force: bool,
    /// The adapter method; `graft methods` lists them
    #[arg(long, default_value = "lora")]
    method: String,
    /// Training steps
    #[arg(long, default_value_t = 300)]
    steps: u64,
    /// The seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    machine: Machine,
}

/// What the demo writes.
struct Files {
    base: PathBuf,
    train: PathBuf,
    held_out: PathBuf,
    /// The folder of the training run.
    adapter: PathBuf,
    adapted: PathBuf,
    merged: PathBuf,
    /// The folder of the comparison.
    comparison: PathBuf,
}

impl Files {
    fn new(out: &Path) -> Files {
        Files {
            base: out.join("whale.onnx"),
            train: out.join("train.safetensors"),
            held_out: out.join("held-out.safetensors"),
            adapter: out.join("adapter"),
            adapted: out.join("adapted.onnx"),
            merged: out.join("merged.onnx"),
            comparison: out.join("comparison"),
        }
    }
}

/// How a model does on the corpus.
struct Assessment {
    /// The mean loss on what was held out, in nats a byte.
    loss: f64,
    /// What it says.
    sample: String,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let files = Files::new(&self.out);
        let config = self.config(&files);
        config.check()?;
        let quiet = ui.quieter();
        let base = model::with_types(graft_onnx::decode(Bytes::from_static(WHALE), None)?)?;
        // What cannot be injected or merged is refused before anything is written.
        let fresh = apply("inject", self.method(), &base.graph, self.seed, &quiet)?;
        apply("merge", Options::default(), &fresh, self.seed, &quiet)?;
        let corpus = Corpus::new();
        self.write_data(&files, &corpus)?;
        ui.out(&report::introduction(&base.graph, &fresh, &corpus)?)?;

        let before = self.assess(&base.graph, &config)?;
        let adapted_loss = self.train(&base, &config, ui)?;
        let (adapter, log) = (Init::read(&files.adapter)?, &mut |line: &str| quiet.say(line));
        let adapted = trained::inject(&base.graph, &adapter, Inputs::None, log)?;
        let merged = trained::merge(&base.graph, &adapter, 1.0, log)?;
        let after = self.assess(&merged, &config)?;
        ui.out(&report::losses(before.loss, adapted_loss, after.loss))?;
        ui.out(&report::samples(&before.sample, &after.sample, ui))?;

        ui.out("\nmerged.onnx against adapted.onnx, on text that was held out\n")?;
        let feeds = [("input_ids".to_string(), rows(&corpus.held_out[..8 * CONTEXT]))];
        verify::report(&verify::compare(&adapted, &merged, &feeds)?, TOLERANCE, false, ui)?;
        self.save(&adapted, &base, &files.adapted)?;
        self.save(&merged, &base, &files.merged)?;

        let comparison = self.compare(&base, &files, ui)?;
        ui.out(&report::comparison(self.comparison_steps(), &comparison))?;
        comparison.check()?;
        ui.out(&report::farewell(&files, &self.out))
    }

    /// The adapter, with the method's own defaults.
    fn method(&self) -> Options {
        Options::default().with("method", &self.method)
    }

    fn config(&self, files: &Files) -> Config {
        Config {
            inject: Some(self.method()),
            eval: Some(files.held_out.clone()),
            duration: Duration::Steps(self.steps),
            batch: BATCH,
            lr: LEARNING_RATE,
            schedule: Curve::Cosine,
            warmup: 0.05,
            eval_every: Some(self.steps.div_ceil(5).max(1)),
            seed: self.seed,
            device: self.machine.device,
            precision: self.machine.precision,
            threads: self.machine.threads,
            force: self.force,
            ..Config::new(&files.train, &files.adapter, "causal-lm")
        }
    }

    /// Makes the folder, and puts model and data into it.
    fn write_data(&self, files: &Files, corpus: &Corpus) -> Result<()> {
        let failed = |e: std::io::Error| {
            Error::new(Code::IO, format!("the folder cannot be used: {e}")).at(self.out.display().to_string())
        };
        fs::create_dir_all(&self.out).map_err(failed)?;
        if !self.force && fs::read_dir(&self.out).map_err(failed)?.next().is_some() {
            let message = format!("`{}` is not empty", self.out.display());
            let help = "`--force` replaces what an earlier demo left there; `--out` names another folder";
            return Err(Error::new(Code::EXISTS, message).help(help));
        }
        atomic_write(&files.base, WHALE)?;
        for (path, text) in [(&files.train, corpus.train), (&files.held_out, corpus.held_out)] {
            graft_adapter::tensors::write(path, &BTreeMap::from([("input_ids".to_string(), rows(text))]))?;
        }
        Ok(())
    }

    /// Trains the adapter; its loss on what was held out.
    fn train(&self, base: &Model, config: &Config, ui: &Ui) -> Result<f64> {
        let start = Instant::now();
        let mut progress = Progress::terse(ui);
        let report = graft_train::run(base, config, &mut progress);
        progress.finish();
        let begins_anew = |e: Error| match e.code == Code::INTERRUPTED {
            true => e.help("`graft demo --force` begins anew"),
            false => e,
        };
        let report = report.map_err(begins_anew)?;
        ui.out(&report::training(report.steps, start.elapsed().as_secs_f64()))?;
        Ok(report.evaluation.map_or(f64::NAN, |e| e.eval_loss))
    }

    fn comparison_steps(&self) -> u64 {
        self.steps.div_ceil(SHORTER)
    }

    /// Trains every method for a short while, with as many parameters as LoRA has at its default rank.
    fn compare(&self, base: &Model, files: &Files, ui: &Ui) -> Result<Comparison> {
        let rules = Rules {
            graph: &base.graph,
            select: &Options::default(),
            budget: None,
            config: &self.config(files),
            rates: &RATES.map(String::from),
            ui,
        };
        let steps = self.comparison_steps();
        let [data, held_out] = [("--data", &files.train), ("--eval", &files.held_out)].map(|(flag, path)| {
            let mut flag = OsString::from(format!("{flag}="));
            flag.push(path);
            flag
        });
        let course = format!(
            "--loss=causal-lm --steps={steps} --batch={BATCH} --schedule=cosine --warmup=0.05 --eval-every={}",
            steps.div_ceil(6)
        );
        let threads = self.machine.threads.map(|n| format!("--threads={n}").into());
        let course = course.split(' ').map(OsString::from).chain(threads);
        let contest = Contest {
            model: files.base.clone(),
            flags: [data, held_out].into_iter().chain(course).collect(),
            select: Vec::new(),
            entries: rules.entries("all")?,
            seeds: self.seed..self.seed.saturating_add(1),
            keeps_best: false,
            out: files.comparison.clone(),
            force: self.force,
        };
        let comparison = contest.run(&ui.quieter())?;
        comparison.write(&files.comparison)?;
        Ok(comparison)
    }

    /// Evaluates a model as it is, and lets it speak.
    fn assess(&self, graph: &Graph, config: &Config) -> Result<Assessment> {
        let loss = graft_train::evaluate(graph, config, &mut Silent)?.eval_loss;
        let session = Session::new(graph, &[], &self.machine.options(false)?)?;
        // The last position had nothing to predict when the model was made.
        let mut sampler =
            Sampler { session, context: CONTEXT - 1, temperature: 0.5, top_k: 40, seed: self.seed };
        let sample = corpus::text(&sampler.continued(&corpus::tokens(PROMPT), SAMPLE)?);
        Ok(Assessment { loss, sample })
    }

    fn save(&self, graph: &Graph, base: &Model, path: &Path) -> Result<()> {
        let options = SaveOptions { force: self.force, ..SaveOptions::default() };
        graft_onnx::save(graph, Some(base), path, &options)
    }
}
