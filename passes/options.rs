//! Options of a pass: `key=value` pairs, read with types, unknown keys refused.
use graft_ir::{Code, Error, Result, error::nearest};
use std::{collections::BTreeMap, str::FromStr};

/// Options by key. A key may repeat (`rank-pattern`): values are kept in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<String, Vec<String>>);

impl Options {
    /// Adds a pair.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Options {
        self.0.entry(key.into()).or_default().push(value.to_string());
        self
    }
    /// The same pairs but those of `key`.
    #[must_use]
    pub fn without(&self, key: &str) -> Options {
        Options(self.0.iter().filter(|(k, _)| *k != key).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
    /// Every value given for `key`.
    pub fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }
    /// The last value given for `key`, parsed.
    pub fn get<T: FromStr>(&self, key: &str) -> Result<Option<T>> {
        let Some(text) = self.all(key).last() else { return Ok(None) };
        let bad = || Error::new(Code::PASS, format!("option `{key}`: bad value `{text}`"));
        text.parse().map(Some).map_err(|_| bad())
    }
    /// The same, or `default`.
    pub fn get_or<T: FromStr>(&self, key: &str, default: T) -> Result<T> {
        Ok(self.get(key)?.unwrap_or(default))
    }
    /// Every key with its values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_slice()))
    }
    /// Refuses keys that are not among `known`.
    pub fn expect_only(&self, known: &[&str]) -> Result<()> {
        let Some(key) = self.0.keys().find(|k| !known.contains(&k.as_str())) else { return Ok(()) };
        let help = if known.is_empty() {
            "known options: none".into()
        } else {
            let near = nearest(key, known.iter().copied()).join("`, `");
            format!("nearest: `{near}`; known options: `{}`", known.join("`, `"))
        };
        Err(Error::new(Code::PASS, format!("unknown option `{key}`")).help(help))
    }
}
