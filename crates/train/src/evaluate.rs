//! Evaluation: the mean loss and the accuracy over a dataset, with the weights of the moment.
use crate::{
    config::Config,
    data::{Dataset, Schema},
    graphs,
    metrics::Evaluation,
    observer::Observer,
    order::{Order, batches},
    prepare::read_data,
    stepper::{Batch, named, roles, run, scalar_of},
};
use graft_exec::{Options, Session};
use graft_ir::{Code, Error, Graph, Result, Tensor};
use std::collections::BTreeMap;

/// Evaluates a model as it is on `config.eval`: no adapter is put on it, and those that it has stay. The step is 0.
///
/// # Errors
/// [`Code::USAGE`] without evaluation data; whatever the loss and the data ask for.
pub fn evaluate(model: &Graph, config: &Config, observer: &mut dyn Observer) -> Result<Evaluation> {
    let none = || Error::new(Code::USAGE, "there is no data to evaluate on");
    let path = config.eval.as_ref().ok_or_else(none)?;
    let graph = graphs::without_adapter(model, config, observer)?;
    let data = read_data(path, &Schema::of(&graph, &config.loss)?, config, observer)?;
    let options = config.session_options();
    Evaluator::new(&graph, data, config.batch, &config.loss, &options)?.run(&BTreeMap::new(), &Vec::new(), 0)
}

/// An evaluation dataset and the session that runs it.
pub(crate) struct Evaluator {
    session: Session,
    data: Dataset,
    batch: usize,
    loss: String,
    logits: Option<String>,
    /// The label's name, where it is the number of a class.
    classes_of: Option<String>,
    /// What the graph calls its inputs, by role.
    roles: BTreeMap<String, String>,
    /// A row counts as many times as it has targets: each token but the first, for a language model; else once.
    by_tokens: bool,
}

impl Evaluator {
    /// A session for `graph`, a model up to the loss.
    pub(crate) fn new(
        graph: &Graph,
        data: Dataset,
        batch: usize,
        loss: &str,
        options: &Options,
    ) -> Result<Evaluator> {
        let mut roles = roles(graph)?;
        Ok(Evaluator {
            session: Session::new(graph, &[], options)?,
            data,
            batch,
            loss: roles.remove("loss").unwrap_or_default(),
            logits: roles.remove("logits"),
            classes_of: roles.remove("label").filter(|_| loss == "cross-entropy"),
            by_tokens: loss == "causal-lm",
            roles,
        })
    }

    /// Runs over all rows with these weights, by name; `control` are further inputs, by role, where the graph has them.
    pub(crate) fn run(
        &mut self,
        weights: &BTreeMap<String, Tensor>,
        control: &Batch,
        step: u64,
    ) -> Result<Evaluation> {
        let control: Batch = named(&self.roles, control).collect();
        let (mut loss, mut weight, mut right, mut rated) = (0.0, 0.0, 0usize, 0usize);
        // Rows of one length come together: the order does not change the sums by more than rounding, and is fixed.
        for rows in batches(Order::Shuffle, self.data.lengths(), self.batch, 0, 0) {
            let batch = self.data.batch(&rows);
            let weights = weights.iter().map(|(name, tensor)| (name.clone(), tensor.clone()));
            let feeds: Batch = weights.chain(control.iter().cloned()).chain(batch.iter().cloned()).collect();
            let outputs = run(&mut self.session, &feeds)?;
            let n: usize = match self.by_tokens {
                true => rows.iter().map(|&r| self.data.lengths()[r].saturating_sub(1)).sum(),
                false => rows.len(),
            };
            loss += scalar_of(outputs.get(&self.loss), "loss")? * n as f64;
            weight += n as f64;
            let logits = self.logits.as_ref().and_then(|name| outputs.get(name));
            let label = batch.iter().find(|(name, _)| Some(name) == self.classes_of.as_ref());
            if let (Some(logits), Some((_, label))) = (logits, label) {
                let (hits, of) = hits(logits, label);
                right += hits;
                rated += of;
            }
        }
        let accuracy = (rated > 0).then(|| right as f64 / rated as f64);
        Ok(Evaluation { step, eval_loss: loss / f64::max(weight, 1.0), accuracy })
    }
}

/// How many labels have the highest logit (the first of equal ones), and of how many; ignored labels do not count.
fn hits(logits: &Tensor, label: &Tensor) -> (usize, usize) {
    let (Some(logits_data), Some(labels)) = (logits.to_f64(), label.to_i64()) else { return (0, 0) };
    let classes = logits.dims().last().copied().unwrap_or(1).max(1);
    let highest = |row: &[f64]| {
        let best = row
            .iter()
            .enumerate()
            .fold((0, f64::NEG_INFINITY), |best, (i, &x)| if x > best.1 { (i, x) } else { best });
        best.0 as i64
    };
    let rated = logits_data.chunks_exact(classes).zip(labels).filter(|(_, label)| *label >= 0);
    rated.fold((0, 0), |(hits, of), (row, label)| (hits + usize::from(highest(row) == label), of + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_count_the_first_highest() {
        let logits = Tensor::f32(&[4, 3], &[0., 2., 1., 5., 5., 0., -3., -2., -1., f32::NAN, 0., 0.]);
        assert_eq!(hits(&logits, &Tensor::i64(&[4], &[1, 1, 2, 1])), (3, 4));
        assert_eq!(hits(&logits, &Tensor::i64(&[4], &[1, 0, -100, 0])), (2, 3));
    }
}
