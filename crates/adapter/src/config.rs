//! `adapter_config.json`: what PEFT 0.21 writes, read strictly, and what we write so that PEFT can read it.
use crate::{
    features::{FEATURES, IGNORED},
    fields::Fields,
};
use graft_ir::{Code, Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Which modules an adapter stands on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Targets {
    /// Module paths, or suffixes of them that begin after a dot.
    List(Vec<String>),
    /// A regular expression that a whole module path must match.
    Regex(String),
    /// Every eligible linear but the output layer (`"all-linear"`).
    AllLinear,
}

/// What an `adapter_config.json` says.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// PEFT's name of the method: `LORA`, `MISS`, …
    pub peft_type: String,
    /// `r`.
    pub rank: usize,
    /// `lora_alpha`, where the method has one.
    pub alpha: Option<f64>,
    /// `target_modules`.
    pub targets: Targets,
    /// `exclude_modules`.
    pub exclude: Option<Targets>,
    /// `layers_to_transform`: only modules with one of these layer numbers in their path.
    pub layers: Vec<usize>,
    /// `layers_pattern`: the names after which the layer's number stands.
    pub layers_pattern: Vec<String>,
    /// Module pattern → rank, where it is not `rank`.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Module pattern → alpha, where it is not `alpha`.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// The base layer stores its weight as (in, out); of no consequence here, and kept.
    pub fan_in_fan_out: bool,
    /// `base_model_name_or_path`, kept.
    pub base_model: Option<String>,
    /// All other keys (`use_rslora`, `init_weights`, `lora_nums`, …) with their values: what `peft_type` makes of them
    /// is for the methods to say, and so is which of them are known.
    pub keys: Map<String, Value>,
}

impl Config {
    /// A configuration of `peft_type` with nothing but rank and targets.
    pub fn new(peft_type: &str, rank: usize, targets: Targets) -> Config {
        Config {
            peft_type: peft_type.into(),
            rank,
            alpha: None,
            targets,
            exclude: None,
            layers: Vec::new(),
            layers_pattern: Vec::new(),
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            fan_in_fan_out: false,
            base_model: None,
            keys: Map::new(),
        }
    }

    /// Reads the text of an `adapter_config.json`; also returns what is to be said about keys without effect.
    ///
    /// `peft_type`, `r` and `target_modules` suffice; numbers may be floats; a key that asks for something that no
    /// method supports is refused, and one that is not known here is kept for the methods.
    pub fn parse(text: &str) -> Result<(Config, Vec<String>)> {
        let mut fields = Fields::parse(text)?;
        let missing = |key: &str| Error::new(Code::ADAPTER, format!("the configuration has no `{key}`"));
        let peft_type = fields.string("peft_type")?.ok_or_else(|| missing("peft_type"))?;
        let rank = fields.size("r")?.filter(|&r| r > 0).ok_or_else(|| missing("r"))?;
        let targets =
            read_targets(&mut fields, "target_modules")?.ok_or_else(|| missing("target_modules"))?;
        let config = Config {
            alpha: fields.number("lora_alpha")?,
            exclude: read_targets(&mut fields, "exclude_modules")?,
            layers: fields.sizes("layers_to_transform")?.unwrap_or_default(),
            layers_pattern: fields.strings("layers_pattern")?.unwrap_or_default(),
            rank_pattern: fields.size_map("rank_pattern")?,
            alpha_pattern: fields.number_map("alpha_pattern")?,
            fan_in_fan_out: fields.flag("fan_in_fan_out")?,
            base_model: fields.string("base_model_name_or_path")?,
            ..Config::new(&peft_type, rank, targets)
        };
        let mut warnings = Vec::new();
        for feature in FEATURES {
            let Some(value) = fields.take(feature.key) else { continue };
            warnings.extend(feature.judge(&value)?);
        }
        let keys = fields.rest().into_iter().filter(|(key, _)| !IGNORED.contains(&&**key)).collect();
        Ok((Config { keys, ..config }, warnings))
    }

    /// The text of the `adapter_config.json`: keys sorted, two spaces of indentation, as PEFT writes it.
    pub fn to_json(&self) -> String {
        let mut keys: BTreeMap<String, Value> = BTreeMap::new();
        let mut put = |key: &str, value: Value| drop(keys.insert(key.into(), value));
        put("peft_type", json!(self.peft_type));
        put("r", json!(self.rank));
        put("target_modules", self.targets.to_json());
        put("exclude_modules", self.exclude.as_ref().map_or(Value::Null, Targets::to_json));
        put("layers_to_transform", or_null(&self.layers));
        put("layers_pattern", or_null(&self.layers_pattern));
        put("base_model_name_or_path", json!(self.base_model));
        put("bias", json!("none"));
        put("inference_mode", json!(true));
        put("modules_to_save", Value::Null);
        put("revision", Value::Null);
        put("task_type", Value::Null);
        if self.alpha.is_some() || !self.rank_pattern.is_empty() {
            put("rank_pattern", json!(self.rank_pattern));
        }
        if let Some(alpha) = self.alpha {
            put("lora_alpha", short(alpha));
            put("lora_dropout", json!(0.0));
            put("alpha_pattern", self.alpha_pattern.iter().map(|(k, &a)| (k.clone(), short(a))).collect());
            put("fan_in_fan_out", json!(self.fan_in_fan_out));
        }
        keys.extend(self.keys.clone());
        let text = serde_json::to_string_pretty(&keys).expect("a map of JSON values prints");
        text + "\n"
    }
}

