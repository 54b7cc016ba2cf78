//! The learning rate as a pure function of the step.

/// How the learning rate changes after the warm-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Curve {
    /// Stays.
    #[default]
    Constant,
    /// Falls in a straight line towards 0.
    Linear,
    /// Falls along half a cosine towards 0.
    Cosine,
}

/// A learning rate over a run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    /// The highest learning rate.
    pub peak: f64,
    /// What happens after the warm-up.
    pub curve: Curve,
    /// Steps over which the rate rises in a straight line, reaching the peak at the last of them.
    pub warmup: u64,
    /// Steps of the run.
    pub total: u64,
}

impl Schedule {
    /// A schedule whose warm-up is a fraction of the run, rounded up to whole steps as transformers does.
    pub fn new(peak: f64, curve: Curve, warmup: f64, total: u64) -> Schedule {
        Schedule { peak, curve, warmup: ((warmup * total as f64).ceil() as u64).min(total), total }
    }
    /// The learning rate of a step, counted from 1.
    ///
    /// No step has the rate 0: the warm-up begins at peak/warmup, and the curve would reach 0 one step after the last.
    pub fn at(&self, step: u64) -> f64 {
        if step <= self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let done = (step - 1 - self.warmup) as f64 / (self.total - self.warmup).max(1) as f64;
        let done = done.min(1.0);
        self.peak
            * match self.curve {
                Curve::Constant => 1.0,
                Curve::Linear => 1.0 - done,
                Curve::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            }
    }
}

impl std::str::FromStr for Curve {
    type Err = graft_ir::Error;
    fn from_str(text: &str) -> graft_ir::Result<Curve> {
        match text {
            "constant" => Ok(Curve::Constant),
            "linear" => Ok(Curve::Linear),
            "cosine" => Ok(Curve::Cosine),
            _ => Err(graft_ir::Error::new(graft_ir::Code::USAGE, format!("there is no schedule `{text}`"))
                .help("schedules: `constant`, `linear`, `cosine`")),
        }
    }
}

impl std::fmt::Display for Curve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Curve::Constant => "constant",
            Curve::Linear => "linear",
            Curve::Cosine => "cosine",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_and_falls() {
        let linear = Schedule::new(1.0, Curve::Linear, 0.2, 10);
        let rates: Vec<f64> = (1..=10).map(|s| linear.at(s)).collect();
        assert_eq!(rates, [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]);
        let cosine = Schedule::new(2.0, Curve::Cosine, 0.0, 4);
        assert_eq!(cosine.at(1), 2.0);
        assert!((cosine.at(3) - 1.0).abs() < 1e-15);
        let constant = Schedule::new(3.0, Curve::Constant, 0.0, 4);
        assert!((1..=9).all(|s| constant.at(s) == 3.0));
    }

    #[test]
    fn no_step_has_the_rate_zero() {
        for curve in [Curve::Constant, Curve::Linear, Curve::Cosine] {
            for total in [1, 2, 7, 100] {
                for warmup in [0.0, 0.06, 0.5, 1.0] {
                    let schedule = Schedule::new(1e-3, curve, warmup, total);
                    let rates: Vec<f64> = (1..=total).map(|s| schedule.at(s)).collect();
                    assert!(rates.iter().all(|&r| r > 0.0 && r <= 1e-3), "{schedule:?} {rates:?}");
                }
            }
        }
    }
}
