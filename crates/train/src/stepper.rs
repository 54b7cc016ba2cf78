//! Training steps on sessions: one graph a step, or, with accumulation, one graph a batch and one for the update.
use crate::graphs::Graphs;
use graft_exec::{Options, Session};
use graft_ir::{Code, Error, Graph, Result, Tensor};
use graft_passes::{io, optimizer};
use std::collections::BTreeMap;

/// Named tensors of one batch.
pub(crate) type Batch = Vec<(String, Tensor)>;

/// Makes training steps; holds weights and optimiser state.
pub(crate) struct Stepper {
    update: Session,
    accumulate: Option<Accumulate>,
    roles: BTreeMap<String, String>,
    /// The state inputs of the update.
    state: Vec<String>,
    seed: u64,
}

/// The session that sums gradients.
struct Accumulate {
    session: Session,
    roles: BTreeMap<String, String>,
    /// The inputs that hold sums.
    sums: Vec<String>,
    /// The trained weights, which are fed.
    weights: Vec<String>,
}

/// What a step gives back.
pub(crate) struct Outcome {
    /// The mean loss of its batches before the update.
    pub(crate) loss: f64,
    /// The global norm of the gradients before clipping.
    pub(crate) grad_norm: f64,
    /// The gradients before clipping, by weight, where the graph returns them.
    pub(crate) gradients: BTreeMap<String, Tensor>,
    /// What is added to the loss, where something is.
    pub(crate) penalty: Option<f64>,
    /// What a schedule decides on, by role.
    pub(crate) statistics: BTreeMap<String, Tensor>,
}

impl Stepper {
    /// Sessions for the graphs, holding `state`; what is drawn is drawn from `seed`.
    pub(crate) fn new(
        graphs: &Graphs,
        state: &BTreeMap<String, Tensor>,
        seed: u64,
        options: &Options,
    ) -> Result<Stepper> {
        let pairs = optimizer::state(&graphs.update)?;
        let mut update = Session::new(&graphs.update, &pairs, options)?;
        for (name, tensor) in state {
            update.set_state(name, tensor)?;
        }
        let accumulate = graphs.accumulate.as_ref().map(|g| Accumulate::new(g, graphs.weights(), options));
        let state = pairs.into_iter().map(|(input, _)| input).collect();
        let roles = roles(&graphs.update)?;
        Ok(Stepper { update, accumulate: accumulate.transpose()?, roles, state, seed })
    }

    /// Makes step `step` (from 1) with the mean gradient of `batches`; `control` are further inputs, by role.
    pub(crate) fn step(&mut self, batches: &[Batch], lr: f64, step: u64, control: &Batch) -> Result<Outcome> {
        let mut feeds = counters(&self.roles, self.seed, step);
        feeds.extend(named(&self.roles, control));
        feeds.extend(self.roles.get("lr").map(|name| (name.clone(), Tensor::f32(&[], &[lr as f32]))));
        let mut sums = None;
        match (&mut self.accumulate, batches) {
            (Some(accumulate), _) => {
                let done = (step - 1) * batches.len() as u64;
                sums = Some(accumulate.sum(batches, self.seed, done, control, &mut self.update)?);
            }
            (None, [batch]) => feeds.extend(batch.iter().cloned()),
            (None, _) => return Err(Error::new(Code::FEED, "a step without accumulation takes one batch")),
        }
        let outputs = run(&mut self.update, &feeds)?;
        let named = |role: &str| self.roles.get(role).and_then(|name| outputs.get(name));
        let (loss, penalty) = sums.map_or_else(|| losses(&self.roles, &outputs), Ok)?;
        let grad_norm = scalar_of(named("grad_norm"), "grad_norm")?;
        let gradients = self.roles.iter().filter_map(|(role, name)| {
            Some((role.strip_suffix(".grad")?.to_string(), outputs.get(name)?.clone()))
        });
        let statistics = self.roles.iter().filter(|(role, _)| role.starts_with("stats."));
        let statistics =
            statistics.filter_map(|(role, name)| Some((role.clone(), outputs.get(name)?.clone()))).collect();
        Ok(Outcome { loss, grad_norm, gradients: gradients.collect(), penalty, statistics })
    }

    /// Multiplies weights, by name, by factors, one for each row (for a single row: for each element).
    pub(crate) fn multiply(&mut self, factors: &Batch) -> Result<()> {
        for (name, factor) in factors {
            let weight = self.update.state(name)?;
            let (elements, factors) = weight.to_f64().zip(factor.to_f64()).unwrap_or_default();
            let row = (elements.len() / factors.len().max(1)).max(1);
            let product =
                elements.chunks(row).zip(&factors).flat_map(|(row, f)| row.iter().map(move |x| x * f));
            let misfit = || Error::new(Code::STATE, format!("`{name}` cannot be masked"));
            let tensor = Tensor::from_f64(weight.dtype(), weight.dims(), product).ok_or_else(misfit)?;
            self.update.set_state(name, &tensor)?;
        }
        Ok(())
    }

