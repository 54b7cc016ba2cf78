//! The loop: batches in, metrics and checkpoints out.
use crate::{
    allocate::Allocator,
    chart,
    config::Config,
    folder::Folder,
    interrupt::Interrupt,
    metrics::{Evaluation, Line, Metrics, RankMetrics, RoutingMetrics, StepMetrics},
    observer::Observer,
    prepare::Prepared,
    routing,
    state::State,
    stepper::{Batch, Outcome},
    trained::{self, Trained},
};
use graft_ir::{Code, Error, Result, Tensor};
use graft_onnx::{Model, atomic_write, atomic_write_with};
use graft_passes::inject::{Inputs, file_tensors};
use std::{collections::BTreeMap, ops::ControlFlow, time::Instant};

/// How a run ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Steps made, those before a resumption included.
    pub steps: u64,
    /// The loss of the last step that was made now.
    pub loss: Option<f64>,
    /// The last evaluation that was made now.
    pub evaluation: Option<Evaluation>,
    /// The lowest evaluation loss and its step.
    pub best: Option<(f64, u64)>,
}

/// The file of metrics in a run's folder.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// The picture of the losses in a run's folder.
pub const CHART_FILE: &str = "loss.svg";

/// Trains adapters on `model` as `config` says, and writes them to `config.out`; then the models of `config.exports`.
///
/// Failures before the first step leave nothing behind. SIGINT, or `Break` from the observer, saves the state after the
/// step that is being made and ends in a [`Code::INTERRUPTED`] error. A run that is interrupted or killed and then
/// resumed writes the same adapter, head and state as one that was not.
pub fn run(model: &Model, config: &Config, observer: &mut dyn Observer) -> Result<Report> {
    config.check()?;
    let folder = Folder::take(config)?;
    let interrupt = Interrupt::new()?;
    let prepared = Prepared::new(&model.graph, config, observer)?;
    let mut training = Training {
        config,
        run: prepared,
        folder,
        initial: None,
        metrics: None,
        loss: None,
        evaluation: None,
        saved: 0,
    };
    training.train(&interrupt, observer)?;
    training.tell_routing(model, observer)?;
    training.export(model, observer)?;
    let Training { run, loss, evaluation, .. } = training;
    Ok(Report { steps: run.progress.step, loss, evaluation, best: run.progress.best })
}

/// Says what a run would be like, and refuses what [`run`] would refuse before its first step; leaves nothing behind.
pub fn plan(model: &Model, config: &Config, observer: &mut dyn Observer) -> Result<()> {
    config.check()?;
    let _folder = Folder::take(config)?;
    Prepared::new(&model.graph, config, observer).map(drop)
}

/// A run on its way.
struct Training<'a> {
    config: &'a Config,
    run: Prepared,
    folder: Folder,
    /// A new run's state before its first step, to be written once that is made: a run that ends before its first save
    /// can then be resumed too.
    initial: Option<State>,
    /// Opened after the first step.
    metrics: Option<Metrics>,
    loss: Option<f64>,
    evaluation: Option<Evaluation>,
    /// The last step whose state is on disk.
    saved: u64,
}

