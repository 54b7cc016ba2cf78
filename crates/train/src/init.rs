//! An adapter's directory as what the pass `inject` takes: options and tensors.
use crate::convert;
use graft_adapter::{Adapter, Config, format::Naming};
use graft_ir::{Result, Tensor};
use graft_passes::{
    Options,
    inject::{Method, peft},
};
use std::{collections::BTreeMap, path::Path};

/// An adapter to start from, to inject or to merge.
#[derive(Clone, Debug)]
pub struct Init {
    /// What `adapter_config.json` says; of the keys of methods only those that its method knows.
    pub config: Config,
    /// The same as options of the pass `inject`.
    pub options: Options,
    /// Its tensors by file key.
    pub tensors: BTreeMap<String, Tensor>,
    /// What of the configuration has no effect: one sentence each, to be shown.
    pub warnings: Vec<String>,
}

/// What PEFT takes alpha to be where a configuration does not say it.
const PEFT_ALPHA: f64 = 8.0;

impl Init {
    /// Reads an adapter's directory, or its file in another format.
    ///
    /// # Errors
    /// Those of [`graft_adapter::load`], or of [`convert::read`], and [`graft_ir::Code::ADAPTER_FEATURE`] for what no method
    /// can do.
    pub fn read(dir: &Path) -> Result<Init> {
        if dir.is_file() {
            return convert::read(dir, None, &Naming::default());
        }
        let place = || dir.join(graft_adapter::CONFIG_FILE).display().to_string();
        Init::of(graft_adapter::load(dir)?).map_err(|e| e.at(place()))
    }

    /// What an adapter's files hold, understood.
    ///
    /// # Errors
    /// [`graft_ir::Code::ADAPTER_FEATURE`] for what no method can do.
    pub fn of(adapter: Adapter) -> Result<Init> {
        let (config, options, unknown) = understood(adapter.config)?;
        let ignored = |key| format!("unknown key `{key}` of `{}` is ignored", graft_adapter::CONFIG_FILE);
        let warnings = adapter.warnings.into_iter().chain(unknown.iter().map(ignored)).collect();
        Ok(Init { config, options, tensors: adapter.tensors, warnings })
    }
}

/// The configuration with the keys that its method knows, the options that it stands for, and the other keys.
pub(crate) fn understood(mut config: Config) -> Result<(Config, Options, Vec<String>)> {
    let told = peft::read(&config.peft_type, &config.keys)?;
    config.keys.retain(|key, _| !told.unknown.contains(key));
    let mut options = Options::default().with("method", told.method);
    for (key, value) in config.options()? {
        options = options.with(&key, value);
    }
    if config.alpha.is_none() && Method::named(told.method)?.alpha.is_some() {
        options = options.with("alpha", PEFT_ALPHA);
    }
    let options = told.settings.iter().fold(options, |options, (key, value)| options.with(key, value));
    Ok((config, options, told.unknown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_adapter::Targets;

    #[test]
    fn keys_of_the_method_become_its_settings_and_others_are_told() {
        let mut config = Config::new("MISS", 4, Targets::List(vec!["query".into()]));
        config.keys =
            serde_json::from_str(r#"{"init_weights": "mini", "mini_r": 2.0, "colour": 3}"#).unwrap();
        let (config, options, unknown) = understood(config).unwrap();
        let expected = Options::default().with("method", "bone").with("rank", 4).with("targets", "query");
        assert_eq!(options, expected.with("mini", 2));
        assert_eq!(unknown, ["colour"]);
        assert!(!config.keys.contains_key("colour") && config.keys.contains_key("mini_r"));
        let lora = understood(Config::new("LORA", 4, Targets::AllLinear)).unwrap().1;
        assert_eq!(lora.get::<f64>("alpha").unwrap(), Some(8.0));
    }
}
