//! What takes part in a comparison: a method with its settings, and the rank that its budget gives it.
use crate::{ui::Ui, usage};
use graft_adapter::NO_METHOD;
use graft_ir::{Graph, Result};
use graft_passes::{
    Options,
    inject::{
        METHODS, Method,
        budget::{self, Size},
    },
};
use graft_train::{Config, experts};
use std::ffi::OsString;

/// More than this share of the budget apart is worth a warning.
const NEAR: f64 = 0.1;

/// A method with its settings, sized to the budget.
pub(crate) struct Entry {
    /// How it was asked for: `lora`, `hydra+experts=4`.
    pub(crate) label: String,
    /// The method's name, or [`NO_METHOD`].
    pub(crate) method: String,
    /// Its settings, as `--set` has them.
    pub(crate) settings: Vec<(String, String)>,
    /// The rank; `None` without an adapter.
    pub(crate) rank: Option<usize>,
    /// The numerator of the scale, where the method has one.
    pub(crate) alpha: Option<f64>,
    /// Trainable parameters of its adapters; where their ranks come and go, at their widest.
    pub(crate) parameters: usize,
    /// Whether they do.
    pub(crate) adapts: bool,
    /// What they were to be.
    pub(crate) budget: usize,
    /// The highest learning rate.
    pub(crate) lr: f64,
}

/// What all entries are made by.
pub(crate) struct Rules<'a> {
    /// The model.
    pub(crate) graph: &'a Graph,
    /// The options of the pass `inject` that select linears.
    pub(crate) select: &'a Options,
    /// Trainable parameters; those of LoRA at its default rank where none are given.
    pub(crate) budget: Option<usize>,
    /// What all runs share: the learning rate of methods that have none of their own, the text that heads are counted by.
    pub(crate) config: &'a Config,
    /// `METHOD=LR`, or `LABEL=LR`.
    pub(crate) rates: &'a [String],
    /// Who is told what was chosen.
    pub(crate) ui: &'a Ui,
}

impl Rules<'_> {
    /// The entries of a list, or of the word `all`.
    pub(crate) fn entries(&self, list: &str) -> Result<Vec<Entry>> {
        let all: Vec<&str> = METHODS.iter().map(|m| m.name).collect();
        let labels: Vec<&str> = if list == "all" { all } else { list.split(',').map(str::trim).collect() };
        if let Some(twice) = labels.iter().enumerate().find_map(|(i, l)| labels[..i].contains(l).then_some(l))
        {
            return Err(usage(format!("--methods: `{twice}` is there twice")));
        }
        let budget = match self.budget {
            Some(budget) => budget,
            None => budget::size(self.graph, self.select)?.parameters,
        };
        let entries: Vec<Entry> = labels.iter().map(|l| self.entry(l, budget)).collect::<Result<_>>()?;
        self.check_rates(&entries)?;
        Ok(entries)
    }

    fn entry(&self, label: &str, budget: usize) -> Result<Entry> {
        let mut parts = label.split('+');
        let method = parts.next().unwrap_or_default().to_string();
        let pair = |part: &str| {
            let bad = || usage(format!("--methods {label}: expected METHOD[+KEY=VALUE…]"));
            part.split_once('=').map(|(k, v)| (k.to_string(), v.to_string())).ok_or_else(bad)
        };
        let settings: Vec<(String, String)> = parts.map(pair).collect::<Result<_>>()?;
        let lr = self.rate(label, &method)?;
        let mut entry = Entry {
            label: label.into(),
            method,
            settings,
            rank: None,
            alpha: None,
            parameters: 0,
            adapts: false,
            budget,
            lr,
        };
        if entry.method == NO_METHOD {
            return match entry.settings.is_empty() {
                true => Ok(entry),
                false => Err(usage(format!("--methods {label}: without an adapter there are no settings"))),
            };
        }
        let method = Method::named(&entry.method)?;
        let given = entry.options(self.select).unwrap_or_default();
        let given = experts::settled(given, self.config, &mut { *self.ui })?;
        for (key, value) in &mut entry.settings {
            given.all(key).last().into_iter().for_each(|settled| value.clone_from(settled));
        }
        let Size { rank, parameters, scale } = budget::within(self.graph, &given, budget)?;
        // The scale stays that of the method's default rank: what is compared is the method, not its scale. Ranks that grow
        // to fewer than that are scaled by what they grow to.
        if let (Some(alpha), Some(scale)) = (method.alpha, scale) {
            let default = budget::size(self.graph, &given).ok().and_then(|size| size.scale);
            entry.alpha = Some(alpha * default.unwrap_or(scale) / scale);
        }
        (entry.rank, entry.parameters) = (Some(rank), parameters);
        entry.adapts = budget::adapts(self.graph, &given.with("rank", rank))?;
        Ok(entry)
    }

    /// The learning rate: that of the label, else that of the method, else that of all.
    fn rate(&self, label: &str, method: &str) -> Result<f64> {
        let named = |name: &str| self.rates.iter().find_map(|text| rate(text, name));
        match named(label).or_else(|| named(method)) {
            None => Ok(self.config.lr),
            Some(text) => text
                .parse()
                .ok()
                .filter(|lr: &f64| lr.is_finite() && *lr > 0.0)
                .ok_or_else(|| usage(format!("--method-lr: `{text}` is not a positive number"))),
        }
    }

    /// Refuses learning rates that nothing takes.
    fn check_rates(&self, entries: &[Entry]) -> Result<()> {
        let is_taken = |text: &&String| {
            entries.iter().any(|e| rate(text, &e.label).is_some() || rate(text, &e.method).is_some())
        };
        match self.rates.iter().find(|text| !is_taken(text)) {
            Some(text) => {
                let labels: Vec<&str> = entries.iter().map(|e| e.label.as_str()).collect();
                let message =
                    format!("--method-lr {text}: expected METHOD=LR with a method that is compared");
                Err(usage(message).help(format!("these are: `{}`", labels.join("`, `"))))
            }
            None => Ok(()),
        }
    }
}

