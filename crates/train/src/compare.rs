//! What several runs of one method with different seeds say together, and against another method's.
mod history;
mod picture;

pub use history::{History, Ranks};
pub use picture::svg;

use crate::metrics::{Evaluation, StepMetrics};

/// A number over several runs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The sample's standard deviation (n − 1 in the denominator); 0 for a single run.
    pub deviation: f64,
}

impl Spread {
    /// The spread of `values`; `None` where there is none.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let deviation = if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 };
        (!values.is_empty()).then_some(Spread { mean, deviation })
    }
}

/// A quantity over the steps: mean and deviation over runs.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Curve(pub Vec<(u64, Spread)>);

/// What can be drawn over the steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quantity {
    /// The loss of each step's rows, as a running mean.
    Loss,
    /// The mean loss over the evaluation data.
    EvalLoss,
    /// The share of evaluation rows that are right.
    Accuracy,
}

impl Quantity {
    /// All, in the order in which they are shown.
    pub const ALL: [Quantity; 3] = [Quantity::Accuracy, Quantity::EvalLoss, Quantity::Loss];

    /// Its name for readers.
    pub fn name(self) -> &'static str {
        match self {
            Quantity::Loss => "training loss (running mean)",
            Quantity::EvalLoss => "evaluation loss",
            Quantity::Accuracy => "accuracy",
        }
    }

    /// Its values in one run, by step.
    fn of(self, run: &History) -> Vec<(u64, f64)> {
        let evaluations = || run.evaluations.iter();
        match self {
            Quantity::Loss => running_mean(&run.steps),
            Quantity::EvalLoss => evaluations().map(|e| (e.step, e.eval_loss)).collect(),
            Quantity::Accuracy => evaluations().filter_map(|e| Some((e.step, e.accuracy?))).collect(),
        }
    }

    /// Its course over the steps that all of `runs` have.
    pub fn curve(self, runs: &[&History]) -> Curve {
        let courses: Vec<Vec<(u64, f64)>> = runs.iter().map(|run| self.of(run)).collect();
        let at = |step: u64| -> Option<Vec<f64>> {
            let value = |course: &Vec<(u64, f64)>| course.iter().find(|p| p.0 == step).map(|p| p.1);
            courses.iter().map(value).collect()
        };
        let steps = courses.first().into_iter().flatten().map(|p| p.0);
        Curve(steps.filter_map(|step| Some((step, Spread::of(&at(step)?)?))).collect())
    }
}

impl Curve {
    /// The lowest mean.
    pub fn lowest(&self) -> Option<f64> {
        self.0.iter().map(|p| p.1.mean).min_by(f64::total_cmp)
    }
    /// The first step at which the mean is `level` or less.
    pub fn reaches(&self, level: f64) -> Option<u64> {
        self.0.iter().find(|p| p.1.mean <= level).map(|p| p.0)
    }
}

impl History {
    /// The evaluation whose weights the run keeps: the best or the last.
    pub fn kept(&self, best: bool) -> Option<&Evaluation> {
        match best {
            // Of equal ones the first, as the run has it.
            true => self.evaluations.iter().min_by(|a, b| a.eval_loss.total_cmp(&b.eval_loss)),
            false => self.evaluations.last(),
        }
    }
    /// The running mean of the training loss after the last step.
    pub fn final_loss(&self) -> Option<f64> {
        running_mean(&self.steps).last().map(|p| p.1)
    }
    /// Tokens for each second in the median step; the first, which plans, does not count where there are others.
    pub fn tokens_per_s(&self) -> Option<f64> {
        let warm = &self.steps[usize::from(self.steps.len() > 1)..];
        let mut rates: Vec<f64> = warm.iter().map(|m| m.tokens_per_s).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied()
    }
}

/// The exponential mean of the losses with a span of a twentieth of the run, its start corrected for the missing past.
fn running_mean(steps: &[StepMetrics]) -> Vec<(u64, f64)> {
    let keep = 1.0 - 1.0 / (steps.len() as f64 / 20.0).max(1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let mean = |m: &StepMetrics| {
        sum = keep * sum + m.loss;
        weight = keep * weight + 1.0;
        (m.step, sum / weight)
    };
    steps.iter().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(losses: &[f64], evaluations: &[(u64, f64)]) -> History {
        let step = |(i, &loss): (usize, &f64)| {
            let step = i as u64 + 1;
            StepMetrics {
                step,
                loss,
                lr: 0.1,
                grad_norm: 1.0,
                tokens_per_s: 100.0 * step as f64,
                penalty: None,
            }
        };
        let evaluation = |&(step, eval_loss): &(u64, f64)| Evaluation { step, eval_loss, accuracy: None };
        History {
            steps: losses.iter().enumerate().map(step).collect(),
            evaluations: evaluations.iter().map(evaluation).collect(),
            ..History::default()
        }
    }

    #[test]
    fn spreads_are_those_of_a_sample() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0]), Some(Spread { mean: 3.0, deviation: 0.0 }));
        assert_eq!(Spread::of(&[1.0, 3.0]), Some(Spread { mean: 2.0, deviation: 2f64.sqrt() }));
    }

    #[test]
    fn curves_have_the_steps_that_all_runs_have() {
        let runs = [run(&[], &[(2, 1.0), (4, 0.5), (6, 0.6)]), run(&[], &[(2, 3.0), (4, 0.5)])];
        let curve = Quantity::EvalLoss.curve(&runs.iter().collect::<Vec<_>>());
        let means: Vec<(u64, f64)> = curve.0.iter().map(|(step, spread)| (*step, spread.mean)).collect();
        assert_eq!(means, [(2, 2.0), (4, 0.5)]);
        assert_eq!(
            (curve.lowest(), curve.reaches(2.0), curve.reaches(1.0), curve.reaches(0.1)),
            (Some(0.5), Some(2), Some(4), None)
        );
        assert_eq!(Quantity::Accuracy.curve(&[&runs[0]]), Curve::default());
        assert_eq!(Quantity::Loss.curve(&[]), Curve::default());
    }

    #[test]
    fn what_a_run_keeps() {
        let run = run(&[4.0, 2.0, 2.0], &[(1, 0.9), (2, 0.4), (3, 0.4)]);
        assert_eq!(run.kept(true).map(|e| e.step), Some(2));
        assert_eq!(run.kept(false).map(|e| e.step), Some(3));
        assert_eq!(run.tokens_per_s(), Some(300.0));
        assert_eq!(run.final_loss(), Some(2.0), "a short run has no past to average over");
        assert_eq!(History::default().tokens_per_s(), None);
    }
}
