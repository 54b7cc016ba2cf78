//! How methods are told in PEFT's `adapter_config.json`: the mapping of its keys to our methods and settings.
use super::{
    Config, METHODS, Method, Variant,
    method::{RANK, STEPS},
};
use graft_ir::{Code, Error, Result, error::nearest};
use serde_json::{Map, Value as Json};

/// How a variant is told in `adapter_config.json`.
pub struct Peft {
    /// `peft_type`: the first is written, all are read. None for a formula of training only: what it leaves in files is the
    /// method's first variant.
    pub types: &'static [&'static str],
    /// Keys that tell it from other variants, each with the values (as JSON) that it may have; the first is written. An
    /// absent key is `null`. Without values, the key must be there.
    pub tells: &'static [(&'static str, &'static [&'static str])],
    /// Keys that hold the value of a setting: key, setting.
    pub settings: &'static [(&'static str, &'static str)],
    /// Keys of the type that mean nothing for this variant.
    pub idle: &'static [&'static str],
}

/// What the keys of a configuration stand for.
#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    /// The method's name.
    pub method: &'static str,
    /// The settings that the keys hold.
    pub settings: Vec<(&'static str, String)>,
    /// Keys that mean nothing for the method.
    pub unknown: Vec<String>,
}

impl Peft {
    fn knows(&self, key: &str) -> bool {
        let told = self.tells.iter().map(|row| row.0).chain(self.settings.iter().map(|row| row.0));
        told.chain(self.idle.iter().copied()).any(|k| k == key)
    }
    /// The first key whose value is not one of this variant's.
    fn contradiction(&self, keys: &Map<String, Json>) -> Option<&'static str> {
        let differs = |(key, values): &&(&'static str, &[&str])| {
            let given = keys.get(*key).unwrap_or(&Json::Null);
            let is_one = values.iter().any(|value| same(given, value));
            if values.is_empty() { given.is_null() } else { !is_one }
        };
        self.tells.iter().find(differs).map(|row| row.0)
    }
    /// The number of keys that must be there for this variant.
    fn demands(&self) -> usize {
        self.tells.iter().filter(|row| row.1.is_empty()).count()
    }
}

/// Whether a value is the one that `text` is the JSON of; numbers may be written as floats.
fn same(given: &Json, text: &str) -> bool {
    let wanted: Json = serde_json::from_str(text).unwrap_or_default();
    match (given.as_f64(), wanted.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => *given == wanted,
    }
}

/// What stands for the steps of a training that is not known: PEFT asks for a number, which no schedule of ours reads.
const UNKNOWN_STEPS: u64 = 1_000_000;

/// Reads what `peft_type` and the keys of a configuration stand for; keys that all methods share are not among them.
///
/// # Errors
/// [`Code::ADAPTER_FEATURE`] where no method has this type, or none does what a key asks for.
pub fn read(peft_type: &str, keys: &Map<String, Json>) -> Result<Told> {
    let variants = || METHODS.iter().flat_map(|m| m.variants.iter().map(move |v| (m, v)));
    let of_type = || variants().filter(|(_, v)| v.peft.types.contains(&peft_type));
    let fits = of_type().filter(|(_, v)| v.peft.contradiction(keys).is_none());
    match fits.max_by_key(|(_, v)| v.peft.demands()) {
        Some((method, variant)) => Ok(told(method, variant, keys)),
        None => Err(refused(peft_type, keys, of_type().map(|(_, v)| v))),
    }
}

fn told(method: &Method, variant: &Variant, keys: &Map<String, Json>) -> Told {
    let example =
        variant.example.iter().filter(|(key, _)| !variant.peft.settings.iter().any(|s| s.1 == *key));
    let fixed = example.map(|&(key, value)| (key, value.to_string()));
    // How long the training was that made the file says nothing of the adapter.
    let lasting = |setting: &str| method.settings.iter().any(|s| s.name == setting && s.default == STEPS);
    let held = variant.peft.settings.iter().filter(|row| !lasting(row.1)).filter_map(|&(key, setting)| {
        let value = keys.get(key).filter(|v| !v.is_null())?;
        Some((setting, value.as_str().map_or_else(|| short(value).to_string(), String::from)))
    });
    let unknown = keys.keys().filter(|key| !variant.peft.knows(key)).cloned().collect();
    Told { method: method.name, settings: fixed.chain(held).collect(), unknown }
}

/// Why no variant fits.
fn refused<'a>(
    peft_type: &str,
    keys: &Map<String, Json>,
    of_type: impl Iterator<Item = &'a Variant>,
) -> Error {
    let given = |key: &str| keys.get(key).unwrap_or(&Json::Null);
    let Some(key) = of_type.filter_map(|v| v.peft.contradiction(keys)).find(|key| !given(key).is_null())
    else {
        let types = METHODS.iter().flat_map(|m| m.variants).flat_map(|v| v.peft.types).copied();
        let near = nearest(peft_type, types).join("`, `");
        return Error::new(Code::ADAPTER_FEATURE, format!("`peft_type` `{peft_type}` is not supported"))
            .help(format!("supported: `{near}`"));
    };
    let message = format!("`{key}: {}` of `adapter_config.json` is not supported", given(key));
    Error::new(Code::ADAPTER_FEATURE, message)
}

