//! Stages of a run: each has a folder and a key, the digest of all that its outcome depends on. A stage whose folder
//! bears its key is not run again; one whose key has changed begins afresh, and with it all that come after.
//!
//! The order of calls is [`done`](Stage::done), and if that has nothing [`begin`](Stage::begin), the work, and
//! [`finish`](Stage::finish). A stage that was stopped between the last two finds its files again after `begin`.

mod digest;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use lapidary_models::checkpoint::{CheckpointError, atomic_write};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::device;
use digest::FileDigests;

/// Raised whenever a stage gives other results from the same inputs, or its files change their form.
const VERSION: u32 = 3;
/// What marks a folder as a stage's, with its key.
const MARK: &str = "stage.json";

/// What can go wrong around stages.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    #[error("{} is in use by another run{holder}; wait for it, or choose another --out", path.display())]
    InUse { path: PathBuf, holder: String },

    #[error("{} holds files and is no stage of a run; move them away, or choose another --out", path.display())]
    Foreign { path: PathBuf },

    #[error("{} is not the same for all ranks: --out has to be a folder on storage that all ranks share", path.display())]
    NotShared { path: PathBuf },

    #[error("settings or outputs of a stage cannot be written as JSON")]
    Json(#[from] serde_json::Error),

    #[error(transparent)]
    Write(#[from] CheckpointError),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StageError {
    let path = path.to_owned();
    move |source| StageError::Io { action, path, source }
}

/// The folder of a run, held by this process alone until it is dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    digests: FileDigests,
    /// The lock goes with the open file, and so also when the process dies.
    _lock: File,
}

