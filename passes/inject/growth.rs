//! When and where Tri's ranks grow: the linears whose middle matrix has grown most, measured by its mean norm, since the
//! last event. <https://arxiv.org/abs/2501.08008>
use super::{
    Config, Schedule,
    schedule::{Beginning, Control, Course, Ranks},
};
use graft_ir::Result;

pub(super) const GROWTH: Schedule = Schedule { start, decide, holds: true, zeroes: None };

/// The settings of growth.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Rule {
    mode: Mode,
    /// The mean rank to be reached.
    pub(super) target: usize,
    /// The largest rank of one linear: the width of its weights.
    pub(super) max_rank: usize,
    warmup: u64,
    interval: u64,
    increment: usize,
    top: usize,
}

/// How many linears grow at an event.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mode {
    Linear,
    NonLinear,
    TopK,
}

impl Rule {
    /// `None` where nothing grows.
    pub(super) fn new(config: &Config) -> Result<Option<Rule>> {
        let mode = match config.text("growth") {
            "none" => return Ok(None),
            "linear" => Mode::Linear,
            "nonlinear" => Mode::NonLinear,
            "topk" => Mode::TopK,
            _ => return Err(config.bad("growth", "is neither none nor linear, nonlinear or topk")),
        };
        let target: usize = config.get("target_rank")?;
        let max_rank = match config.get("max_rank")? {
            0 => 2 * target,
            given => given,
        };
        if target < config.rank {
            return Err(
                config.bad("target_rank", &format!("is less than the rank {} to start from", config.rank))
            );
        }
        if max_rank < target {
            return Err(config.bad("max_rank", "is less than the mean rank to be reached"));
        }
        let (interval, increment) = (config.get("interval")?, config.get("increment")?);
        if interval == 0 || increment == 0 {
            return Err(config.bad(if interval == 0 { "interval" } else { "increment" }, "is not positive"));
        }
        let (warmup, top) = (config.get("warmup")?, config.get("top")?);
        Ok(Some(Rule { mode, target, max_rank, warmup, interval, increment, top }))
    }

    /// How many of `linears` grow after `step`, where `gap` ranks are missing.
    fn growing(&self, step: u64, total: u64, gap: usize, linears: usize) -> usize {
        let share = (step - self.warmup) as f64 / total.saturating_sub(self.warmup).max(1) as f64;
        let gap = gap as f64;
        let n = match self.mode {
            Mode::Linear => (gap * share).floor(),
            Mode::NonLinear => (share * gap.ln()).exp().floor(),
            Mode::TopK if self.top == 0 => (linears / 4) as f64,
            Mode::TopK => self.top as f64,
        };
        (n as usize).clamp(1, linears)
    }
}

/// What has grown is measured against the middle matrices of the beginning.
fn start(course: &Course<'_>, adapters: &[Beginning]) -> Result<Control> {
    let layer = |adapter: &Beginning| {
        let memory = adapter.statistics.first().copied().unwrap_or(0.0);
        Ranks { memory, ..Ranks::first(course.config.rank, adapter.width) }
    };
    Ok(Control { layers: adapters.iter().map(layer).collect(), ..Control::default() })
}

/// The importance of a linear is the change of ‖c‖/rank since the last event. The n-th largest is the threshold; all
/// linears that reach it grow, so that equal ones grow together.
fn decide(course: &Course<'_>, control: &Control, statistics: &[Vec<f64>]) -> Result<Control> {
    let mut next = control.clone();
    let Some(rule) = Rule::new(course.config)? else { return Ok(next) };
    let (step, linears) = (course.step, control.layers.len());
    let gap = (rule.target * linears).saturating_sub(control.total());
    if gap == 0 || step <= rule.warmup || step % rule.interval != 0 {
        return Ok(next);
    }
    let norm = |i: usize| statistics.get(i).and_then(|s| s.first().copied()).unwrap_or(0.0);
    let score = |i: usize| norm(i) - control.layers[i].memory;
    let mut scores: Vec<f64> =
        (0..linears).filter(|&i| control.layers[i].count() < rule.max_rank).map(score).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    let n = rule.growing(step, course.total, gap, linears).min(scores.len());
    let Some(&threshold) = n.checked_sub(1).and_then(|n| scores.get(n)) else { return Ok(next) };
    for (i, ranks) in next.layers.iter_mut().enumerate() {
        if score(i) >= threshold {
            grow(ranks, rule.increment, step);
        }
        ranks.memory = norm(i);
    }
    Ok(next)
}

