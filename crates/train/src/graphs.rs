//! From a model to the graphs of a run: what is trained, evaluated and fed, all made by passes.
use crate::{
    config::Config,
    observer::{Observer, Silent},
    start::Start,
};
use graft_ir::{Code, Error, Graph, Node, Result, Tensor, Type, Value};
use graft_passes::{
    ALL, Context, Options, Stage,
    inject::{draws, settled, trainable},
    meta, optimizer, pipeline,
};
use std::collections::BTreeMap;

/// Which calls a graph may hold: what has a kernel where it will run.
pub(crate) type Kernels<'a> = &'a dyn Fn(&Node, &[Option<Type>]) -> bool;

/// The graphs of a run.
pub(crate) struct Graphs {
    /// The adapted model up to the loss, as it is evaluated: nothing is drawn. Trained weights are params.
    pub(crate) forward: Graph,
    /// Batch and state in, loss and next state out. With accumulation: the sums of gradients in place of the batch.
    pub(crate) update: Graph,
    /// Batch and sums in, loss and next sums out; only with accumulation.
    pub(crate) accumulate: Option<Graph>,
}

/// The stages that make the adapted model and its loss; without options of `inject` there is no adapter.
pub fn forward_stages(config: &Config, inject: Option<&Options>) -> Vec<Stage> {
    let mut loss = Stage::new("loss").with("kind", &config.loss).with("label", &config.label);
    if let Some(logits) = &config.logits {
        loss = loss.with("logits", logits);
    }
    let mut stages = vec![Stage::new("canonicalize")];
    stages.extend(inject.map(|o| Stage { name: "inject".into(), options: o.clone().with("finite", true) }));
    stages.push(Stage::new("fuse"));
    stages.extend(config.head.iter().map(|o| Stage { name: "head".into(), options: o.clone() }));
    stages.push(loss);
    stages
}

/// The stages that turn the adapted model and its loss into a training step.
pub fn training_stages(config: &Config) -> Vec<Stage> {
    let mut optimizer = Stage::new("optimizer").with("kind", &config.optimizer);
    optimizer = optimizer.with("weight_decay", config.weight_decay).with("clip", config.clip.unwrap_or(0.0));
    if config.dump_grads.is_some() {
        optimizer = optimizer.with("keep_grads", true);
    }
    if config.accumulate != 1 {
        optimizer = optimizer.with("accumulate", config.accumulate);
    }
    vec![Stage::new("penalty"), Stage::new("grad"), optimizer, Stage::new("fuse")]
}

/// A model up to its loss as it is: no adapter is put on it.
pub(crate) fn without_adapter(model: &Graph, config: &Config, observer: &mut dyn Observer) -> Result<Graph> {
    Maker { config, has_kernel: &graft_kernels::supports }.run(
        &forward_stages(config, None),
        model,
        None,
        observer,
    )
}

/// Makes the graphs of one configuration for one place where they will run.
#[derive(Clone, Copy)]
pub(crate) struct Maker<'a> {
    pub(crate) config: &'a Config,
    pub(crate) has_kernel: Kernels<'a>,
}

impl Maker<'_> {
    /// Runs `stages` on `graph`.
    pub(crate) fn run(
        &self,
        stages: &[Stage],
        graph: &Graph,
        adapter: Option<&BTreeMap<String, Tensor>>,
        observer: &mut dyn Observer,
    ) -> Result<Graph> {
        let mut lines = Vec::new();
        let mut ctx = Context {
            log: &mut |line| lines.push(line.to_string()),
            has_kernel: self.has_kernel,
            adapter,
            seed: self.config.seed,
        };
        let made = pipeline::run(ALL, stages, graph, &mut ctx, &mut |step| observer.pass(step));
        lines.iter().for_each(|line| observer.note(line));
        made
    }

    /// The adapted model up to its loss, as it is evaluated, and as it is trained: with what each step draws. What the
    /// model carries already stays as it is.
    pub(crate) fn models(
        &self,
        model: &Graph,
        start: &Start,
        observer: &mut dyn Observer,
    ) -> Result<(Graph, Graph)> {
        let model = &settled(model);
        let up_to_loss = |inject: Option<&Options>, observer: &mut dyn Observer| {
            let adapter = start.adapter.as_ref().map(|adapter| &adapter.tensors);
            let mut graph = self.run(&forward_stages(self.config, inject), model, adapter, observer)?;
            start.wanted_head(self.config).map_or(Ok(()), |head| fill_head(&mut graph, head))?;
            Ok::<Graph, Error>(graph)
        };
        let forward = up_to_loss(start.inject.as_ref(), observer)?;
        let is_random = draws(&forward)?;
        // What there is to say about the model has been said.
        let drawing = match start.inject.as_ref().filter(|_| is_random) {
            Some(options) => up_to_loss(Some(&options.clone().with("training", true)), &mut Silent)?,
            None => forward.clone(),
        };
        Ok((forward, drawing))
    }

    /// The graphs of a run.
    pub(crate) fn graphs(&self, model: &Graph, start: &Start, observer: &mut dyn Observer) -> Result<Graphs> {
        let (forward, trained) = self.models(model, start, observer)?;
        let update = self.run(&training_stages(self.config), &trained, None, observer)?;
        let accumulate = (self.config.accumulate != 1).then(|| {
            let stages = ["penalty", "grad", "accumulate", "fuse"].map(Stage::new);
            self.run(&stages, &trained, None, observer)
        });
        Ok(Graphs { forward, update, accumulate: accumulate.transpose()? })
    }
}

