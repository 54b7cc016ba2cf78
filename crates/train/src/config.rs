//! The settings of a run: what the command `train` takes.
use crate::{
    export::{Export, Form},
    order::Order,
    schedule::Curve,
};
use graft_exec::{Device, Format};
use graft_ir::{Code, Error, Result};
use graft_passes::{
    Options,
    inject::{Method, peft},
};
use std::{collections::BTreeMap, path::PathBuf};

/// The settings of a run. [`Config::new`] has the defaults of the command line.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// What the user asks of the adapter: options of the pass `inject` (`method`, `rank`, `targets`, …). `None`: there is
    /// no adapter, and the head alone is trained.
    pub inject: Option<Options>,
    /// An adapter's directory to start from; method, rank, alpha and targets then come from its configuration.
    pub init: Option<PathBuf>,
    /// A new head: options of the pass `head`.
    pub head: Option<Options>,
    /// `cross-entropy`, `mse`, `bce`, `causal-lm` or `none`.
    pub loss: String,
    /// The output that the loss reads; the model's only float output by default.
    pub logits: Option<String>,
    /// The training data.
    pub data: PathBuf,
    /// The evaluation data.
    pub eval: Option<PathBuf>,
    /// A `tokenizer.json`, where the data is text.
    pub tokenizer: Option<PathBuf>,
    /// The field that holds the text.
    pub text: String,
    /// The field, tensor and graph input that holds the label.
    pub label: String,
    /// Longer sequences are cut to this many tokens.
    pub max_length: usize,
    /// How long the run lasts.
    pub duration: Duration,
    /// Rows of a batch.
    pub batch: usize,
    /// Batches whose gradients are averaged for one step.
    pub accumulate: usize,
    /// The order of the rows.
    pub order: Order,
    /// `adamw` or `sgd`.
    pub optimizer: String,
    /// The highest learning rate.
    pub lr: f64,
    /// How the learning rate changes.
    pub schedule: Curve,
    /// The share of the steps over which the learning rate rises.
    pub warmup: f64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// The largest global norm of the gradients.
    pub clip: Option<f64>,
    /// The seed of initial weights and of the order of the rows.
    pub seed: u64,
    /// How numbers between inputs and outputs are stored.
    pub precision: Format,
    /// Where to train.
    pub device: Device,
    /// Threads; all cores by default.
    pub threads: Option<usize>,
    /// The folder of the results.
    pub out: PathBuf,
    /// Go on with the run in `out`.
    pub resume: bool,
    /// Begin anew where `out` holds something.
    pub force: bool,
    /// Save every so many steps; each epoch and at the end by default.
    pub save_every: Option<u64>,
    /// Evaluate every so many steps; each epoch and at the end by default.
    pub eval_every: Option<u64>,
    /// Stop after so many evaluations without improvement.
    pub patience: Option<u64>,
    /// Write the adapter of the best evaluation, not the last.
    pub keep_best: bool,
    /// Write the gradients of a step, counted from 1, to a file.
    pub dump_grads: Option<(u64, PathBuf)>,
    /// Models to write at the end.
    pub exports: Vec<Export>,
}

/// How long a run lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Duration {
    /// So many passes over the data.
    Epochs(u64),
    /// So many steps.
    Steps(u64),
}

impl Config {
    /// A run with the defaults of the command line.
    pub fn new(data: impl Into<PathBuf>, out: impl Into<PathBuf>, loss: &str) -> Config {
        Config {
            inject: Some(Options::default()),
            init: None,
            head: None,
            loss: loss.into(),
            logits: None,
            data: data.into(),
            eval: None,
            tokenizer: None,
            text: "text".into(),
            label: "label".into(),
            max_length: 128,
            duration: Duration::Epochs(3),
            batch: 16,
            accumulate: 1,
            order: Order::Shuffle,
            optimizer: "adamw".into(),
            lr: 2e-4,
            schedule: Curve::Constant,
            warmup: 0.0,
            weight_decay: 0.01,
            clip: Some(1.0),
            seed: 0,
            precision: Format::F32,
            device: Device::Cpu,
            threads: None,
            out: out.into(),
            resume: false,
            force: false,
            save_every: None,
            eval_every: None,
            patience: None,
            keep_best: false,
            dump_grads: None,
            exports: Vec::new(),
        }
    }