    /// Weights and optimiser state, by input name.
    pub(crate) fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        self.state.iter().map(|name| Ok((name.clone(), self.update.state(name)?))).collect()
    }

    /// What the executor had to say: each fallback once.
    pub(crate) fn notices(&self) -> Vec<String> {
        let sum = self.accumulate.iter().flat_map(|a| a.session.notices());
        let mut notices: Vec<String> = self.update.notices().iter().chain(sum).cloned().collect();
        notices.sort();
        notices.dedup();
        notices
    }
}

impl Accumulate {
    fn new(graph: &Graph, weights: Vec<String>, options: &Options) -> Result<Accumulate> {
        let pairs = optimizer::state(graph)?;
        let session = Session::new(graph, &pairs, options)?;
        let roles = roles(graph)?;
        let sums: Vec<String> = pairs.into_iter().map(|(input, _)| input).collect();
        // A weight that does not reach the loss is still a param of this graph.
        let is_input = |name: &String| graph.inputs.iter().any(|&v| graph.name(v) == name);
        Ok(Accumulate { session, roles, sums, weights: weights.into_iter().filter(is_input).collect() })
    }

    /// Adds the gradients of `batches`, before which `done` were taken, up and hands the sums to `update`, which sets its own back to zero; returns the
    /// mean loss and penalty.
    fn sum(
        &mut self,
        batches: &[Batch],
        seed: u64,
        done: u64,
        control: &Batch,
        update: &mut Session,
    ) -> Result<(f64, Option<f64>)> {
        // The update left zeros.
        for name in &self.sums {
            self.session.set_state(name, &update.state(name)?)?;
        }
        let weights = self.weights.iter().map(|name| Ok((name.clone(), update.state(name)?)));
        let weights: Batch = weights.collect::<Result<_>>()?;
        let control: Batch = named(&self.roles, control).collect();
        let (mut loss, mut penalty) = (0.0, None);
        for (batch, n) in batches.iter().zip(done + 1..) {
            // Each batch draws its own numbers: to the generator it is a step.
            let counters = counters(&self.roles, seed, n);
            let feeds: Batch =
                weights.iter().chain(batch).chain(&counters).chain(&control).cloned().collect();
            let outputs = run(&mut self.session, &feeds)?;
            let (of_batch, added) = losses(&self.roles, &outputs)?;
            loss += of_batch;
            penalty = added.map(|added| added + penalty.unwrap_or(0.0));
        }
        for name in &self.sums {
            update.set_state(name, &self.session.state(name)?)?;
        }
        let n = batches.len().max(1) as f64;
        Ok((loss / n, penalty.map(|sum| sum / n)))
    }
}

/// The scalars that count, where the graph has such inputs: `seed`, `step`.
fn counters(roles: &BTreeMap<String, String>, seed: u64, step: u64) -> Batch {
    let scalar = |(role, n): (&str, u64)| Some((roles.get(role)?.clone(), Tensor::i64(&[], &[n as i64])));
    [("seed", seed), ("step", step)].into_iter().filter_map(scalar).collect()
}

/// Those of the inputs by role that the graph has, by name.
pub(crate) fn named<'a>(
    roles: &'a BTreeMap<String, String>,
    inputs: &'a Batch,
) -> impl Iterator<Item = (String, Tensor)> + 'a {
    inputs.iter().filter_map(|(role, tensor)| Some((roles.get(role)?.clone(), tensor.clone())))
}

/// The loss of a batch, and what is added to it.
fn losses(
    roles: &BTreeMap<String, String>,
    outputs: &BTreeMap<String, Tensor>,
) -> Result<(f64, Option<f64>)> {
    let output = |role: &str| roles.get(role).and_then(|name| outputs.get(name));
    let penalty = output("penalty").map(|penalty| scalar_of(Some(penalty), "penalty"));
    Ok((scalar_of(output("loss"), "loss")?, penalty.transpose()?))
}

/// Runs a session; outputs by name.
pub(crate) fn run(session: &mut Session, feeds: &Batch) -> Result<BTreeMap<String, Tensor>> {
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    Ok(session.run(&feeds)?.into_iter().collect())
}

/// What the graph's notes call its inputs and outputs: role → name.
pub(crate) fn roles(graph: &Graph) -> Result<BTreeMap<String, String>> {
    let text = |(role, name): (String, serde_json::Value)| Some((role, name.as_str()?.to_string()));
    Ok(io::roles(graph)?.into_iter().filter_map(text).collect())
}

/// The only element of an output.
pub(crate) fn scalar_of(tensor: Option<&Tensor>, role: &str) -> Result<f64> {
    let value = tensor.and_then(Tensor::to_f64).and_then(|v| v.first().copied());
    value.ok_or_else(|| Error::new(Code::GRAPH, format!("the graph returns no number as `{role}`")))
}
