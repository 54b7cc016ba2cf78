//! What training starts from: the options of the adapter to put on, and the trained weights to fill it with.
use crate::{config::Config, experts, init::Init, observer::Observer};
use graft_adapter::HEAD_FILE;
use graft_ir::{Result, Tensor};
use graft_passes::Options;
use std::collections::BTreeMap;

/// What a configuration says of the beginning, read and understood.
pub(crate) struct Start {
    /// The options of the pass `inject`; `None` where there is no adapter.
    pub(crate) inject: Option<Options>,
    /// The adapter to start from.
    pub(crate) adapter: Option<Init>,
    /// The head that was trained with it, by the names of its file.
    pub(crate) head: Option<BTreeMap<String, Tensor>>,
}

impl Start {
    /// Reads the adapter to start from, where there is one, and settles what `inject` is to do.
    pub(crate) fn read(config: &Config, observer: &mut dyn Observer) -> Result<Start> {
        let adapter = config.init.as_deref().map(Init::read).transpose()?;
        adapter.iter().flat_map(|a| &a.warnings).for_each(|warning| observer.note(warning));
        let file = config.init.as_ref().map(|dir| dir.join(HEAD_FILE)).filter(|file| file.exists());
        let head = file.map(|file| graft_adapter::tensors::read(&file)).transpose()?;
        let inject = config.inject_options(adapter.as_ref().map(|a| &a.options))?;
        let inject = inject.map(|options| experts::settled(options, config, observer)).transpose()?;
        if head.is_some() && config.head.is_none() {
            observer.note("the adapter to start from has a trained head, which is not used without `--head`");
        }
        Ok(Start { inject, adapter, head })
    }

    /// The head's weights, where the run has a head to be filled.
    pub(crate) fn wanted_head(&self, config: &Config) -> Option<&BTreeMap<String, Tensor>> {
        self.head.as_ref().filter(|_| config.head.is_some())
    }
}
