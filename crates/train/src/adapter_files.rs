//! The files of an adapter that is trained elsewhere: the folder as it is before the first step, and a graph that makes
//! the tensors in it of the state.
use crate::{config::Config, outputs::Outputs, start::Start, trained::Trained};
use graft_ir::{Builder, Code, Error, Graph, Result, Tensor, Type};
use graft_passes::inject::{Stored, stored};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What makes an adapter's folder of a training graph's state.
#[derive(Debug)]
pub struct AdapterFiles {
    /// Trained weights in, by their names in the state; the tensors of `adapter_model.safetensors` out, by their keys.
    pub graph: Graph,
    /// Everything in the folder but the trained numbers.
    outputs: Outputs,
    /// What there is before the first step.
    untrained: Trained,
}

impl AdapterFiles {
    /// For the adapters on `forward`, which was made of `base`, whose weights are in `state` where they are trained.
    ///
    /// # Errors
    /// [`Code::SETTING`] where the ranks that count are known only when the training is over.
    pub(crate) fn new(
        base: &Graph,
        forward: &Graph,
        start: &Start,
        config: &Config,
        state: &BTreeMap<String, Tensor>,
    ) -> Result<AdapterFiles> {
        let init = start.adapter.as_ref().map(|adapter| &adapter.config);
        let outputs = Outputs::new(base, forward, start.inject.as_ref(), config.head.as_ref(), init)?;
        if outputs.cuts_ranks() {
            let message = "the files of an adapter whose ranks come and go depend on those that are left";
            return Err(Error::new(Code::SETTING, message)
                .help("leave `--with adapter` out, or train with `graft train`, which writes them"));
        }
        let untrained = outputs.trained(forward, &BTreeMap::new())?;
        Ok(AdapterFiles { graph: graph(forward, state)?, outputs, untrained })
    }

    /// Refuses a folder that is there already, unless `force` is given.
    pub(crate) fn check(folder: &Path, force: bool) -> Result<()> {
        if force || !folder.exists() {
            return Ok(());
        }
        let message = format!("`{}` exists already", folder.display());
        Err(Error::new(Code::EXISTS, message).help("overwrite what is in it with `--force`"))
    }

    /// Writes the untrained adapter into `folder`, in place of one that is there; returns its files.
    pub(crate) fn write(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let failed = |e| Error::new(Code::IO, format!("`{}` cannot be written: {e}", folder.display()));
        fs::create_dir_all(folder).map_err(failed)?;
        let files = FILES.map(|file| folder.join(file));
        let there = || files.iter().filter(|file| file.exists());
        there().try_for_each(fs::remove_file).map_err(failed)?;
        self.outputs.write(&self.untrained, folder)?;
        Ok(there().cloned().collect())
    }
}

/// Every file that an adapter's folder may hold.
const FILES: [&str; 4] = [
    graft_adapter::CONFIG_FILE,
    graft_adapter::MODEL_FILE,
    graft_adapter::HEAD_FILE,
    graft_adapter::MANIFEST_FILE,
];

/// From the state to the tensors of the adapter's file. A weight that is no state, because the loss does not depend on
/// it, is the param that it was.
///
/// The head is not in it: what trains is what `head.safetensors` holds.
fn graph(forward: &Graph, state: &BTreeMap<String, Tensor>) -> Result<Graph> {
    let opset = forward.opset("").map(|version| (String::new(), version));
    let mut graph = Graph { name: "adapter".into(), opsets: opset.into_iter().collect(), ..Graph::default() };
    for Stored { weight, target, form } in stored(forward)? {
        let name = forward.name(weight);
        let weight = match (state.get(name), &forward[weight].tensor) {
            (Some(tensor), _) => graph.add_input(name, Type::new(tensor.dtype(), tensor.dims().to_vec())),
            (None, Some(tensor)) => graph.add_param(name, tensor.clone()),
            (None, None) => {
                return Err(Error::new(Code::VALUE, format!("the data of weight `{name}` is elided")));
            }
        };
        let key = |suffix: &str| graft_adapter::file_key(&format!("{target}.{suffix}"));
        let tensors = form.append(weight, &key, &mut Builder::new(&mut graph))?;
        graph.outputs.extend(tensors);
    }
    Ok(graph)
}
