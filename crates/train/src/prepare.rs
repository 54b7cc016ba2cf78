//! Everything before the first step: graphs, data, the saved state, what is said at the start.
use crate::{
    allocate::Allocator,
    config::{Config, Duration},
    data::{Dataset, Schema, Text},
    estimate,
    evaluate::Evaluator,
    folder::digest,
    graphs::{Graphs, Maker},
    observer::Observer,
    order::Stream,
    outputs::Outputs,
    schedule::Schedule,
    start::Start,
    state::{Progress, State},
    stepper::Stepper,
};
use graft_ir::{Code, Error, Graph, Result, Tensor};
use graft_passes::{inject::adapters, targets};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// A run, ready for its next step.
pub(crate) struct Prepared {
    pub(crate) graphs: Graphs,
    pub(crate) outputs: Outputs,
    pub(crate) data: Dataset,
    pub(crate) stream: Stream,
    pub(crate) schedule: Schedule,
    pub(crate) stepper: Stepper,
    pub(crate) allocator: Option<Allocator>,
    pub(crate) evaluator: Option<Evaluator>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) progress: Progress,
    /// The trained weights of the best evaluation, if those are to be kept.
    pub(crate) best: BTreeMap<String, Tensor>,
}

impl Prepared {
    /// Reads and checks everything that the run needs.
    pub(crate) fn new(base: &Graph, config: &Config, observer: &mut dyn Observer) -> Result<Prepared> {
        let start = Start::read(config, observer)?;
        let maker = Maker { config, has_kernel: &graft_kernels::supports };
        let graphs = maker.graphs(base, &start, observer)?;
        let (inject, adapter) = (start.inject.as_ref(), start.adapter.as_ref());
        let outputs =
            Outputs::new(base, &graphs.forward, inject, config.head.as_ref(), adapter.map(|a| &a.config))?;
        let schema = Schema::of(&graphs.forward, &config.loss)?;
        let data = read_data(&config.data, &schema, config, observer)?;

        let mut settings = config.settings(inject);
        settings.extend(fingerprints(base, config, &start)?);
        let total =
            total_steps(config, &Stream::new(config.order, data.lengths(), config.batch, config.seed, 0));
        let allocator = Allocator::new(&graphs.forward, total)?;
        let (allocator, State { progress, settings, tensors, best }) =
            beginning(config, settings, &graphs, allocator)?;
        let options = config.session_options();
        let stepper = Stepper::new(&graphs, &tensors, config.seed, &options)?;
        let evaluator = match &config.eval {
            Some(path) => {
                let rows = read_data(path, &schema, config, observer)?;
                Some(Evaluator::new(&graphs.evaluation(), rows, config.batch, &config.loss, &options)?)
            }
            None => None,
        };
        let stream = Stream::new(config.order, data.lengths(), config.batch, config.seed, progress.batches);
        let schedule = Schedule::new(config.lr, config.schedule, config.warmup, total);
        let outputs = outputs.lasting(&graphs.forward, total)?;
        let run = Prepared {
            graphs,
            outputs,
            data,
            stream,
            schedule,
            stepper,
            allocator,
            evaluator,
            settings,
            progress,
            best,
        };
        run.check_dump(config)?;
        run.rehearse_exports(base, config)?;
        run.announce(base, config, observer)?;
        Ok(run)
    }

    fn rehearse_exports(&self, base: &Graph, config: &Config) -> Result<()> {
        let untrained = self.outputs.trained(&self.graphs.forward, &BTreeMap::new())?;
        config.exports.iter().try_for_each(|export| export.rehearse(base, &untrained, config.force))
    }

    fn check_dump(&self, config: &Config) -> Result<()> {
        let Some((step, path)) = &config.dump_grads else { return Ok(()) };
        if !(self.progress.step + 1..=self.schedule.total).contains(step) {
            let message = format!(
                "there is no step {step}: this run makes the steps {} to {}",
                self.progress.step + 1,
                self.schedule.total
            );
            return Err(Error::new(Code::USAGE, message).help("give `--dump-grads` a step of this run"));
        }
        graft_onnx::check_target(path, config.force)
    }

    /// The first lines: targets, trainable parameters, memory, device.
    fn announce(&self, base: &Graph, config: &Config, observer: &mut dyn Observer) -> Result<()> {
        let elements = |t: &Tensor| t.len() as u64;
        let trainable: u64 = self
            .graphs
            .trained()
            .iter()
            .filter_map(|v| self.graphs.forward[*v].tensor.as_ref())
            .map(elements)
            .sum();
        let frozen: u64 = base.params.iter().filter_map(|&v| base[v].tensor.as_ref()).map(elements).sum();
        let share = 100.0 * trainable as f64 / (trainable + frozen).max(1) as f64;
        observer.note(&self.carriers(base)?);
        carried(base)?.into_iter().for_each(|line| observer.note(&line));
        observer.note(&format!("trainable: {trainable} parameters, {share:.2} % of {}", trainable + frozen));
        let longest = self.data.lengths().iter().copied().max().unwrap_or(1);
        let graph = self.graphs.accumulate.as_ref().unwrap_or(&self.graphs.update);
        let batch = config.batch.min(self.data.rows());
        let (weights, alive) = estimate::memory(graph, batch, longest);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        observer.note(&format!(
            "memory: about {:.0} MiB for weights and {:.0} MiB for a batch of {} rows of {longest} tokens with its gradients",
            mib(weights), mib(alive), batch
        ));
        let threads = config.threads.map_or("all".into(), |n| n.to_string());
        observer.note(&format!(
            "device: {}, {threads} threads, {}",
            config.device.describe()?,
            config.precision
        ));
        let (rows, steps) = (self.data.rows(), self.schedule.total);
        observer
            .note(&format!("data: {rows} rows, {} batches an epoch, {steps} steps", self.stream.per_epoch()));
        Ok(())
    }

