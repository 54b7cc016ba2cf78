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

    /// Makes step `step` (from 1) with the mean gradient of `batches`.
    pub(crate) fn step(&mut self, batches: &[Batch], lr: f64, step: u64) -> Result<Outcome> {
        let mut feeds = counters(&self.roles, self.seed, step);
        feeds.extend(self.roles.get("lr").map(|name| (name.clone(), Tensor::f32(&[], &[lr as f32]))));
        let mut loss = None;
        match (&mut self.accumulate, batches) {
            (Some(accumulate), _) => {
                let batch = (step - 1) * batches.len() as u64;
                loss = Some(accumulate.sum(batches, self.seed, batch, &mut self.update)?);
            }
            (None, [batch]) => feeds.extend(batch.iter().cloned()),
            (None, _) => return Err(Error::new(Code::FEED, "a step without accumulation takes one batch")),
        }
        let outputs = run(&mut self.update, &feeds)?;
        let named = |role: &str| self.roles.get(role).and_then(|name| outputs.get(name));
        let loss = loss.map_or_else(|| scalar_of(named("loss"), "loss"), Ok)?;
        let grad_norm = scalar_of(named("grad_norm"), "grad_norm")?;
        let gradients = self.roles.iter().filter_map(|(role, name)| {
            Some((role.strip_suffix(".grad")?.to_string(), outputs.get(name)?.clone()))
        });
        Ok(Outcome { loss, grad_norm, gradients: gradients.collect() })
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
    /// mean loss.
    fn sum(&mut self, batches: &[Batch], seed: u64, done: u64, update: &mut Session) -> Result<f64> {
        // The update left zeros.
        for name in &self.sums {
            self.session.set_state(name, &update.state(name)?)?;
        }
        let weights = self.weights.iter().map(|name| Ok((name.clone(), update.state(name)?)));
        let weights: Batch = weights.collect::<Result<_>>()?;
        let mut loss = 0.0;
        for (batch, n) in batches.iter().zip(done + 1..) {
            // Each batch draws its own numbers: to the generator it is a step.
            let counters = counters(&self.roles, seed, n);
            let feeds: Batch = weights.iter().chain(batch).chain(&counters).cloned().collect();
            let outputs = run(&mut self.session, &feeds)?;
            loss += scalar_of(self.roles.get("loss").and_then(|name| outputs.get(name)), "loss")?;
        }
        for name in &self.sums {
            update.set_state(name, &self.session.state(name)?)?;
        }
        Ok(loss / batches.len().max(1) as f64)
    }
}

/// The scalars that count, where the graph has such inputs: `seed`, `step`.
fn counters(roles: &BTreeMap<String, String>, seed: u64, step: u64) -> Batch {
    let scalar = |(role, n): (&str, u64)| Some((roles.get(role)?.clone(), Tensor::i64(&[], &[n as i64])));
    [("seed", seed), ("step", step)].into_iter().filter_map(scalar).collect()
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
