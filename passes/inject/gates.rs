//! How SaLoRA's gates are driven to a budget, which falls to the target: a Lagrange multiplier rises while the expected
//! number of open gates is not the budget, and of the gates that are left, the least likely to be open are closed for
//! good when there are more than the budget. The multiplier alone drives all gates to one probability, at which as many
//! may be open as none. At the end, those go that are closed where nothing is drawn.
//!
//! The multiplier's ascent, the budget's ramp and the cut at the end are the paper's, as far as its survey tells them;
//! closing gates for good on the way is not: it makes the budget one that is kept, and not approached, at the price
//! that a gate which is closed early cannot come back.
use super::{
    Config, Schedule,
    schedule::{Beginning, Control, Course, Ranks},
};
use graft_ir::Result;

pub(super) const BUDGET: Schedule = Schedule { start, decide, holds: true, zeroes: Some("b") };

/// The settings of the penalty.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Rule {
    target: Option<usize>,
    penalty: f64,
    /// The weight of the orthogonality term.
    pub(super) orth: f64,
    ramp: f64,
}

impl Rule {
    /// `None` where nothing is penalised.
    pub(super) fn new(config: &Config) -> Result<Option<Rule>> {
        let target = Some(config.get::<usize>("target_rank")?).filter(|&target| target > 0);
        let weight = |key: &str, with_target: f64| match config.text(key) {
            "" => Ok(if target.is_some() { with_target } else { 0.0 }),
            _ => match config.get::<f64>(key)? {
                given if given >= 0.0 && given.is_finite() => Ok(given),
                _ => Err(config.bad(key, "is negative or no number")),
            },
        };
        let rule = Rule {
            target,
            penalty: weight("penalty", 1.0)?,
            orth: weight("orth", 0.1)?,
            ramp: config.get("ramp")?,
        };
        if !(0.0..=1.0).contains(&rule.ramp) {
            return Err(config.bad("ramp", "is no share between 0 and 1"));
        }
        if target.is_some_and(|target| target > config.rank) {
            return Err(config.bad("target_rank", &format!("is more than the rank {}", config.rank)));
        }
        if target.is_none() && rule.penalty > 0.0 {
            return Err(config.bad("penalty", "needs a `target_rank` to drive the gates to"));
        }
        Ok((target.is_some() || rule.orth > 0.0).then_some(rule))
    }

    /// The budget in the step after `step`, of `all` gates in `linears` adapters.
    fn budget(&self, step: u64, total: u64, all: usize, linears: usize) -> f64 {
        let target = self.target.map_or(all, |target| target * linears) as f64;
        let ramp = (self.ramp * total as f64).max(1.0);
        let left = (1.0 - step as f64 / ramp).max(0.0);
        target + (all as f64 - target) * left
    }
}

fn start(course: &Course<'_>, adapters: &[Beginning]) -> Result<Control> {
    let layers: Vec<Ranks> = adapters.iter().map(|a| Ranks::first(a.width, a.width)).collect();
    let all = adapters.iter().map(|a| a.width).sum();
    let Some(rule) = Rule::new(course.config)? else { return Ok(Control { layers, ..Control::default() }) };
    let budget = rule.budget(0, course.total, all, layers.len());
    Ok(Control { scalars: vec![("lambda", rule.penalty), ("budget", budget)], layers, ..Control::default() })
}

/// `lambda ← lambda + lr·(Σ p − budget)²` with the probabilities p that gates are open.
fn decide(course: &Course<'_>, control: &Control, statistics: &[Vec<f64>]) -> Result<Control> {
    let mut next = Control { zeroes_now: false, ..control.clone() };
    let Some(rule) = Rule::new(course.config)? else { return Ok(next) };
    let gates = gates(control, statistics);
    let expected: f64 = gates.iter().map(|gate| gate.open).sum();
    let scalar = |name: &str| control.scalars.iter().find(|s| s.0 == name).map_or(0.0, |s| s.1);
    let lambda = match rule.penalty {
        // Without a multiplier to begin with there is none.
        0.0 => 0.0,
        _ => scalar("lambda") + course.lr * (expected - scalar("budget")).powi(2),
    };
    let all = control.layers.iter().map(|ranks| ranks.active.len()).sum();
    let budget = rule.budget(course.step, course.total, all, control.layers.len());
    next.scalars = vec![("lambda", lambda), ("budget", budget)];
    let ends = course.step == course.total && rule.target.is_some();
    for (i, gate) in gates.iter().enumerate() {
        let is_closed = i >= budget.ceil() as usize || ends && gate.open <= 0.5;
        next.layers[gate.layer].active[gate.rank] = !is_closed;
        next.zeroes_now |= is_closed;
    }
    Ok(next)
}