    /// Which linears carry an adapter; the uses of a module share one.
    fn carriers(&self, base: &Graph) -> Result<String> {
        let Some(modules) = self.outputs.adapted() else {
            return Ok("targets: none, the head alone is trained".into());
        };
        let nodes = targets(base)?.iter().filter(|linear| self.outputs.is_adapted(linear)).count();
        let shared = if nodes == modules { String::new() } else { format!(" of {modules} modules") };
        Ok(format!("targets: {nodes} linear nodes{shared} carry an adapter"))
    }
}

/// What is said of the adapters that a model carries already, where it does.
fn carried(base: &Graph) -> Result<Option<String>> {
    let found = adapters(base)?;
    let methods: BTreeSet<&str> = found.iter().map(|adapter| adapter.method.as_str()).collect();
    let methods: Vec<&str> = methods.into_iter().collect();
    let n = found.len();
    let them = if n == 1 { "1 adapter already" } else { &format!("{n} adapters already") };
    let line = || format!("the model carries {them} (`{}`), not trained here", methods.join("`, `"));
    Ok((n > 0).then(line))
}

/// The rows of a file, as the command's flags say how to read them.
pub(crate) fn read_data(
    path: &Path,
    schema: &Schema,
    config: &Config,
    observer: &mut dyn Observer,
) -> Result<Dataset> {
    let text = config.tokenizer.as_ref().map(|tokenizer| Text {
        tokenizer,
        field: &config.text,
        max_length: config.max_length,
    });
    Dataset::read(path, schema, text.as_ref(), &mut |line| observer.note(line))
}

/// Digests of the model, the data and the adapter to start from, by setting.
fn fingerprints(base: &Graph, config: &Config, start: &Start) -> Result<BTreeMap<String, String>> {
    let params = base.params.iter().filter_map(|&v| Some((base.name(v), "", base[v].tensor.as_ref()?)));
    let text = base.to_string();
    let nodes = Tensor::new(graft_ir::DType::Uint8, vec![text.len()], text.into_bytes().into())?;
    let model = graft_adapter::fingerprint(params.chain([("", "nodes", &nodes)]));
    let mut prints = BTreeMap::from([("model".to_string(), model)]);
    let files = [
        ("data", Some(&config.data)),
        ("eval", config.eval.as_ref()),
        ("tokenizer", config.tokenizer.as_ref()),
    ];
    for (key, path) in files {
        if let Some(path) = path {
            prints.insert(key.into(), digest(path)?);
        }
    }
    if let Some(adapter) = &start.adapter {
        let tensors = adapter.tensors.iter().chain(start.head.iter().flatten());
        let print = graft_adapter::fingerprint(tensors.map(|(name, t)| (name.as_str(), "", t)));
        prints.insert("init".into(), print);
    }
    Ok(prints)
}

/// Where the run begins: at its first step, or where the saved state stands. The state's tensors are those of the training
/// graph; what the schedule needs is with the schedule.
fn beginning(
    config: &Config,
    settings: BTreeMap<String, String>,
    graphs: &Graphs,
    mut allocator: Option<Allocator>,
) -> Result<(Option<Allocator>, State)> {
    let mut initial = graphs.initial_state()?;
    initial.extend(allocator.iter().flat_map(Allocator::state));
    let mut state = match config.resume {
        true => restore(config, &settings, &initial)?,
        false => State { progress: Progress::default(), settings, tensors: initial, best: BTreeMap::new() },
    };
    if let Some(allocator) = &mut allocator {
        allocator.restore(&state.tensors)?;
        allocator.state().keys().for_each(|name| drop(state.tensors.remove(name)));
    }
    Ok((allocator, state))
}

/// The saved state, if it is that of this run.
fn restore(
    config: &Config,
    settings: &BTreeMap<String, String>,
    initial: &BTreeMap<String, Tensor>,
) -> Result<State> {
    let saved = State::read(&config.out)?;
    saved.check(settings)?;
    let form = |t: &Tensor| (t.dtype(), t.dims().to_vec());
    let fits = saved.tensors.len() == initial.len()
        && initial.iter().all(|(name, t)| saved.tensors.get(name).is_some_and(|s| form(s) == form(t)));
    if fits { Ok(saved) } else { Err(Error::new(Code::STATE, "the saved tensors are not those of this run")) }
}

/// The steps of the run; the batches of the last step of an epoch may belong to two.
fn total_steps(config: &Config, stream: &Stream) -> u64 {
    match config.duration {
        Duration::Steps(n) => n,
        Duration::Epochs(n) => n.saturating_mul(stream.per_epoch()).div_ceil(config.accumulate as u64),
    }
}
