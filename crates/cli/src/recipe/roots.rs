//! Where the files that recipes name are looked for.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::RecipeError;

/// The folders below which recipes name data and checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    pub data: PathBuf,
    pub models: PathBuf,
}

impl Roots {
    /// `$LAPIDARY_DATA`, else `data`; `$LAPIDARY_MODELS`, else `lapidary` in the user's cache folder
    /// (`$XDG_CACHE_HOME`, else `~/.cache`).
    pub fn from_env() -> Self {
        Self::of(|name| env::var_os(name), env::home_dir())
    }

    fn of(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Self {
        let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // The XDG specification has relative paths ignored.
        let cache = || folder("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let cache = || cache().unwrap_or_else(|| home.unwrap_or_default().join(".cache"));
        Self {
            data: folder("LAPIDARY_DATA").unwrap_or_else(|| PathBuf::from("data")),
            models: folder("LAPIDARY_MODELS").unwrap_or_else(|| cache().join("lapidary")),
        }
    }

    /// A data file: an absolute or existing relative path as it is, else below [`data`](Self::data).
    pub fn data(&self, given: &str) -> Result<PathBuf, RecipeError> {
        resolve("data", &self.data, given)
    }

    /// A checkpoint: an absolute or existing relative path as it is, else below [`models`](Self::models).
    pub fn model(&self, given: &str) -> Result<PathBuf, RecipeError> {
        resolve("checkpoint", &self.models, given)
    }
}

fn resolve(kind: &'static str, root: &Path, given: &str) -> Result<PathBuf, RecipeError> {
    let mut looked = vec![PathBuf::from(given)];
    if looked[0].is_relative() {
        looked.push(root.join(given));
    }
    match looked.iter().find(|path| path.exists()) {
        Some(path) => Ok(path.clone()),
        None => Err(RecipeError::Missing { kind, given: given.to_owned(), looked }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_come_from_the_environment() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            Roots::of(
                |name| set.iter().find(|(key, _)| key == name).map(|(_, value)| value.into()),
                Some("/home/gem".into()),
            )
        };
        let paths = |data: &str, models: &str| Roots { data: data.into(), models: models.into() };
        assert_eq!(of(&[]), paths("data", "/home/gem/.cache/lapidary"));
        assert_eq!(of(&[("XDG_CACHE_HOME", "/c")]), paths("data", "/c/lapidary"));
        assert_eq!(of(&[("XDG_CACHE_HOME", "c"), ("LAPIDARY_DATA", "")]), paths("data", "/home/gem/.cache/lapidary"));
        assert_eq!(of(&[("LAPIDARY_DATA", "/d"), ("LAPIDARY_MODELS", "m")]), paths("/d", "m"));
    }

    #[test]
    fn an_existing_path_goes_before_the_root() {
        let root = tempfile::tempdir().expect("a folder");
        let roots = Roots { data: root.path().to_owned(), models: root.path().to_owned() };
        std::fs::write(root.path().join("train.tsv"), "").expect("a file");
        let inside = root.path().join("train.tsv");
        assert_eq!(roots.data("train.tsv").expect("below the root"), inside);
        assert_eq!(roots.data(inside.to_str().expect("UTF-8")).expect("absolute"), inside);
        assert_eq!(roots.data("Cargo.toml").expect("of this crate"), PathBuf::from("Cargo.toml"));
        let error = roots.model("no-such").expect_err("missing").to_string();
        assert!(error.starts_with("no checkpoint `no-such`; looked for no-such and /"), "{error}");
    }
}
