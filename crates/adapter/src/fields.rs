//! Reading a JSON object key by key, each with the type that it must have; numbers may be written as floats.
use graft_ir::{Code, Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The keys of an object that have not been read yet.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// The keys of the object in `text`.
    pub(crate) fn parse(text: &str) -> Result<Fields> {
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Fields(map)),
            Ok(_) => Err(Error::new(Code::ADAPTER, "the configuration is not a JSON object")),
            Err(e) => Err(Error::new(Code::ADAPTER, format!("the configuration is not valid JSON: {e}"))),
        }
    }
    /// Takes a key out; absent and `null` are the same.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.0.shift_remove(key).filter(|v| !v.is_null())
    }
    /// Takes a string.
    pub(crate) fn string(&mut self, key: &str) -> Result<Option<String>> {
        self.read(key, "a string", |v| v.as_str().map(String::from))
    }
    /// Takes a truth value.
    pub(crate) fn flag(&mut self, key: &str) -> Result<bool> {
        Ok(self.read(key, "true or false", Value::as_bool)?.unwrap_or(false))
    }
    /// Takes a whole number.
    pub(crate) fn size(&mut self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number", size)
    }
    /// Takes a finite number.
    pub(crate) fn number(&mut self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a finite number", number)
    }
    /// Takes one whole number or a list of them.
    pub(crate) fn sizes(&mut self, key: &str) -> Result<Option<Vec<usize>>> {
        self.read(key, "a whole number or a list of them", |v| one_or_many(v, size))
    }
    /// Takes one string or a list of them.
    pub(crate) fn strings(&mut self, key: &str) -> Result<Option<Vec<String>>> {
        self.read(key, "a string or a list of them", |v| one_or_many(v, |v| v.as_str().map(String::from)))
    }
    /// Takes an object of whole numbers.
    pub(crate) fn size_map(&mut self, key: &str) -> Result<BTreeMap<String, usize>> {
        Ok(self.read(key, "an object of whole numbers", |v| map(v, size))?.unwrap_or_default())
    }
    /// Takes an object of finite numbers.
    pub(crate) fn number_map(&mut self, key: &str) -> Result<BTreeMap<String, f64>> {
        Ok(self.read(key, "an object of finite numbers", |v| map(v, number))?.unwrap_or_default())
    }
    /// What nobody took, in the file's order.
    pub(crate) fn rest(self) -> Map<String, Value> {
        self.0
    }
    /// Takes `key` and reads it, `wanted` saying what it must be.
    pub(crate) fn read<T>(
        &mut self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let bad = || Error::new(Code::ADAPTER, format!("`{key}` must be {wanted}, found `{value}`"));
        read(&value).map(Some).ok_or_else(bad)
    }
}

fn number(v: &Value) -> Option<f64> {
    v.as_f64().filter(|n| n.is_finite())
}

/// A whole number, also where it is written as a float; the limit keeps products of two sizes inside 64 bits.
fn size(v: &Value) -> Option<usize> {
    let n = number(v)?;
    (n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&n)).then_some(n as usize)
}

fn one_or_many<T>(v: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    v.as_array().map_or_else(|| read(v).map(|one| vec![one]), |many| many.iter().map(&read).collect())
}

fn map<T>(v: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<BTreeMap<String, T>> {
    v.as_object()?.iter().map(|(k, v)| Some((k.clone(), read(v)?))).collect()
}