/// The next `n` ranks begin to count, as far as there are so many.
fn grow(ranks: &mut Ranks, n: usize, step: u64) {
    let idle: Vec<usize> = (0..ranks.active.len()).filter(|&k| !ranks.active[k]).take(n).collect();
    for k in idle {
        ranks.active[k] = true;
        ranks.born[k] = step;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Method;
    use super::*;

    fn config(settings: &[(&str, &str)]) -> Config {
        let settings = settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Config::new(Method::named("tri").unwrap(), 1, 8.0, settings)
    }

    /// Adapters of eight ranks whose middle matrices begin with norm 1.
    fn beginnings(n: usize) -> Vec<Beginning> {
        vec![Beginning { width: 8, statistics: vec![1.0] }; n]
    }

    /// The ranks of four linears after `step` of 100 with these norms.
    fn ranks(settings: &[(&str, &str)], step: u64, norms: [f64; 4]) -> Vec<usize> {
        let config = config(settings);
        let course = Course { config: &config, step, total: 100, lr: 0.0 };
        let control = start(&course, &beginnings(4)).unwrap();
        let norms: Vec<Vec<f64>> = norms.map(|x| vec![x]).into();
        decide(&course, &control, &norms).unwrap().layers.iter().map(Ranks::count).collect()
    }

    const LINEAR: &[(&str, &str)] = &[("growth", "linear"), ("target_rank", "4")];

    #[test]
    fn as_many_grow_as_the_threshold_lets_through() {
        // The gap is 4·4 − 4 = 12: at a quarter of the steps 3 linears grow, at the beginning one, at the end all.
        assert_eq!(ranks(LINEAR, 25, [1.1, 1.4, 1.3, 1.2]), [1, 2, 2, 2]);
        assert_eq!(ranks(LINEAR, 1, [1.1, 1.4, 1.3, 1.2]), [1, 2, 1, 1]);
        assert_eq!(ranks(LINEAR, 100, [1.1, 1.4, 1.3, 1.2]), [2, 2, 2, 2]);
        // ⌊exp(0.25·ln 12)⌋ = 1, ⌊exp(0.5·ln 12)⌋ = 3.
        let nonlinear = &[("growth", "nonlinear"), ("target_rank", "4")];
        assert_eq!(ranks(nonlinear, 25, [1.1, 1.4, 1.3, 1.2]), [1, 2, 1, 1]);
        assert_eq!(ranks(nonlinear, 50, [1.1, 1.4, 1.3, 1.2]), [1, 2, 2, 2]);
        let topk = &[("growth", "topk"), ("target_rank", "4"), ("top", "2")];
        assert_eq!(ranks(topk, 90, [1.1, 1.4, 1.3, 1.2]), [1, 2, 2, 1]);
    }

    #[test]
    fn equal_importance_grows_together() {
        assert_eq!(ranks(LINEAR, 1, [1.4, 1.4, 1.0, 1.4]), [2, 2, 1, 2]);
    }

    #[test]
    fn growth_waits_for_warmup_and_interval_and_ends_at_the_target() {
        let timed = [LINEAR, &[("warmup", "10"), ("interval", "4")]].concat();
        for (step, grows) in [(8, false), (10, false), (12, true), (13, false), (16, true)] {
            let grown = ranks(&timed, step, [1.1, 1.4, 1.3, 1.2]).iter().sum::<usize>() > 4;
            assert_eq!(grown, grows, "step {step}");
        }
        let config = config(LINEAR);
        let mut control =
            start(&Course { config: &config, step: 0, total: 100, lr: 0.0 }, &beginnings(4)).unwrap();
        for step in 1..=100 {
            let course = Course { config: &config, step, total: 100, lr: 0.0 };
            let norms: Vec<Vec<f64>> =
                (0..4).map(|i| vec![f64::from((step as u32 * 7 + i * 3) % 11)]).collect();
            control = decide(&course, &control, &norms).unwrap();
        }
        // The last event may pass the target by as many as grew in it.
        assert!((16..20).contains(&control.total()), "{}", control.total());
    }

    #[test]
    fn importance_is_the_change_since_the_last_event() {
        let config = config(LINEAR);
        let at = |step| Course { config: &config, step, total: 1000, lr: 0.0 };
        let control = start(&at(0), &beginnings(2)).unwrap();
        let once = decide(&at(1), &control, &[vec![3.0], vec![2.0]]).unwrap();
        assert_eq!((once.layers[0].count(), once.layers[1].count()), (2, 1));
        assert_eq!(once.layers[0].born[..3], [0, 1, 0]);
        let twice = decide(&at(2), &once, &[vec![3.5], vec![3.0]]).unwrap();
        assert_eq!((twice.layers[0].count(), twice.layers[1].count()), (2, 2));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for bad in [
            ("target_rank", "0"),
            ("max_rank", "3"),
            ("interval", "0"),
            ("increment", "0"),
            ("growth", "fast"),
        ] {
            let error = Rule::new(&config(&[&[bad][..], LINEAR].concat())).expect_err(bad.0);
            assert!(error.message.contains(bad.0), "{error}");
        }
    }
}
