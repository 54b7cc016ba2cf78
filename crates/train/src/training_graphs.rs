//! Training graphs that leave home: the steps that `train` makes, as files for other runtimes.
use crate::{
    adapter_files::AdapterFiles,
    allocate::Allocator,
    config::Config,
    graphs::{Kernels, Maker, feed_trained},
    observer::Observer,
    portable::portable,
    start::Start,
};
use graft_ir::{Code, Error, Graph, Node, Result, Tensor};
use graft_onnx::{ExternalData, Model, SaveOptions, save_training};
use graft_passes::{Stage, inject::trainable, io, optimizer};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

/// The oldest opset of exported graphs.
pub const OLDEST_OPSET: i64 = 17;

/// How many steps there will be is for the one to say who feeds them; nothing that holds at the beginning depends on it.
const UNKNOWN_STEPS: u64 = u32::MAX as u64;

/// How calls of functions stand in an exported graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Calls {
    /// Not at all: ONNX's own ops, which every runtime has.
    Portable,
    /// Wherever a function says what is computed, with its body beside it.
    Functions,
    /// Where the executor has a kernel.
    Fused,
}

impl FromStr for Calls {
    type Err = Error;
    fn from_str(text: &str) -> Result<Calls> {
        match text {
            "portable" => Ok(Calls::Portable),
            "functions" => Ok(Calls::Functions),
            "fused" => Ok(Calls::Fused),
            _ => Err(Error::new(Code::USAGE, format!("there is no form `{text}`"))
                .help("forms: `portable`, `functions`, `fused`")),
        }
    }
}

/// What is exported beside what [`Config`] says of the training.
#[derive(Clone, Debug)]
pub struct Wish {
    /// How calls stand in the graphs.
    pub calls: Calls,
    /// The opset of the graphs; that of the model, and at least [`OLDEST_OPSET`], by default.
    pub opset: Option<i64>,
    /// Gradients as results, in place of the optimiser's step.
    pub gradients: bool,
    /// The evaluation graph too.
    pub evaluation: bool,
    /// The adapter's folder, and the graph that makes its tensors of the state.
    pub adapter: bool,
}

/// The graphs of a training, and what their state is at its beginning.
#[derive(Debug)]
pub struct TrainingGraphs {
    /// Batch and state in, loss and next state out; with accumulation, the sums of gradients in place of the batch.
    pub step: Graph,
    /// Batch and sums in, loss and next sums out; only with accumulation.
    pub accumulate: Option<Graph>,
    /// Batch and weights in, loss and logits out; only where it was wished for.
    pub evaluation: Option<Graph>,
    /// Weights in, the tensors of the adapter's file out; only where it was wished for.
    pub adapter: Option<AdapterFiles>,
    /// The initial values of everything that is fed but batch and counters, by input: weights, the optimiser's state, and
    /// what a schedule decides.
    pub state: BTreeMap<String, Tensor>,
}

impl TrainingGraphs {
    /// Makes the graphs by the passes that `train` runs.
    ///
    /// # Errors
    /// Those of the passes; [`Code::UNKNOWN_OP`] for an op in a portable graph that
    /// stock ONNX Runtime does not have; [`Code::SETTING`]
    /// where no graph can make the adapter's file.
    pub fn new(
        model: &Graph,
        config: &Config,
        wish: &Wish,
        observer: &mut dyn Observer,
    ) -> Result<TrainingGraphs> {
        let start = Start::read(config, observer)?;
        let everything: Kernels<'_> = &|_, _| true;
        let has_kernel = if wish.calls == Calls::Fused { &graft_kernels::supports } else { everything };
        let maker = Maker { config, has_kernel };
        let base = upgraded(model, wish.opset, &maker, observer)?;
        let (forward, mut step, mut accumulate);
        if wish.gradients {
            let (evaluated, trained) = maker.models(&base, &start, observer)?;
            (forward, accumulate) = (evaluated, None);
            step = maker.run(&["penalty", "grad", "fuse"].map(Stage::new), &trained, None, observer)?;
            feed_trained(&mut step);
        } else {
            let graphs = maker.graphs(&base, &start, observer)?;
            (forward, step, accumulate) = (graphs.forward, graphs.update, graphs.accumulate);
        }
        let state = initial_state(&forward, &step, accumulate.as_ref())?;
        let files = || AdapterFiles::new(model, &forward, &start, config, &state);
        let adapter = wish.adapter.then(files).transpose()?;
        let mut evaluation = wish.evaluation.then(|| forward.clone());
        evaluation.iter_mut().for_each(feed_trained);
        for graph in [&mut step].into_iter().chain(&mut accumulate).chain(&mut evaluation) {
            if wish.calls == Calls::Portable {
                *graph = portable(graph, &maker, observer)?;
            }
            settle(graph, &state, false);
            leave_out_results(graph);
        }
        Ok(TrainingGraphs { step, accumulate, evaluation, adapter, state })
    }

    /// Puts the initial values of the state into the graphs, as initialisers that can be fed.
    pub fn embed_state(&mut self) {
        for graph in [&mut self.step].into_iter().chain(&mut self.accumulate).chain(&mut self.evaluation) {
            settle(graph, &self.state, true);
        }
    }