impl Training<'_> {
    fn train(&mut self, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<()> {
        let total = self.run.schedule.total;
        self.saved = self.run.progress.step;
        self.initial = if self.config.resume { None } else { Some(self.state()?) };
        observer.started(self.run.progress.step, total);
        let first = self.run.progress.step + 1;
        while self.run.progress.step < total && !self.has_stopped_early() {
            let metrics = self.step()?;
            let step = metrics.step;
            if step == first {
                self.run.stepper.notices().iter().for_each(|notice| observer.note(notice));
            }
            self.metrics()?.push(Line::Step(metrics))?;
            let wants_stop = observer.step(&metrics) == ControlFlow::Break(()) || interrupt.is_asked();
            if self.is_due(self.config.eval_every) {
                self.evaluate(observer)?;
            }
            if self.is_due(self.config.save_every) || self.has_stopped_early() || wants_stop {
                self.save()?;
            }
            let is_done = step == total || self.has_stopped_early();
            if wants_stop && !is_done {
                let message = format!("interrupted after step {step} of {total}; its state is saved");
                return Err(Error::new(Code::INTERRUPTED, message).help("`--resume` goes on"));
            }
        }
        if self.run.progress.step < first {
            // A run that was complete is only written out again.
            self.save()?;
        }
        if self.has_stopped_early() {
            observer.note("stopped early: the evaluation loss no longer falls");
        }
        Ok(())
    }

    /// Makes one step.
    fn step(&mut self) -> Result<StepMetrics> {
        let start = Instant::now();
        let step = self.run.progress.step + 1;
        let mut tokens = 0;
        let batches: Vec<Batch> = (0..self.config.accumulate)
            .map(|_| {
                let rows = self.run.stream.next_batch();
                tokens += rows.iter().map(|&r| self.run.data.lengths()[r]).sum::<usize>();
                self.run.data.batch(rows)
            })
            .collect();
        let lr = self.run.schedule.at(step);
        let control = self.run.allocator.as_ref().map_or_else(Vec::new, Allocator::feeds);
        let outcome = self.run.stepper.step(&batches, lr, step, &control)?;
        self.check_finite(&outcome, step)?;
        if self.metrics.is_none() {
            // Only now is anything written.
            self.folder.keep(!self.config.resume)?;
            self.metrics = Some(Metrics::open(&self.config.out.join(METRICS_FILE), step - 1)?);
            self.initial.take().map_or(Ok(()), |state| state.write(&self.config.out))?;
        }
        self.dump_gradients(&outcome.gradients, step)?;
        self.allocate(step, lr, &outcome)?;
        self.run.progress.step = step;
        self.run.progress.batches = self.run.stream.taken();
        self.loss = Some(outcome.loss);
        let tokens_per_s = tokens as f64 / start.elapsed().as_secs_f64().max(1e-9);
        let Outcome { loss, grad_norm, penalty, .. } = outcome;
        Ok(StepMetrics { step, loss, lr, grad_norm, tokens_per_s, penalty })
    }

    /// Lets the method's schedule decide, and notes how many ranks count where that changes.
    fn allocate(&mut self, step: u64, lr: f64, outcome: &Outcome) -> Result<()> {
        let total = self.run.schedule.total;
        let Some(allocator) = &mut self.run.allocator else { return Ok(()) };
        let before = allocator.ranks();
        let masks = allocator.decide(step, total, lr, outcome)?;
        self.run.stepper.multiply(&masks)?;
        let after = allocator.ranks();
        let is_first = step == 1;
        let changed = after != before;
        if is_first {
            self.metrics()?.push(Line::Ranks(RankMetrics { step: 0, ranks: before }))?;
        }
        if changed {
            self.metrics()?.push(Line::Ranks(RankMetrics { step, ranks: after }))?;
        }
        Ok(())
    }

    /// The state of training graph and schedule, by name.
    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = self.run.stepper.state()?;
        tensors.extend(self.run.allocator.iter().flat_map(Allocator::state));
        Ok(tensors)
    }

    /// A loss or gradient that is not finite has spoilt the weights: the state on disk stays that of an earlier step.
    fn check_finite(&self, outcome: &Outcome, step: u64) -> Result<()> {
        let what = match (outcome.loss.is_finite(), outcome.grad_norm.is_finite()) {
            (true, true) => return Ok(()),
            (false, _) => format!("the loss of step {step} is {}", outcome.loss),
            (true, false) => format!("the gradients of step {step} have the norm {}", outcome.grad_norm),
        };
        let kept = match self.metrics {
            None => "nothing was written".to_string(),
            Some(_) => format!("the state of step {} is saved", self.saved),
        };
        Err(Error::new(Code::DIVERGED, format!("{what}; {kept}"))
            .help("lower `--lr`, lengthen `--warmup` or tighten `--clip`"))
    }

    fn metrics(&mut self) -> Result<&mut Metrics> {
        let (path, step) = (self.config.out.join(METRICS_FILE), self.run.progress.step);
        match &mut self.metrics {
            Some(metrics) => Ok(metrics),
            none => Ok(none.insert(Metrics::open(&path, step)?)),
        }
    }

    /// Whether something with this interval happens after the present step: by default each epoch; always at the end.
    fn is_due(&self, every: Option<u64>) -> bool {
        let (step, taken) = (self.run.progress.step, self.run.progress.batches);
        let per_epoch = self.run.stream.per_epoch();
        let before = taken - self.config.accumulate as u64;
        let is_epoch = taken / per_epoch > before / per_epoch;
        step == self.run.schedule.total || every.map_or(is_epoch, |n| step % n == 0)
    }

    fn has_stopped_early(&self) -> bool {
        self.config.patience.is_some_and(|patience| self.run.progress.worse >= patience)
    }

    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let Some(evaluator) = &mut self.run.evaluator else { return Ok(()) };
        let weights = self.run.graphs.weights_of(&self.run.stepper.state()?);
        let step = self.run.progress.step;
        let masks = self.run.allocator.as_ref().map_or_else(Vec::new, Allocator::masks);
        let evaluation = evaluator.run(&weights, &masks, step)?;
        if self.run.progress.best.is_none_or(|(loss, _)| evaluation.eval_loss < loss) {
            self.run.progress.best = Some((evaluation.eval_loss, step));
            self.run.progress.worse = 0;
            if self.config.keep_best {
                self.run.best = weights;
                self.run.best.extend(masks);
            }
        } else {
            self.run.progress.worse += 1;
        }
        self.evaluation = Some(evaluation);
        self.metrics()?.push(Line::Evaluation(evaluation))?;
        observer.evaluation(&evaluation);
        Ok(())
    }

    /// The run as it stands.
    fn state(&self) -> Result<State> {
        Ok(State {
            progress: self.run.progress,
            settings: self.run.settings.clone(),
            tensors: self.tensors()?,
            best: self.run.best.clone(),
        })
    }

    /// Writes the state, then what others read: the adapter, the head, the manifest, the picture.
    fn save(&mut self) -> Result<()> {
        let state = self.state()?;
        state.write(&self.config.out)?;
        self.run.outputs.write(&self.trained(&state)?, &self.config.out)?;
        let picture = chart::svg(self.metrics()?.lines())?;
        atomic_write(&self.config.out.join(CHART_FILE), picture.as_bytes())?;
        self.saved = self.run.progress.step;
        Ok(())
    }

    /// What the run has trained: at the best evaluation, if that is kept, else by now.
    fn trained(&self, state: &State) -> Result<Trained> {
        let weights = match state.best.is_empty() {
            true => {
                let mut weights = self.run.graphs.weights_of(&state.tensors);
                weights.extend(self.run.allocator.iter().flat_map(Allocator::masks));
                weights
            }
            false => state.best.clone(),
        };
        self.run.outputs.trained(&self.run.graphs.forward, &weights)
    }

    /// Notes what the routers of the trained adapters do, where they have such.
    fn tell_routing(&mut self, model: &Model, observer: &mut dyn Observer) -> Result<()> {
        let step = self.run.progress.step;
        let is_told = self.metrics()?.lines().iter().any(|line| matches!(line, Line::Routing(_)));
        if is_told || !routing::routes(&self.run.graphs.forward)? {
            return Ok(());
        }
        let Some(adapter) = self.trained(&self.state()?)?.adapter else { return Ok(()) };
        let adapted = trained::inject(&model.graph, &adapter, Inputs::None, &mut |_| ())?;
        for (domain, routing) in routing::by_domain(&adapted, self.config)? {
            let mean = routing::summary(&routing);
            observer.note(&format!("routing of {domain}: {mean}, the mean of {} adapters", routing.len()));
            self.metrics()?.push(Line::Routing(RoutingMetrics { step, domain, routing }))?;
        }
        Ok(())
    }

    /// Writes the models that are asked for.
    fn export(&self, model: &Model, observer: &mut dyn Observer) -> Result<()> {
        let trained = self.trained(&self.state()?)?;
        self.config.exports.iter().try_for_each(|e| e.write(model, &trained, self.config.force, observer))
    }

    /// Writes the gradients of the adapters' weights, if they are asked for after this step.
    fn dump_gradients(&self, gradients: &BTreeMap<String, Tensor>, step: u64) -> Result<()> {
        let Some((wanted, path)) = &self.config.dump_grads else { return Ok(()) };
        if *wanted != step {
            return Ok(());
        }
        let forward = &self.run.graphs.forward;
        // A weight that the loss does not depend on has no gradient in the graph.
        let zeros = |name: &str| {
            let v = forward.find(name)?;
            let t = forward[v].tensor.as_ref()?;
            Tensor::from_f64(t.dtype(), t.dims(), std::iter::repeat_n(0.0, t.len()))
        };
        let tensors =
            file_tensors(forward, &|name| Ok(gradients.get(name).cloned().or_else(|| zeros(name))))?;
        let bytes = graft_adapter::tensor_bytes(&tensors)?;
        atomic_write_with(path, self.config.force, |file| file.write_all(&bytes))
    }
}
