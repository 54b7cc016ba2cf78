//! Which of PEFT's features are refused for every method, and a configuration as options of the pass `inject`.
use crate::{Config, Targets};
use graft_ir::{Code, Error, Result};
use serde_json::Value;

/// A key of `adapter_config.json` that changes what the adapter computes and is not supported, unless it has one of the
/// values that switch it off.
pub(crate) struct Feature {
    pub(crate) key: &'static str,
    /// Whether a value leaves the adapter as we compute it.
    off: fn(&Value) -> bool,
    /// What to say where it does not change the trained adapter's result, only its training; `None`: refused.
    warning: Option<&'static str>,
}

/// What is refused or reported, by name. `null` and absent keys are always off.
pub(crate) const FEATURES: &[Feature] = &[
    refused("lora_bias", is_false),
    refused("bias", |v| v == "none"),
    refused("modules_to_save", is_empty),
    refused("trainable_token_indices", is_empty),
    refused("target_parameters", is_empty),
    refused("layer_replication", is_empty),
    refused("use_qalora", is_false),
    refused("use_bdlora", is_false),
    refused("alora_invocation_tokens", is_empty),
    refused("arrow_config", is_empty),
    refused("velora_config", is_empty),
    refused("monteclora_config", is_empty),
    refused("kasa_config", is_empty),
    // These initialisations change the base weights, so that the adapter alone is not the whole difference.
    refused("init_lora_weights", |v| {
        let changes_base = ["pissa", "olora", "corda", "loftq", "lora_ga", "kasa"];
        v.as_str().is_none_or(|s| !changes_base.iter().any(|p| s.starts_with(p)))
    }),
    without_effect(
        "lora_dropout",
        "`lora_dropout` of `adapter_config.json` has no effect: training runs without dropout",
    ),
    without_effect(
        "miss_dropout",
        "`miss_dropout` of `adapter_config.json` has no effect: training runs without dropout",
    ),
    without_effect(
        "bone_dropout",
        "`bone_dropout` of `adapter_config.json` has no effect: training runs without dropout",
    ),
];

/// Keys that say nothing about what the adapter computes.
pub(crate) const IGNORED: &[&str] = &[
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

const fn without_effect(key: &'static str, warning: &'static str) -> Feature {
    Feature { key, off: |v| v.as_f64() == Some(0.0), warning: Some(warning) }
}

const fn refused(key: &'static str, off: fn(&Value) -> bool) -> Feature {
    Feature { key, off, warning: None }
}

fn is_false(v: &Value) -> bool {
    v == &Value::Bool(false)
}

fn is_empty(v: &Value) -> bool {
    v.as_array().is_some_and(Vec::is_empty) || v.as_object().is_some_and(serde_json::Map::is_empty)
}

impl Feature {
    /// What to say about `value`; an error where it cannot be honoured.
    pub(crate) fn judge(&self, value: &Value) -> Result<Option<String>> {
        match self.warning {
            _ if (self.off)(value) => Ok(None),
            Some(warning) => Ok(Some(warning.into())),
            None => {
                let message = format!("`{}: {value}` of `adapter_config.json` is not supported", self.key);
                Err(Error::new(Code::ADAPTER_FEATURE, message))
            }
        }
    }
}

impl Config {
    /// What all methods share, as options of the pass `inject` in the spelling of the command line: `rank`, `alpha`,
    /// `targets`, `exclude`, `layers`, `rank-pattern`, `alpha-pattern`. What `peft_type` and [`Config::keys`] mean is
    /// for the methods to say.
    pub fn options(&self) -> Result<Vec<(String, String)>> {
        let mut options: Vec<(String, String)> = Vec::new();
        let mut put = |key: &str, value: String| options.push((key.into(), value));
        put("rank", self.rank.to_string());
        if let Some(alpha) = self.alpha {
            put("alpha", alpha.to_string());
        }
        put("targets", self.targets.to_selector());
        if let Some(exclude) = &self.exclude {
            put("exclude", exclude.to_selector());
        }
        if !self.layers.is_empty() {
            put("layers", self.layers.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
        }
        if !self.layers_pattern.is_empty() {
            put("layers-pattern", self.layers_pattern.join(","));
        }
        for (pattern, rank) in &self.rank_pattern {
            put("rank-pattern", format!("{}={rank}", selector(pattern)));
        }
        for (pattern, alpha) in &self.alpha_pattern {
            put("alpha-pattern", format!("{}={alpha}", selector(pattern)));
        }
        Ok(options)
    }
}

/// A key of PEFT's patterns as a selector. PEFT matches it as a regular expression at the end of a module's path.
fn selector(pattern: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-".contains(c);
    if pattern.chars().all(plain) {
        Targets::List(vec![pattern.into()]).to_selector()
    } else {
        Targets::Regex(format!(r"(.*\.)?({pattern})")).to_selector()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_refused_by_name() {
        for feature in [
            r#""bias": "all""#,
            r#""modules_to_save": ["classifier"]"#,
            r#""lora_bias": true"#,
            r#""init_lora_weights": "pissa_niter_4""#,
            r#""layer_replication": [[0, 4]]"#,
            r#""target_parameters": ["w"]"#,
        ] {
            let text = format!(r#"{{"peft_type": "LORA", "r": 8, "target_modules": ["q"], {feature}}}"#);
            let error = Config::parse(&text).unwrap_err();
            assert_eq!(error.code, Code::ADAPTER_FEATURE, "{feature}");
            let key = feature.split('"').nth(1).unwrap();
            assert!(error.message.contains(key), "{feature}: {error}");
        }
    }

    #[test]
    fn dropout_is_reported() {
        let text = r#"{"peft_type": "LORA", "r": 8, "target_modules": ["q"], "lora_dropout": 0.05}"#;
        let (_, warnings) = Config::parse(text).unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("lora_dropout"));
    }

    #[test]
    fn options_are_in_the_spelling_of_the_command_line() {
        let mut config = Config::new("LORA", 4, Targets::List(vec!["query".into(), "key".into()]));
        config.rank_pattern.insert("0.query".into(), 2);
        config.rank_pattern.insert("(1|2).query".into(), 3);
        let options = config.options().unwrap();
        let of = |key: &str| -> Vec<&str> {
            options.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect()
        };
        assert_eq!((of("rank"), of("alpha")), (vec!["4"], vec![]));
        assert_eq!(of("targets"), ["query,key"]);
        assert_eq!(of("rank-pattern"), [r"re:(.*\.)?((1|2).query)=3", "0.query=2"]);
    }
}