/// The number in `NAME=NUMBER`, for this name.
fn rate<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.rsplit_once('=').filter(|(given, _)| *given == name).map(|(_, number)| number)
}

impl Entry {
    /// The options of the pass `inject` that make its adapters; `None` without one.
    pub(crate) fn options(&self, select: &Options) -> Option<Options> {
        if self.method == NO_METHOD {
            return None;
        }
        let settings = self.settings.iter();
        let options = settings.fold(select.clone(), |options, (key, value)| options.with(key, value));
        let options = self.rank.iter().fold(options, |options, rank| options.with("rank", rank));
        let options = self.alpha.iter().fold(options, |options, alpha| options.with("alpha", alpha));
        Some(options.with("method", &self.method))
    }

    /// The same as flags of `graft train`; `select` are those that select linears.
    pub(crate) fn flags(&self, select: &[OsString]) -> Vec<OsString> {
        let mut flags: Vec<OsString> = vec![format!("--method={}", self.method).into()];
        if self.method != NO_METHOD {
            flags.extend(select.iter().cloned());
        }
        flags.extend(self.rank.map(|rank| format!("--rank={rank}").into()));
        flags.extend(self.alpha.map(|alpha| format!("--alpha={alpha}").into()));
        flags.extend(self.settings.iter().map(|(key, value)| format!("--set={key}={value}").into()));
        flags.push(format!("--lr={}", self.lr).into());
        flags
    }

    /// What should be known of its size.
    pub(crate) fn warning(&self) -> Option<String> {
        let apart = self.parameters.abs_diff(self.budget) as f64 / self.budget.max(1) as f64;
        (self.rank.is_some() && apart > NEAR).then(|| {
            let when = if self.adapts { " at its widest" } else { "" };
            format!(
                "`{}` has {} trainable parameters{when}, not {}: no rank that suits the linears comes nearer",
                self.label, self.parameters, self.budget
            )
        })
    }

    /// The name of the folder of its runs.
    pub(crate) fn folder(&self) -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "+=.-".contains(c);
        self.label.chars().map(|c| if is_plain(c) { c } else { '_' }).collect()
    }
}