    /// Refuses settings that make no sense, before anything is read.
    pub fn check(&self) -> Result<()> {
        let usage = |ok: bool, message: &str| if ok { Ok(()) } else { Err(Error::new(Code::USAGE, message)) };
        usage(self.batch > 0, "a batch has at least one row")?;
        usage(self.accumulate > 0, "at least one batch makes a step")?;
        usage(!matches!(self.duration, Duration::Epochs(0) | Duration::Steps(0)), "the run has no steps")?;
        usage(self.lr.is_finite() && self.lr > 0.0, "the learning rate must be a positive number")?;
        usage((0.0..=1.0).contains(&self.warmup), "the warm-up is a share of the steps, between 0 and 1")?;
        usage(
            self.weight_decay.is_finite() && self.weight_decay >= 0.0,
            "the weight decay must not be negative",
        )?;
        usage(self.clip.is_none_or(|c| c.is_finite() && c > 0.0), "the norm to clip to must be positive")?;
        usage(self.save_every != Some(0) && self.eval_every != Some(0), "an interval has at least one step")?;
        usage(
            !self.keep_best || self.eval.is_some(),
            "the best adapter cannot be kept without evaluation data",
        )?;
        usage(self.patience.is_none() || self.eval.is_some(), "stopping early needs evaluation data")?;
        usage(!(self.resume && self.force), "either go on with the run in the folder or begin anew")?;
        usage(self.threads != Some(0), "at least one thread is needed")?;
        self.check_adapter()?;
        // What this machine does not have is said before any work is done.
        self.session_options().check()
    }

    /// How sessions run.
    pub(crate) fn session_options(&self) -> graft_exec::Options {
        graft_exec::Options {
            threads: self.threads,
            device: self.device,
            format: self.precision,
            profile: false,
        }
    }

    /// Without an adapter there must be a head, and nothing that only an adapter has.
    fn check_adapter(&self) -> Result<()> {
        if self.inject.is_some() {
            return Ok(());
        }
        let usage = |message: &str, help: &str| Err(Error::new(Code::USAGE, message).help(help));
        if self.head.is_none() {
            let help = "give `--head classify:CLASSES`, or a method";
            return usage("without an adapter there must be a head to train", help);
        }
        if self.init.is_some() {
            return usage("an adapter to start from needs a method", "leave `--method none` out");
        }
        match self.exports.iter().find(|e| e.form == Form::Merged) {
            Some(_) => usage(
                "without an adapter there is nothing to merge",
                "`--export adapted=FILE` writes the model with its head",
            ),
            None => Ok(()),
        }
    }

    /// The options of `inject`: what the user asks for, joined with what the adapter to start from says; `None` where
    /// there is no adapter.
    ///
    /// An option that contradicts the adapter's configuration is a [`Code::USAGE`] error; settings that adapter files
    /// do not tell may be added.
    pub fn inject_options(&self, init: Option<&Options>) -> Result<Option<Options>> {
        let (Some(asked), Some(said)) = (&self.inject, init) else { return Ok(self.inject.clone()) };
        let method = Method::named(&said.get_or("method", "lora".to_string())?)?;
        let mut options = said.clone();
        for (key, values) in asked.iter() {
            let setting = method.settings.iter().find(|s| s.name == key);
            let default: Vec<String> = setting.map(|s| s.default.to_string()).into_iter().collect();
            let given = if said.all(key).is_empty() { &default[..] } else { said.all(key) };
            if setting.is_some() && !peft::is_told(method, key) {
                options = values.iter().fold(options, |options, value| options.with(key, value));
            } else if !same(given, values) {
                let given = match given {
                    [] => "does not set it".to_string(),
                    all => format!("says `{}`", all.join("`, `")),
                };
                let message =
                    format!("`{key}` is `{}`, but the adapter's configuration {given}", values.join("`, `"));
                return Err(Error::new(Code::USAGE, message).help("leave it out: it comes with `--init`"));
            }
        }
        Ok(Some(options))
    }

    /// Everything that the course of the run depends on, as text; data and model are added by their fingerprints.
    ///
    /// Threads, device, places of files and intervals of saving are left out: they do not change a byte.
    pub(crate) fn settings(&self, inject: Option<&Options>) -> BTreeMap<String, String> {
        let mut settings = BTreeMap::new();
        let mut put = |key: &str, value: String| drop(settings.insert(key.to_string(), value));
        put("adapter", inject.is_some().to_string());
        for (name, options) in [("inject", inject), ("head", self.head.as_ref())] {
            for (key, values) in options.into_iter().flat_map(Options::iter) {
                put(&format!("{name}.{key}"), values.join(" "));
            }
        }
        put("loss", self.loss.clone());
        put("label", self.label.clone());
        if let Some(logits) = &self.logits {
            put("logits", logits.clone());
        }
        put("text", self.text.clone());
        put("max-length", self.max_length.to_string());
        put("duration", format!("{:?}", self.duration));
        put("batch", self.batch.to_string());
        put("accumulate", self.accumulate.to_string());
        put("order", format!("{:?}", self.order));
        put("optimizer", self.optimizer.clone());
        put("lr", self.lr.to_string());
        put("schedule", self.schedule.to_string());
        put("warmup", self.warmup.to_string());
        put("weight-decay", self.weight_decay.to_string());
        put("clip", self.clip.map_or("none".into(), |c| c.to_string()));
        put("seed", self.seed.to_string());
        put("precision", self.precision.to_string());
        if self.eval.is_some() {
            put("eval-every", self.eval_every.map_or("epoch".into(), |n| n.to_string()));
            put("patience", self.patience.map_or("none".into(), |n| n.to_string()));
            put("keep-best", self.keep_best.to_string());
        }
        settings
    }
}

