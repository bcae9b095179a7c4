//! `config.json` with getters whose errors name the key and the file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::CheckpointError;

/// The longest JSON file that is read, in bytes.
const LONGEST_JSON: u64 = 100_000_000;

/// A model's settings, as `config.json` gives them.
#[derive(Clone, Debug)]
pub struct Config {
    path: PathBuf,
    values: Map<String, Value>,
}

impl Config {
    /// Reads a file that must hold one JSON object.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        match read_json(path)? {
            Value::Object(values) => Ok(Self { path: path.to_owned(), values }),
            other => Err(CheckpointError::folder(path, format!("should be an object, is {}", kind(&other)))),
        }
    }

    /// Settings that come from elsewhere; `path` is what errors call them.
    pub fn new(path: impl Into<PathBuf>, values: Map<String, Value>) -> Self {
        Self { path: path.into(), values }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything, in the file's order.
    pub fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    /// A key's value; `null` counts as absent, as it does in `transformers`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// A non-negative whole number.
    pub fn usize(&self, key: &str) -> Result<usize, CheckpointError> {
        self.required(key, self.optional_usize(key)?)
    }

    /// A number.
    pub fn f64(&self, key: &str) -> Result<f64, CheckpointError> {
        self.required(key, self.optional_f64(key)?)
    }

    /// `true` or `false`.
    pub fn bool(&self, key: &str) -> Result<bool, CheckpointError> {
        self.required(key, self.optional_bool(key)?)
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<&str, CheckpointError> {
        self.required(key, self.optional_str(key)?)
    }

    /// [`usize`](Self::usize), or `None` where the key is absent.
    pub fn optional_usize(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        self.optional(key, "a non-negative whole number", |value| value.as_u64()?.try_into().ok())
    }

    /// [`f64`](Self::f64), or `None` where the key is absent.
    pub fn optional_f64(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.optional(key, "a number", Value::as_f64)
    }

    /// [`bool`](Self::bool), or `None` where the key is absent.
    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.optional(key, "true or false", Value::as_bool)
    }

    /// [`str`](Self::str), or `None` where the key is absent.
    pub fn optional_str(&self, key: &str) -> Result<Option<&str>, CheckpointError> {
        self.optional(key, "a string", Value::as_str)
    }

    fn optional<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match convert(value) {
                Some(converted) => Ok(Some(converted)),
                None => Err(self.invalid(key, format!("should be {expected}, is {}", kind(value)))),
            },
        }
    }

    /// A structured value, or `None` where the key is absent.
    pub fn optional_struct<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, CheckpointError> {
        self.get(key)
            .map(|value| T::deserialize(value).map_err(|error| self.invalid(key, error.to_string())))
            .transpose()
    }

    /// The error for a value that parses but cannot be used.
    pub fn invalid(&self, key: &str, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Config { path: self.path.clone(), key: key.to_owned(), reason: reason.into() }
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, CheckpointError> {
        value.ok_or_else(|| self.invalid(key, "is missing"))
    }
}

/// A JSON file of bounded length.
pub(super) fn read_json(path: &Path) -> Result<Value, CheckpointError> {
    let file = File::open(path).map_err(CheckpointError::read(path))?;
    let mut text = Vec::new();
    file.take(LONGEST_JSON + 1).read_to_end(&mut text).map_err(CheckpointError::read(path))?;
    if text.len() as u64 > LONGEST_JSON {
        return Err(CheckpointError::folder(path, format!("is longer than the limit of {LONGEST_JSON} bytes")));
    }
    serde_json::from_slice(&text).map_err(|source| CheckpointError::Json { path: path.to_owned(), source })
}

/// What a value is, for messages: short ones are shown.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) => format!("the string \"{}\"", super::error::printable(value)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(value: Value) -> Config {
        Config::new("folder/config.json", value.as_object().expect("an object").clone())
    }

    #[test]
    fn values_are_given_by_type() {
        let config = config(json!({"n": 3, "x": 0.5, "on": true, "act": "gelu", "none": null}));
        assert_eq!(config.usize("n").unwrap(), 3);
        assert_eq!(config.f64("n").unwrap(), 3.0);
        assert_eq!(config.f64("x").unwrap(), 0.5);
        assert!(config.bool("on").unwrap());
        assert_eq!(config.str("act").unwrap(), "gelu");
        assert_eq!(config.optional_usize("none").unwrap(), None);
    }

    #[test]
    fn errors_name_the_key_and_the_file() {
        let config = config(json!({"n": -1, "act": ["gelu"]}));
        let text = |error: CheckpointError| error.to_string();
        assert_eq!(text(config.usize("layers").unwrap_err()), "folder/config.json: key `layers`: is missing");
        assert_eq!(
            text(config.usize("n").unwrap_err()),
            "folder/config.json: key `n`: should be a non-negative whole number, is -1"
        );
        assert_eq!(
            text(config.str("act").unwrap_err()),
            "folder/config.json: key `act`: should be a string, is a list"
        );
        assert!(config.str("act").unwrap_err().is_config());
    }
}