impl Graphs {
    /// The model up to the loss, with the trained weights as inputs that can be fed.
    pub(crate) fn evaluation(&self) -> Graph {
        let mut graph = self.forward.clone();
        feed_trained(&mut graph);
        graph
    }

    /// What the state holds before the first step.
    pub(crate) fn initial_state(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(optimizer::initial_state(&self.update)?.into_iter().collect())
    }

    /// The trained weights, in `forward`.
    pub(crate) fn trained(&self) -> Vec<Value> {
        trainable(&self.forward)
    }

    /// The names of the trained weights.
    pub(crate) fn weights(&self) -> Vec<String> {
        self.trained().into_iter().map(|v| self.forward.name(v).to_string()).collect()
    }

    /// The trained weights among a state's tensors; a weight that the loss does not depend on has its initial value.
    pub(crate) fn weights_of(&self, state: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let weight = |v: Value| {
            let name = self.forward.name(v);
            Some((name.to_string(), state.get(name).or(self.forward[v].tensor.as_ref())?.clone()))
        };
        self.trained().into_iter().filter_map(weight).collect()
    }
}

/// Makes the trained weights inputs that can be fed; what is not fed has the value that it has.
pub(crate) fn feed_trained(graph: &mut Graph) {
    for weight in trainable(graph) {
        if !graph.inputs.contains(&weight) {
            graph.inputs.push(weight);
        }
    }
}

/// The weights of the head on `graph`, by their name in `head.safetensors` (`head.weight`, `head.bias`).
pub(crate) fn head_weights(graph: &Graph) -> Vec<(String, Value)> {
    let is_head = |v: &Value| graph[*v].meta.get(meta::TARGET).is_some_and(|t| t == "head");
    let role = |v: Value| graph[v].meta.get(meta::ROLE).map_or(String::new(), |role| format!("head.{role}"));
    trainable(graph).into_iter().filter(is_head).map(|v| (role(v), v)).collect()
}

/// Fills the head that the pass `head` put on `graph` with trained weights, as `head.safetensors` holds them.
///
/// # Errors
/// [`Code::ADAPTER_FIT`] where a weight is missing, unexpected or of another shape.
pub fn fill_head(graph: &mut Graph, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let weights = head_weights(graph);
    let misfit = |message: String| Error::new(Code::ADAPTER_FIT, message);
    if let Some(name) = tensors.keys().find(|name| !weights.iter().any(|(n, _)| n == *name)) {
        return Err(misfit(format!("`{name}` of the trained head has no place in this head")));
    }
    for (name, v) in weights {
        let tensor = tensors.get(&name).ok_or_else(|| misfit(format!("the trained head lacks `{name}`")))?;
        let wanted = graph[v].ty.as_ref().and_then(Type::sizes);
        if graph.dtype(v) != Some(tensor.dtype()) || wanted.as_deref() != Some(tensor.dims()) {
            let found = format!("{}{:?}", tensor.dtype(), tensor.dims());
            let ty = graph[v].ty.as_ref().map_or(String::new(), ToString::to_string);
            return Err(misfit(format!("`{name}` of the trained head is {found}, expected {ty}")));
        }
        graph[v].tensor = Some(tensor.clone());
    }
    Ok(())
}