/// The `peft_type` and the keys that tell `config`, to be joined with those that all methods share.
pub fn write(method: &Method, config: &Config) -> Result<(&'static str, Map<String, Json>)> {
    let peft = &method.variant(config)?.peft;
    let json = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Json::from(text));
    let tells = peft.tells.iter().filter_map(|(key, values)| Some((key.to_string(), json(values.first()?))));
    let value = |setting: &str| match config.text(setting) {
        RANK => Json::from(config.rank),
        STEPS => Json::from(UNKNOWN_STEPS),
        text => json(text),
    };
    let settings = peft.settings.iter().map(|(key, setting)| (key.to_string(), value(setting)));
    let none = || Error::new(Code::ADAPTER_FEATURE, format!("`{}` cannot be written to files", method.name));
    Ok((peft.types.first().ok_or_else(none)?, tells.chain(settings).collect()))
}

/// The keys that hold how many steps the training has, where no setting says it.
///
/// # Errors
/// As [`Method::variant`]'s.
pub fn steps_keys(method: &Method, config: &Config) -> Result<Vec<&'static str>> {
    let settings = method.variant(config)?.peft.settings.iter();
    Ok(settings.filter(|(_, setting)| config.text(setting) == STEPS).map(|(key, _)| *key).collect())
}

/// Whether adapter files tell the value of a setting; the others are for one training only.
pub fn is_told(method: &Method, setting: &str) -> bool {
    let in_keys = |v: &Variant| v.peft.settings.iter().any(|(_, s)| *s == setting);
    let asks = |v: &Variant| v.example.iter().any(|(key, _)| *key == setting);
    method.variants.iter().filter(|v| !v.peft.types.is_empty()).any(|v| in_keys(v) || asks(v))
}

/// A number without a fraction of zero.
fn short(value: &Json) -> Json {
    match value.as_f64() {
        Some(n) if n.fract() == 0.0 && n.abs() < 1e15 => Json::from(n as i64),
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Map<String, Json> {
        serde_json::from_str(text).unwrap()
    }

    #[track_caller]
    fn told(peft_type: &str, text: &str) -> (&'static str, Vec<String>) {
        let told = read(peft_type, &keys(text)).unwrap();
        (told.method, told.settings.iter().map(|(k, v)| format!("{k}={v}")).collect())
    }

    #[test]
    fn each_spelling_is_one_method() {
        let none: Vec<String> = vec![];
        assert_eq!(told("LORA", "{}"), ("lora", none.clone()));
        assert_eq!(told("LORA", r#"{"use_dora": true}"#), ("lora", vec!["dora=true".into()]));
        assert_eq!(told("LORA", r#"{"lora_nums": 3.0}"#), ("hydra", vec!["experts=3".into()]));
        assert_eq!(told("MISS", r#"{"init_weights": true, "mini_r": 1}"#), ("bone", none.clone()));
        assert_eq!(told("BONE", "{}"), ("bone", none.clone()));
        let mini = r#"{"init_weights": "mini", "mini_r": 4}"#;
        assert_eq!(told("MISS", mini), ("bone", vec!["mini=4".into()]));
        assert_eq!(told("MISS", r#"{"init_weights": "bat"}"#).0, "bat");
        assert_eq!(told("BAT", r#"{"bat_layout": "left"}"#), ("bat", vec!["layout=left".into()]));
        assert_eq!(told("TRIADAPTLORA", "{}").0, "tri");
        assert_eq!(told("SALORA", r#"{"beta": 1, "gamma": -0.1, "zeta": 1.1}"#).0, "salora");
    }

    #[test]
    fn what_no_method_does_is_refused_by_name() {
        for (peft_type, text, wanted) in [
            ("IA3", "{}", "`IA3`"),
            ("MISS", r#"{"init_weights": "svd"}"#, "`init_weights: \"svd\"`"),
            ("SALORA", r#"{"beta": 0.66}"#, "`beta: 0.66`"),
            ("LORA", r#"{"use_dora": "yes"}"#, "`use_dora: \"yes\"`"),
        ] {
            let error = read(peft_type, &keys(text)).unwrap_err();
            assert_eq!(error.code, Code::ADAPTER_FEATURE);
            assert!(error.message.contains(wanted), "{error}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for method in METHODS {
            for variant in method.variants.iter().filter(|v| !v.peft.types.is_empty()) {
                let example = variant.example.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
                let config = Config::new(method, 4, 8.0, example);
                let (peft_type, keys) = write(method, &config).unwrap();
                let told = read(peft_type, &keys).unwrap();
                let settings = told.settings.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
                let again = Config::new(method, 4, 8.0, settings);
                assert_eq!((told.method, told.unknown), (method.name, vec![]), "{}", variant.function);
                assert_eq!((method.function)(&again).unwrap(), variant.function);
            }
        }
    }
}