    /// Writes the step to `path`, the other graphs and the state beside it: `<stem>.accumulate.onnx`, `<stem>.eval.onnx`,
    /// `<stem>.adapter.onnx`, `<stem>.state.safetensors`, and the untrained adapter into the folder `<stem>.adapter`. With
    /// `share`, weights stay in the model's own file. Returns the files.
    ///
    /// # Errors
    /// As [`graft_onnx::save`]'s.
    pub fn save(&self, model: &Model, path: &Path, force: bool, share: bool) -> Result<Vec<PathBuf>> {
        let beside = |suffix: &str| path.with_extension(suffix);
        let mut graphs = vec![(path.to_path_buf(), &self.step)];
        graphs.extend(self.accumulate.iter().map(|graph| (beside("accumulate.onnx"), graph)));
        graphs.extend(self.evaluation.iter().map(|graph| (beside("eval.onnx"), graph)));
        graphs.extend(self.adapter.iter().map(|adapter| (beside("adapter.onnx"), &adapter.graph)));
        let state = beside("state.safetensors");
        let mut files: Vec<PathBuf> = graphs.iter().map(|(path, _)| path.clone()).collect();
        files.push(state.clone());
        files.iter().try_for_each(|file| graft_onnx::check_target(file, force))?;
        let folder = beside("adapter");
        self.adapter.as_ref().map_or(Ok(()), |_| AdapterFiles::check(&folder, force))?;
        let external = if share { ExternalData::Shared } else { ExternalData::Auto };
        let options = SaveOptions { force, external, ..SaveOptions::default() };
        for (path, graph) in graphs {
            save_training(graph, Some(model), &path, &options, &bindings(graph)?)?;
        }
        graft_adapter::tensors::write(&state, &self.state)?;
        if let Some(adapter) = &self.adapter {
            files.extend(adapter.write(&folder)?);
        }
        Ok(files)
    }
}

/// `base` in the opset of the export.
fn upgraded(
    base: &Graph,
    opset: Option<i64>,
    maker: &Maker<'_>,
    observer: &mut dyn Observer,
) -> Result<Graph> {
    let present = base.opset("").unwrap_or(OLDEST_OPSET);
    let wanted = opset.unwrap_or(present.max(OLDEST_OPSET));
    if wanted < OLDEST_OPSET {
        let message = format!("opset {wanted} is older than {OLDEST_OPSET}, the oldest of training graphs");
        return Err(Error::new(Code::OPSET, message));
    }
    match wanted == present {
        true => Ok(base.clone()),
        false => maker.run(&[Stage::new("upgrade").with("opset", wanted)], base, None, observer),
    }
}

/// What is fed before the first step, by input.
fn initial_state(
    forward: &Graph,
    step: &Graph,
    accumulate: Option<&Graph>,
) -> Result<BTreeMap<String, Tensor>> {
    let mut state: BTreeMap<String, Tensor> = optimizer::initial_state(step)?.into_iter().collect();
    for v in trainable(step) {
        let name = step.name(v);
        if !state.contains_key(name) && io::role(step, &format!("{name}.grad"))?.is_some() {
            let elided = || Error::new(Code::VALUE, format!("the data of weight `{name}` is elided"));
            state.insert(name.into(), step[v].tensor.clone().ok_or_else(elided)?);
        }
    }
    if let Some(allocator) = Allocator::new(forward, UNKNOWN_STEPS)? {
        for (role, tensor) in allocator.feeds() {
            for graph in [step].into_iter().chain(accumulate) {
                let input = io::role(graph, &role)?;
                state.extend(input.map(|v| (graph.name(v).to_string(), tensor.clone())));
            }
        }
    }
    Ok(state)
}

/// Makes the inputs that hold state plain inputs, or with `embed` initialisers that can be fed.
fn settle(graph: &mut Graph, state: &BTreeMap<String, Tensor>, embed: bool) {
    for v in graph.inputs.clone() {
        let Some(tensor) = state.get(graph.name(v)) else { continue };
        graph.params.retain(|&p| p != v);
        if embed {
            graph[v].tensor = Some(tensor.clone());
            graph.params.push(v);
        }
    }
}

/// Makes calls say of every result of their function that it is left out, where it is: the official inference of shapes
/// reads as many results as the function has.
fn leave_out_results(graph: &mut Graph) {
    let results: BTreeMap<String, usize> =
        graph.functions.iter().map(|(name, f)| (name.clone(), f.body.outputs.len())).collect();
    let pad = |node: &mut Node| {
        let n = results.get(&node.op).copied().unwrap_or(0);
        node.outputs.resize(node.outputs.len().max(n), None);
    };
    graph.nodes.iter_mut().for_each(pad);
    for function in graph.functions.values_mut() {
        Arc::make_mut(function).body.nodes.iter_mut().for_each(pad);
    }
}

/// The state pairs whose inputs are initialisers: ONNX binds no others.
fn bindings(graph: &Graph) -> Result<Vec<(String, String)>> {
    let mut pairs = optimizer::state(graph)?;
    pairs.retain(|(input, _)| graph.params.iter().any(|&v| graph.name(v) == input));
    Ok(pairs)
}