/// A gate that is not closed for good.
struct Gate {
    layer: usize,
    rank: usize,
    /// The probability that it is open.
    open: f64,
}

/// The gates that are left, the likeliest first.
fn gates(control: &Control, statistics: &[Vec<f64>]) -> Vec<Gate> {
    let mut gates = Vec::new();
    for (layer, (ranks, of_layer)) in control.layers.iter().zip(statistics).enumerate() {
        let left = of_layer.iter().enumerate().filter(|(rank, _)| ranks.active[*rank]);
        gates.extend(left.map(|(rank, &open)| Gate { layer, rank, open }));
    }
    gates.sort_by(|a, b| b.open.total_cmp(&a.open));
    gates
}

#[cfg(test)]
mod tests {
    use super::super::Method;
    use super::*;

    fn config(settings: &[(&str, &str)]) -> Config {
        let settings = settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Config::new(Method::named("salora").unwrap(), 4, 8.0, settings)
    }

    fn scalar(control: &Control, name: &str) -> f64 {
        control.scalars.iter().find(|s| s.0 == name).unwrap().1
    }

    #[test]
    fn the_budget_falls_the_multiplier_rises_and_the_least_likely_gates_close() {
        let config = config(&[("target_rank", "2"), ("ramp", "0.5"), ("penalty", "3")]);
        let at = |step| Course { config: &config, step, total: 100, lr: 0.25 };
        let control = start(&at(0), &[4, 4].map(Beginning::wide)).unwrap();
        assert_eq!((scalar(&control, "lambda"), scalar(&control, "budget")), (3.0, 8.0));
        let open = [vec![0.6, 0.5, 0.4, 0.5], vec![1.0; 4]];
        let next = decide(&at(25), &control, &open).unwrap();
        // λ + ¼·(6 − 8)², and half way from 8 to 2·2.
        assert_eq!((scalar(&next, "lambda"), scalar(&next, "budget")), (4.0, 6.0));
        assert_eq!(next.layers[0].active, [true, true, false, false]);
        assert!(next.zeroes_now);
        // What is closed counts no longer: λ + ¼·(5.1 − 6)².
        let later = decide(&at(80), &next, &open).unwrap();
        assert!((scalar(&later, "lambda") - 4.0 - 0.25 * 0.81).abs() < 1e-12);
        assert_eq!((scalar(&later, "budget"), later.total()), (4.0, 4));
        assert_eq!(later.layers[0].count(), 0);
    }

    #[test]
    fn at_the_end_gates_that_are_closed_go() {
        let config = config(&[("target_rank", "2")]);
        let at = |step| Course { config: &config, step, total: 100, lr: 0.0 };
        let control = start(&at(0), &[4, 4].map(Beginning::wide)).unwrap();
        let open = [vec![0.9, 0.2, 0.8, 0.5], vec![0.1, 0.4, 0.1, 0.1]];
        let before = decide(&at(99), &control, &open).unwrap();
        assert_eq!(before.total(), 4);
        let end = decide(&at(100), &before, &open).unwrap();
        assert_eq!(end.layers[0].active, [true, false, true, false]);
        assert_eq!(end.layers[1].active, [false; 4]);
    }

    #[test]
    fn what_the_settings_ask_for() {
        let rule = |settings: &[(&str, &str)]| Rule::new(&config(settings));
        assert_eq!(rule(&[]).unwrap(), None);
        assert_eq!(rule(&[("penalty", "0")]).unwrap(), None);
        assert_eq!(rule(&[("orth", "0.5")]).unwrap().map(|r| (r.orth, r.penalty)), Some((0.5, 0.0)));
        let with_target = rule(&[("target_rank", "2")]).unwrap().map(|r| (r.orth, r.penalty));
        assert_eq!(with_target, Some((0.1, 1.0)));
        for bad in [("target_rank", "5"), ("penalty", "1"), ("orth", "-1"), ("ramp", "2")] {
            let error = rule(&[bad]).expect_err(bad.0);
            assert!(error.message.contains(bad.0), "{error}");
        }
    }
}