impl RunFolder {
    /// Makes the folder if need be, and locks it.
    ///
    /// # Errors
    /// Another process holds it, or it cannot be made.
    pub fn open(path: &Path) -> Result<Self, StageError> {
        fs::create_dir_all(path).map_err(failed("make the folder", path))?;
        let name = path.join(".lock");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
        let mut lock = file.map_err(failed("open", &name))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // The holder's number only helps to find it: a file that does not tell it is no error.
                let mut holder = String::new();
                let _ = lock.take(20).read_to_string(&mut holder);
                let holder = holder.trim().parse::<u32>().map_or(String::new(), |id| format!(" (process {id})"));
                return Err(StageError::InUse { path: path.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", &name)(source)),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed("write", &name))?;
        Ok(Self { path: path.to_owned(), digests: FileDigests::default(), _lock: lock })
    }

    /// A folder that another process holds for this one.
    ///
    /// # Errors
    /// It does not exist.
    pub fn shared(path: &Path) -> Result<Self, StageError> {
        let name = path.join(".lock");
        let lock = File::open(&name).map_err(failed("open", &name))?;
        Ok(Self { path: path.to_owned(), digests: FileDigests::default(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A stage; `name` is that of its folder in the run's. Reads the files among its inputs for their digests.
    pub fn stage(&self, name: &str, inputs: &Inputs) -> Result<Stage, StageError> {
        let mut files = BTreeMap::new();
        for (role, path) in &inputs.files {
            files.insert(role, self.digests.of(path)?);
        }
        let mut all = json!({
            "version": VERSION,
            "stage": name,
            "settings": inputs.settings,
            "files": files,
            "after": inputs.after,
        });
        if let Some(device) = &inputs.device {
            all["device"] = json!(device);
        }
        Ok(Stage { name: name.to_owned(), path: self.path.join(name), key: digest::of_json(all) })
    }
}

/// All that the outcome of a stage depends on: settings, device, contents of files and the stages before it.
#[derive(Clone, Debug)]
pub struct Inputs {
    settings: Value,
    device: Option<String>,
    files: Vec<(String, PathBuf)>,
    after: Vec<String>,
}

impl Inputs {
    /// Whatever settings there are, the seed among them.
    pub fn new(settings: &impl Serialize) -> Result<Self, StageError> {
        Ok(Self { settings: serde_json::to_value(settings)?, device: None, files: Vec::new(), after: Vec::new() })
    }

    /// The device that computes, whose sums have an order of their own.
    pub fn on(mut self, device: &Device) -> Self {
        // Absent for the CPU, so that keys from before there was a choice stay.
        if *device != Device::flex() {
            self.device = Some(device::name(device));
        }
        self
    }

    /// A file, or a folder for the files directly in it. What counts is the content and not the place: data may be
    /// moved without a stage being run again.
    pub fn file(mut self, role: &str, path: &Path) -> Self {
        self.files.push((role.to_owned(), path.to_owned()));
        self
    }

    /// A stage whose outcome this one starts from.
    pub fn after(mut self, stage: &Stage) -> Self {
        self.after.push(stage.key.clone());
        self
    }
}

/// A stage of a run.
#[derive(Clone, Debug)]
pub struct Stage {
    name: String,
    path: PathBuf,
    key: String,
}

/// `stage.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    done: Option<Done>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Done {
    /// Sizes in bytes of all files of the stage, by their path in its folder.
    files: BTreeMap<String, u64>,
    outputs: Value,
}

/// Whether a stage that begins has files of an earlier attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Fresh,
    Resumed,
}

impl Stage {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that its files go into; there after [`begin`](Self::begin).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it gave when it was finished with these inputs; `None` if it never was, or if files of it are gone since.
    pub fn done<T: DeserializeOwned>(&self) -> Result<Option<T>, StageError> {
        let Some(Mark { done: Some(done), .. }) = self.mark()?.filter(|mark| mark.key == self.key) else {
            return Ok(None);
        };
        let present = self.files()?;
        if let Some((name, _)) = done.files.iter().find(|(name, bytes)| present.get(*name) != Some(bytes)) {
            tracing::warn!("stage {}: {name} is gone or has another size; the stage runs again", self.name);
            return Ok(None);
        }
        match serde_json::from_value(done.outputs) {
            Ok(outputs) => Ok(Some(outputs)),
            Err(error) => {
                tracing::warn!("stage {}: its outputs cannot be read ({error}); the stage runs again", self.name);
                Ok(None)
            }
        }
    }

    /// Readies the folder. Files of an attempt with the same inputs that was stopped are there to go on from; all else
    /// is moved to a folder of the same name with `.previous` at its end, in place of what that held.
    ///
    /// # Errors
    /// The folder holds files and is no stage's, or cannot be made.
    pub fn begin(&self) -> Result<Start, StageError> {
        match self.mark()? {
            Some(mark) if mark.key == self.key && mark.done.is_none() => {
                tracing::info!("stage {}: goes on where it was stopped", self.name);
                return Ok(Start::Resumed);
            }
            Some(_) => self.move_away()?,
            None => {
                if !self.files()?.is_empty() {
                    return Err(StageError::Foreign { path: self.path.clone() });
                }
            }
        }
        fs::create_dir_all(&self.path).map_err(failed("make the folder", &self.path))?;
        self.write(&Mark { key: self.key.clone(), done: None })?;
        Ok(Start::Fresh)
    }

    /// Marks the stage as done. `outputs` is what [`done`](Self::done) gives from now on.
    pub fn finish(&self, outputs: &impl Serialize) -> Result<(), StageError> {
        let outputs = serde_json::to_value(outputs)?;
        let mut files = self.files()?;
        files.remove(MARK);
        self.write(&Mark { key: self.key.clone(), done: Some(Done { files, outputs }) })
    }

    fn move_away(&self) -> Result<(), StageError> {
        let mut previous = self.path.clone().into_os_string();
        previous.push(".previous");
        let previous = PathBuf::from(previous);
        if previous.exists() {
            fs::remove_dir_all(&previous).map_err(failed("remove", &previous))?;
        }
        fs::rename(&self.path, &previous).map_err(failed("move away", &self.path))?;
        tracing::warn!(
            "stage {}: settings or inputs have changed since it ran; it begins afresh, the old files are in {}",
            self.name,
            previous.display()
        );
        Ok(())
    }

    /// `None` where there is no mark; a mark that cannot be read is one of no known key.
    fn mark(&self) -> Result<Option<Mark>, StageError> {
        let path = self.path.join(MARK);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        Ok(Some(serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!("stage {}: {} cannot be read ({error})", self.name, path.display());
            Mark { key: String::new(), done: None }
        })))
    }

    fn write(&self, mark: &Mark) -> Result<(), StageError> {
        let text = serde_json::to_vec_pretty(mark)?;
        Ok(atomic_write(&self.path.join(MARK), |writer| writer.write_all(&text))?)
    }

    /// Sizes of all files below the folder; none if there is no folder.
    fn files(&self) -> Result<BTreeMap<String, u64>, StageError> {
        let mut files = BTreeMap::new();
        let mut folders = vec![(self.path.clone(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound && prefix.is_empty() => break,
                Err(error) => return Err(failed("list", &folder)(error)),
            };
            for entry in entries {
                let entry = entry.map_err(failed("list", &folder))?;
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                let about = entry.metadata().map_err(failed("look at", &entry.path()))?;
                if about.is_dir() {
                    folders.push((entry.path(), format!("{name}/")));
                } else {
                    files.insert(name, about.len());
                }
            }
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests;