/// Whether two lists of values say the same: equal as numbers, or as text.
fn same(a: &[String], b: &[String]) -> bool {
    let equal = |a: &String, b: &String| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
}

impl std::str::FromStr for Order {
    type Err = Error;
    fn from_str(text: &str) -> Result<Order> {
        match text {
            "shuffle" => Ok(Order::Shuffle),
            "sequential" => Ok(Order::Sequential),
            _ => Err(Error::new(Code::USAGE, format!("there is no order `{text}`"))
                .help("orders: `shuffle`, `sequential`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_must_not_contradict_the_adapter() {
        let init = Options::default().with("method", "lora").with("rank", 4).with("targets", "query");
        let mut config = Config::new("d.npz", "out", "mse");
        assert_eq!(config.inject_options(Some(&init)).unwrap(), Some(init.clone()));
        let again = Options::default().with("rank", "4.0").with("targets", "query").with("rslora", "false");
        config.inject = Some(again);
        assert_eq!(config.inject_options(Some(&init)).unwrap(), Some(init.clone()));
        config.inject = Some(Options::default().with("rank", 8));
        let error = config.inject_options(Some(&init)).unwrap_err();
        assert_eq!(error.code, Code::USAGE);
        assert!(error.message.contains("`rank` is `8`") && error.message.contains("says `4`"), "{error}");
        config.inject = Some(Options::default().with("rslora", "true"));
        assert_eq!(config.inject_options(Some(&init)).unwrap_err().code, Code::USAGE);
    }

    #[test]
    fn settings_that_files_do_not_tell_may_be_added() {
        let init = Options::default().with("method", "salora").with("rank", 1);
        let inject = Some(Options::default().with("draw", "0.3"));
        let config = Config { inject, ..Config::new("d.npz", "out", "mse") };
        assert_eq!(config.inject_options(Some(&init)).unwrap(), Some(init.with("draw", "0.3")));
    }

    #[test]
    fn nonsense_is_refused() {
        let good = Config::new("d.npz", "out", "mse");
        let headed = Config { head: Some(Options::default()), ..good.clone() };
        assert!(good.check().is_ok() && headed.check().is_ok());
        assert!(Config { inject: None, ..headed.clone() }.check().is_ok());
        for (bad, code) in [
            (Config { batch: 0, ..good.clone() }, Code::USAGE),
            (Config { lr: f64::NAN, ..good.clone() }, Code::USAGE),
            (Config { warmup: 1.5, ..good.clone() }, Code::USAGE),
            (Config { clip: Some(0.0), ..good.clone() }, Code::USAGE),
            (Config { duration: Duration::Steps(0), ..good.clone() }, Code::USAGE),
            (Config { keep_best: true, ..good.clone() }, Code::USAGE),
            (Config { resume: true, force: true, ..good.clone() }, Code::USAGE),
            (Config { inject: None, ..good.clone() }, Code::USAGE),
            (Config { inject: None, init: Some("a".into()), ..headed.clone() }, Code::USAGE),
            (
                Config { inject: None, exports: vec!["merged.onnx".parse().unwrap()], ..headed.clone() },
                Code::USAGE,
            ),
            (Config { precision: Format::Bf16, ..good.clone() }, Code::DEVICE),
        ] {
            assert_eq!(bad.check().unwrap_err().code, code, "{bad:?}");
        }
    }

    #[test]
    fn every_setting_that_changes_the_run_is_compared() {
        let good = Config::new("d.npz", "out", "mse");
        let settings = |c: &Config| c.settings(c.inject.as_ref());
        for other in [
            Config { lr: 1.0, ..good.clone() },
            Config { seed: 1, ..good.clone() },
            Config { batch: 1, ..good.clone() },
            Config { clip: None, ..good.clone() },
            Config { inject: Some(Options::default().with("rank", 2)), ..good.clone() },
            Config { inject: None, ..good.clone() },
            Config { head: Some(Options::default().with("classes", 2)), ..good.clone() },
            Config { duration: Duration::Steps(3), ..good.clone() },
        ] {
            assert_ne!(settings(&other), settings(&good));
        }
        let same = Config { threads: Some(3), save_every: Some(1), out: "elsewhere".into(), ..good.clone() };
        assert_eq!(settings(&same), settings(&good));
    }
}
