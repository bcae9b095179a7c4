//! SHA-256 digests of files and settings.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{StageError, failed};

/// Digests of files, each read once as long as its size and time do not change.
#[derive(Debug, Default)]
pub struct FileDigests {
    known: Mutex<HashMap<(PathBuf, u64, SystemTime), String>>,
}

impl FileDigests {
    /// The digest of a file, or of the names and contents of the files directly in a folder. What lies deeper is left
    /// out: a folder from a hub may hold the same weights in five more formats, and its history.
    pub fn of(&self, path: &Path) -> Result<String, StageError> {
        let about = fs::metadata(path).map_err(failed("read", path))?;
        if !about.is_dir() {
            return self.of_file(path, about.len(), about.modified().map_err(failed("read", path))?);
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(failed("list", path))? {
            names.push(entry.map_err(failed("list", path))?.file_name());
        }
        names.sort();
        let mut all = Sha256::new();
        for name in names {
            let file = path.join(&name);
            // Followed, and not the entry's own: the cache of a hub is made of links.
            let about = fs::metadata(&file).map_err(failed("read", &file))?;
            if about.is_file() {
                let digest = self.of_file(&file, about.len(), about.modified().map_err(failed("read", &file))?)?;
                all.update(name.as_encoded_bytes());
                all.update([0]);
                all.update(digest);
            }
        }
        Ok(hex(&all.finalize()))
    }

    fn of_file(&self, path: &Path, bytes: u64, modified: SystemTime) -> Result<String, StageError> {
        let known = (path.to_owned(), bytes, modified);
        // A panic while the map was locked cannot have left half an entry.
        if let Some(digest) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&known) {
            return Ok(digest.clone());
        }
        let mut file = File::open(path).map_err(failed("open", path))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer).map_err(failed("read", path))? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        let digest = hex(&hasher.finalize());
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(known, digest.clone());
        Ok(digest)
    }
}

/// The digest of a value in its canonical form: keys sorted, no spaces, the shortest digits that give a number back.
pub fn of_json(mut value: Value) -> String {
    value.sort_all_objects();
    hex(&Sha256::digest(value.to_string().as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
