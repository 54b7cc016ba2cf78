//! What `inject` will do: for each chosen linear, the settings and weights of its adapter.
use super::{Config, Method, Parts, Variant, Weight, fit};
use crate::{Options, Selector, selector::PerModule, target::Linear};
use graft_ir::{Code, Error, Result, Tensor};
use std::collections::BTreeMap;

/// One linear and its adapter to be.
pub(super) struct Planned<'a> {
    pub(super) linear: &'a Linear,
    pub(super) config: Config,
    pub(super) variant: &'static Variant,
    pub(super) parts: Parts,
}

impl Planned<'_> {
    /// Whether each step of a training draws random numbers for it.
    pub(super) fn draws(&self) -> Result<bool> {
        Ok(self.parts.weights.iter().any(|w| w.is_drawn) || self.config.dropout()? > 0.0)
    }
}

/// Trainable parameters of all adapters; the uses of one module share theirs.
pub(super) fn parameters(plan: &[Planned<'_>]) -> usize {
    let modules = plan.iter().filter(|planned| planned.linear.nth_use == 0);
    modules.flat_map(|planned| &planned.parts.weights).map(Weight::parameters).sum()
}

/// The linears that `options` choose, in the order of the nodes, each with its settings.
///
/// Where trained weights are given and no `targets`, the linears are those that the weights are for. Beside trained
/// weights stand the paths of the model that they were trained on, which may be longer than those here.
pub(super) fn plan<'a>(
    method: &Method,
    linears: &'a [Linear],
    options: &Options,
    adapter: Option<&BTreeMap<String, Tensor>>,
) -> Result<Vec<Planned<'a>>> {
    let mut selector = Selector::new(options)?;
    let mut ranks = PerModule::<f64>::new(options, "rank-pattern")?;
    let mut alphas = PerModule::<f64>::new(options, "alpha-pattern")?;
    if adapter.is_some() {
        selector.shorten(linears);
        ranks.shorten(linears);
        alphas.shorten(linears);
    }
    let chosen = match adapter.filter(|_| options.all("targets").is_empty()) {
        Some(tensors) => fit::linears_of(method, linears, tensors)?,
        None => selector.select(linears)?,
    };
    let rank: f64 = options.get_or("rank", method.rank as f64)?;
    let alpha: f64 = options.get_or("alpha", method.alpha.unwrap_or(1.0))?;
    ranks.check(linears)?;
    alphas.check(linears)?;
    let given = |key| Some((key, options.all(key).last()?.clone()));
    let settings: Vec<(String, String)> =
        method.settings.iter().filter_map(|s| given(s.name)).map(|(k, v)| (k.to_string(), v)).collect();
    let planned = |linear: &'a Linear| {
        let rank = whole_rank(ranks.get(linear).unwrap_or(rank))?;
        let alpha = finite_alpha(alphas.get(linear).unwrap_or(alpha))?;
        let config = Config::new(method, rank, alpha, settings.clone());
        config.dropout()?;
        (method.schedule)(&config)?;
        (method.penalty)(&config, 1)?;
        let variant = method.variant(&config)?;
        Ok(Planned { linear, variant, parts: (method.parts)(linear, &config)?, config })
    };
    chosen.into_iter().map(planned).collect()
}

fn finite_alpha(alpha: f64) -> Result<f64> {
    let bad = || Error::new(Code::METHOD, format!("alpha {alpha}: expected a finite number"));
    if alpha.is_finite() { Ok(alpha) } else { Err(bad()) }
}

/// Adapter configurations write numbers as floats at times; a rank is whole and positive all the same.
fn whole_rank(rank: f64) -> Result<usize> {
    let is_whole = rank >= 1.0 && rank.fract() == 0.0 && rank <= f64::from(u32::MAX);
    let bad =
        || Error::new(Code::METHOD, format!("rank {rank}: expected a whole number from 1 to {}", u32::MAX));
    if is_whole { Ok(rank as usize) } else { Err(bad()) }
}
