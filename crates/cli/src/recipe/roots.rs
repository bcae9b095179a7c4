//! Where the files that recipes name are looked for.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use lapidary_train::Interrupt;

use super::RecipeError;
use super::remote::{fetch, is_remote};

/// The folders below which recipes name data and checkpoints.
#[derive(Clone, Debug)]
pub struct Roots {
    pub data: PathBuf,
    pub models: PathBuf,
    /// Where files that recipes name by their address are kept.
    pub downloads: PathBuf,
    /// Ends the fetching of such a file.
    pub interrupt: Interrupt,
}

impl Roots {
    /// `$LAPIDARY_DATA`, else `data`; `$LAPIDARY_MODELS`, else `lapidary` in the user's cache folder
    /// (`$XDG_CACHE_HOME`, else `~/.cache`); what is fetched goes into that folder's `downloads`.
    pub fn from_env() -> Self {
        Self::of(|name| env::var_os(name), env::home_dir())
    }

    fn of(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Self {
        let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // The XDG specification has relative paths ignored.
        let cache = || folder("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let cache = || cache().unwrap_or_else(|| home.clone().unwrap_or_default().join(".cache"));
        Self {
            data: folder("LAPIDARY_DATA").unwrap_or_else(|| PathBuf::from("data")),
            downloads: cache().join("lapidary/downloads"),
            models: folder("LAPIDARY_MODELS").unwrap_or_else(|| cache().join("lapidary")),
            interrupt: Interrupt::default(),
        }
    }

    /// A data file: one with an address is fetched, an absolute or existing relative path is taken as it is, and
    /// anything else is looked for below [`data`](Self::data).
    pub fn data(&self, given: &str) -> Result<PathBuf, RecipeError> {
        if is_remote(given) {
            return Ok(fetch(given, &self.downloads, &self.interrupt)?);
        }
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
        let check = |set: &[(&str, &str)], data: &str, models: &str, downloads: &str| {
            let roots = of(set);
            let found = [roots.data, roots.models, roots.downloads];
            assert_eq!(found, [data, models, downloads].map(PathBuf::from), "{set:?}");
        };
        let cache = "/home/gem/.cache/lapidary";
        let downloads = "/home/gem/.cache/lapidary/downloads";
        check(&[], "data", cache, downloads);
        check(&[("XDG_CACHE_HOME", "/c")], "data", "/c/lapidary", "/c/lapidary/downloads");
        check(&[("XDG_CACHE_HOME", "c"), ("LAPIDARY_DATA", "")], "data", cache, downloads);
        check(&[("LAPIDARY_DATA", "/d"), ("LAPIDARY_MODELS", "m")], "/d", "m", downloads);
    }

    #[test]
    fn an_existing_path_goes_before_the_root() {
        let root = tempfile::tempdir().expect("a folder");
        let [data, models, downloads] = std::array::from_fn(|_| root.path().to_owned());
        let roots = Roots { data, models, downloads, interrupt: Interrupt::default() };
        std::fs::write(root.path().join("train.tsv"), "").expect("a file");
        let inside = root.path().join("train.tsv");
        assert_eq!(roots.data("train.tsv").expect("below the root"), inside);
        assert_eq!(roots.data(inside.to_str().expect("UTF-8")).expect("absolute"), inside);
        assert_eq!(roots.data("Cargo.toml").expect("of this crate"), PathBuf::from("Cargo.toml"));
        let error = roots.model("no-such").expect_err("missing").to_string();
        assert!(error.starts_with("no checkpoint `no-such`; looked for no-such and /"), "{error}");
    }
}