impl Targets {
    /// As `adapter_config.json` has it: a list, or a string.
    fn to_json(&self) -> Value {
        match self {
            Targets::List(paths) => json!(paths),
            Targets::Regex(pattern) => json!(pattern),
            Targets::AllLinear => json!("all-linear"),
        }
    }
    /// As the command line has it: a comma list, `re:…` or `all-linear`.
    pub fn to_selector(&self) -> String {
        match self {
            Targets::List(paths) => paths.join(","),
            Targets::Regex(pattern) => format!("re:{pattern}"),
            Targets::AllLinear => "all-linear".into(),
        }
    }
    /// Reads what [`Targets::to_selector`] writes.
    pub fn from_selector(text: &str) -> Targets {
        match text.strip_prefix("re:") {
            Some(pattern) => Targets::Regex(pattern.into()),
            None if text == "all-linear" => Targets::AllLinear,
            None => Targets::List(text.split(',').map(|s| s.trim().to_string()).collect()),
        }
    }
}

fn read_targets(fields: &mut Fields, key: &str) -> Result<Option<Targets>> {
    fields.read(key, "a string or a list of strings", |v| match v {
        Value::String(s) if s == "all-linear" => Some(Targets::AllLinear),
        Value::String(s) => Some(Targets::Regex(s.clone())),
        Value::Array(list) => {
            list.iter().map(|v| v.as_str().map(String::from)).collect::<Option<_>>().map(Targets::List)
        }
        _ => None,
    })
}

fn or_null<T: serde::Serialize>(list: &[T]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

/// A number, written as an integer where it is one: older PEFT versions declare alpha as `int`.
fn short(n: f64) -> Value {
    if n.fract() == 0.0 && n.abs() < 1e15 { json!(n as i64) } else { json!(n) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_configuration_suffices() {
        let (config, warnings) =
            Config::parse(r#"{"peft_type": "LORA", "r": 8.0, "target_modules": ["query"]}"#).unwrap();
        assert_eq!(config, Config::new("LORA", 8, Targets::List(vec!["query".into()])));
        assert!(warnings.is_empty());
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut config = Config::new("LORA", 4, Targets::Regex(r".*\.(query|key)".into()));
        config.alpha = Some(8.5);
        config.rank_pattern.insert("a.b".into(), 2);
        config.alpha_pattern.insert("a.b".into(), 4.0);
        config.layers = vec![1, 3];
        config.exclude = Some(Targets::List(vec!["pooler".into()]));
        config.keys.insert("use_rslora".into(), true.into());
        let (read, warnings) = Config::parse(&config.to_json()).unwrap();
        assert_eq!(read, config);
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn other_keys_are_kept_for_the_methods() {
        let text = r#"{"peft_type": "MISS", "r": 8, "target_modules": "all-linear", "init_weights": "mini", "revision": null}"#;
        let (config, warnings) = Config::parse(text).unwrap();
        assert_eq!((config.targets, warnings), (Targets::AllLinear, vec![]));
        assert_eq!(config.keys, Map::from_iter([("init_weights".to_string(), json!("mini"))]));
    }

    #[test]
    fn bad_values_are_named() {
        for (text, wanted) in [
            ("[]", "not a JSON object"),
            ("{", "not valid JSON"),
            (r#"{"r": 8, "target_modules": []}"#, "no `peft_type`"),
            (r#"{"peft_type": "LORA", "target_modules": []}"#, "no `r`"),
            (r#"{"peft_type": "LORA", "r": 0, "target_modules": []}"#, "no `r`"),
            (r#"{"peft_type": "LORA", "r": 2.5, "target_modules": []}"#, "`r` must be a whole number"),
            (r#"{"peft_type": "LORA", "r": 1e300, "target_modules": []}"#, "`r` must be a whole number"),
            (r#"{"peft_type": "LORA", "r": 8, "target_modules": [1]}"#, "`target_modules` must be"),
            (r#"{"peft_type": "LORA", "r": 8}"#, "no `target_modules`"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert_eq!(error.code, Code::ADAPTER, "{text}");
            assert!(error.message.contains(wanted), "{text}: {error}");
        }
    }
}
