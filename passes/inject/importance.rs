//! AdaLoRA's choice of ranks: a budget that falls by a cubic, and over all linears the ranks that matter most.
//! <https://arxiv.org/abs/2303.10512>
use super::{
    Config, Schedule,
    method::RANK,
    schedule::{Beginning, Control, Course, Ranks},
};
use graft_ir::Result;

pub(super) const BUDGET: Schedule = Schedule { start, decide, holds: false, zeroes: Some("e") };

/// The settings of the budget.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Rule {
    /// The rank of each linear at first: the width of its weights.
    pub(super) rank: usize,
    target: usize,
    tinit: u64,
    tfinal: u64,
    interval: u64,
}

impl Rule {
    pub(super) fn new(config: &Config) -> Result<Rule> {
        let rank = if config.text("init_rank") == RANK { config.rank } else { config.get("init_rank")? };
        if rank == 0 {
            return Err(config.bad("init_rank", "is not positive"));
        }
        let (target, interval): (usize, u64) = (config.get("target_rank")?, config.get("interval")?);
        if target == 0 {
            return Err(config.bad("target_rank", "is not positive"));
        }
        if interval == 0 {
            return Err(config.bad("interval", "is not positive"));
        }
        let (tinit, tfinal) = (config.get("tinit")?, config.get("tfinal")?);
        Ok(Rule { rank, target: target.min(rank), tinit, tfinal, interval })
    }

    /// Refuses a training that ends before ranks are chosen.
    fn check(&self, course: &Course<'_>) -> Result<()> {
        if self.tinit.saturating_add(self.tfinal) < course.total {
            return Ok(());
        }
        let why = format!("and `tfinal` leave none of {} steps to choose ranks in", course.total);
        Err(course.config.bad("tinit", &why))
    }

    /// The ranks that are left after `step`, of `all` in `linears`, and whether they are chosen then.
    fn budget(&self, step: u64, total: u64, all: usize, linears: usize) -> (usize, bool) {
        let target = self.target * linears;
        let last = total.saturating_sub(self.tfinal);
        if step <= self.tinit {
            return (all, false);
        }
        if step >= last {
            return (target, step == last);
        }
        let left = 1.0 - (step - self.tinit) as f64 / (last - self.tinit) as f64;
        let budget = (all - target.min(all)) as f64 * left.powi(3) + target as f64;
        (budget as usize, step.is_multiple_of(self.interval))
    }
}

fn start(course: &Course<'_>, adapters: &[Beginning]) -> Result<Control> {
    Rule::new(course.config)?.check(course)?;
    let layers = adapters.iter().map(|a| Ranks::first(a.width, a.width)).collect();
    Ok(Control { layers, ..Control::default() })
}

/// Leaves out the ranks whose importance does not pass that of the last one to go. They are set to 0 then, and may come
/// back until the last choice; after it they are set to 0 in each step.
fn decide(course: &Course<'_>, control: &Control, statistics: &[Vec<f64>]) -> Result<Control> {
    let mut next = Control { zeroes_now: false, ..control.clone() };
    let rule = Rule::new(course.config)?;
    let mut scores: Vec<f64> = statistics.iter().flatten().copied().collect();
    let linears = control.layers.len();
    let (budget, chooses) = rule.budget(course.step, course.total, scores.len(), linears);
    next.zeroes_now = chooses || course.step > course.total.saturating_sub(rule.tfinal);
    let excess = scores.len().saturating_sub(budget);
    if !chooses || excess == 0 {
        return Ok(next);
    }
    scores.sort_by(f64::total_cmp);
    let threshold = scores[excess - 1];
    for (ranks, scores) in next.layers.iter_mut().zip(statistics) {
        ranks.active = scores.iter().map(|&score| score > threshold).collect();
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::super::Method;
    use super::*;

    fn config(settings: &[(&str, &str)]) -> Config {
        let settings = settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Config::new(Method::named("adalora").unwrap(), 4, 8.0, settings)
    }

    const TIMED: &[(&str, &str)] =
        &[("target_rank", "2"), ("tinit", "10"), ("tfinal", "20"), ("interval", "5")];

    #[test]
    fn the_budget_falls_by_a_cubic() {
        let rule = Rule::new(&config(TIMED)).unwrap();
        let at = |step| rule.budget(step, 100, 8, 2);
        // int((8 − 4)·(1 − (t − 10)/70)³ + 4)
        assert_eq!([at(10), at(11), at(15), at(45)], [(8, false), (7, false), (7, true), (4, true)]);
        assert_eq!([at(30), at(79), at(80), at(81)], [(5, true), (4, false), (4, true), (4, false)]);
    }

    #[test]
    fn the_least_important_ranks_go_and_may_come_back_until_the_end() {
        let config = config(TIMED);
        let at = |step| Course { config: &config, step, total: 100, lr: 0.0 };
        let control = start(&at(0), &[4, 4].map(Beginning::wide)).unwrap();
        let scores = [vec![0.8, 0.1, 0.7, 0.6], vec![0.2, 0.9, 0.3, 0.5]];
        let before = decide(&at(12), &control, &scores).unwrap();
        assert_eq!((before.total(), before.zeroes_now), (8, false));
        // Budget 5 of 8: the three least go.
        let thirty = decide(&at(30), &before, &scores).unwrap();
        assert_eq!(thirty.layers[0].active, [true, false, true, true]);
        assert_eq!(thirty.layers[1].active, [false, true, false, true]);
        assert!(thirty.zeroes_now);
        let between = decide(&at(31), &thirty, &scores).unwrap();
        assert_eq!((between.total(), between.zeroes_now), (5, false));
        let other = [vec![0.1, 0.8, 0.7, 0.6], vec![0.2, 0.9, 0.3, 0.5]];
        let last = decide(&at(80), &between, &other).unwrap();
        assert_eq!(last.layers[0].active, [false, true, true, true]);
        assert_eq!(last.layers[1].active, [false, true, false, false]);
        let after = decide(&at(81), &last, &scores).unwrap();
        assert_eq!((&after.layers, after.zeroes_now), (&last.layers, true));
    }

    #[test]
    fn a_training_without_a_step_to_choose_in_is_refused() {
        let config = config(TIMED);
        let begin =
            |total| start(&Course { config: &config, step: 0, total, lr: 0.0 }, &[Beginning::wide(4)]);
        assert!(begin(31).is_ok());
        let error = begin(30).unwrap_err();
        assert!(error.message.contains("`tinit`: `10` and `tfinal` leave none of 30 steps"), "{error}");
    }

    #[test]
    fn equal_scores_at_the_threshold_go_together() {
        let config = config(TIMED);
        let at = Course { config: &config, step: 80, total: 100, lr: 0.0 };
        let control = start(&at, &[4, 4].map(Beginning::wide)).unwrap();
        let scores = [vec![0.5, 0.5, 0.5, 0.9], vec![0.5, 0.5, 0.9, 0.9]];
        assert_eq!(decide(&at, &control, &scores).unwrap().total(), 3);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for bad in [("target_rank", "0"), ("init_rank", "0"), ("interval", "0"), ("tinit", "-1")] {
            let error = Rule::new(&config(&[bad])).expect_err(bad.0);
            assert!(error.message.contains(bad.0), "{error}");
        }
        let wide = Rule::new(&config(&[("init_rank", "6"), ("target_rank", "9")])).unwrap();
        assert_eq!((wide.rank, wide.target), (6, 6));
    }
}
