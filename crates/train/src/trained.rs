//! What a run trains, its files, and how it is put on a base model again: an adapter beside the weights or folded into
//! them, and a head.
use crate::{
    graphs::{fill_head, head_weights},
    init::Init,
};
use graft_adapter::Head;
use graft_ir::{Graph, Result, Tensor};
use graft_passes::{ALL, Context, Options, Stage, inject::Inputs, pipeline};
use std::{collections::BTreeMap, path::Path};

/// What was trained.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The adapter; `None` where the head alone was trained.
    pub adapter: Option<Init>,
    /// The head, where there is one.
    pub head: Option<Head>,
}

impl Trained {
    /// Reads an adapter's directory with the head in it.
    ///
    /// # Errors
    /// As [`Init::read`]'s and [`Head::read`]'s.
    pub fn read(dir: &Path) -> Result<Trained> {
        let head = Head::read(dir)?;
        let is_alone = head.as_ref().is_some_and(|head| head.is_alone);
        Ok(Trained { adapter: (!is_alone).then(|| Init::read(dir)).transpose()?, head })
    }

    /// Writes the files of the adapter and of the head into `dir`, which must exist; the manifest is another matter.
    pub fn save(&self, dir: &Path) -> Result<()> {
        if let Some(adapter) = &self.adapter {
            graft_adapter::save(dir, &adapter.config, &adapter.tensors)?;
        }
        self.head.as_ref().map_or(Ok(()), |head| head.save(dir))
    }
}

/// `graph` with the adapter beside its weights, of which `inputs` are overridable inputs.
///
/// # Errors
/// As the pass `inject`'s.
pub fn inject(graph: &Graph, adapter: &Init, inputs: Inputs, log: &mut dyn FnMut(&str)) -> Result<Graph> {
    let options = adapter.options.clone().with("inputs", inputs);
    run(Stage { name: "inject".into(), options }, graph, Some(&adapter.tensors), log)
}

/// `graph` with `weight` times the adapter folded into its weights.
///
/// # Errors
/// As the pass `merge`'s.
pub fn merge(graph: &Graph, adapter: &Init, weight: f64, log: &mut dyn FnMut(&str)) -> Result<Graph> {
    let options = adapter.options.clone().with("weight", weight);
    run(Stage { name: "merge".into(), options }, graph, Some(&adapter.tensors), log)
}

/// `graph` with the head on it: a further output. With `notes`, the head carries the notes by which it is known as
/// grafted; without, it is a part of the model like any other.
///
/// # Errors
/// As the pass `head`'s, and as [`fill_head`]'s.
pub fn put_head(graph: &Graph, head: &Head, notes: bool, log: &mut dyn FnMut(&str)) -> Result<Graph> {
    let pairs = head.options.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
    let options = pairs.fold(Options::default(), |options, (key, value)| options.with(key, value));
    let mut graph = run(Stage { name: "head".into(), options }, graph, None, log)?;
    fill_head(&mut graph, &head.tensors)?;
    if !notes {
        head_weights(&graph).into_iter().for_each(|(_, v)| graph[v].meta.clear());
    }
    Ok(graph)
}

/// Runs one pass. Whatever it draws at random is overwritten by what was trained.
fn run(
    stage: Stage,
    graph: &Graph,
    adapter: Option<&BTreeMap<String, Tensor>>,
    log: &mut dyn FnMut(&str),
) -> Result<Graph> {
    let mut ctx = Context { log, has_kernel: &graft_kernels::supports, adapter, seed: 0 };
    pipeline::run(ALL, &[stage], graph, &mut ctx, &mut |_| ())
}
