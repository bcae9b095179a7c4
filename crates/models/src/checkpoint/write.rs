//! Writing: everything goes into a temporary sibling, is synced to the disk and renamed, so that under the target's
//! name there is the old content or the new one and never a half of it.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

use super::header::LONGEST_HEADER;
use super::{CheckpointError, Dtype};

/// The files that make up a tokenizer, in any of the usual forms.
const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
];

/// Writes a file atomically: `contents` fills a temporary sibling, which is synced and renamed to `path`. If anything
/// fails, `path` is as it was and the sibling is gone.
pub fn atomic_write(
    path: &Path,
    contents: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), CheckpointError> {
    let temporary = Temporary::beside(path)?;
    write_synced(&temporary.path, contents)
        .and_then(|()| fs::rename(&temporary.path, path))
        .and_then(|()| sync_folder(parent(path)))
        .map_err(CheckpointError::write(path))
}

type Contents<'a> = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + 'a>;

/// One tensor to write. Its bytes may be made only when their turn comes, so that a model that is converted or packed
/// on the way never is in memory twice.
pub struct TensorSource<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    write: Contents<'a>,
}

impl<'a> TensorSource<'a> {
    /// A tensor whose little-endian, row-major bytes `write` gives; exactly as many as the shape and type need.
    pub fn new(
        name: impl Into<String>,
        dtype: Dtype,
        shape: impl Into<Vec<usize>>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + 'a,
    ) -> Self {
        Self { name: name.into(), dtype, shape: shape.into(), write: Box::new(write) }
    }

    /// An F32 tensor.
    pub fn f32(name: impl Into<String>, shape: impl Into<Vec<usize>>, data: impl Into<Cow<'a, [f32]>>) -> Self {
        let data = data.into();
        Self::new(name, Dtype::F32, shape, move |writer| {
            let mut bytes = Vec::new();
            for values in data.chunks(1 << 14) {
                bytes.clear();
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                writer.write_all(&bytes)?;
            }
            Ok(())
        })
    }

    /// A U8 tensor.
    pub fn u8(name: impl Into<String>, shape: impl Into<Vec<usize>>, data: impl Into<Cow<'a, [u8]>>) -> Self {
        let data = data.into();
        Self::new(name, Dtype::U8, shape, move |writer| writer.write_all(&data))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> Option<u64> {
        self.shape
            .iter()
            .try_fold(self.dtype.size() as u64, |bytes, &size| bytes.checked_mul(u64::try_from(size).ok()?))
    }
}

/// Writes a safetensors file: the wider types first, as the reference implementation does, so that every tensor starts
/// at a multiple of its element's size; by name within a type. The header is padded to 8 bytes.
pub fn write_safetensors(mut writer: impl Write, mut tensors: Vec<TensorSource<'_>>) -> io::Result<()> {
    tensors.sort_by(|a, b| b.dtype.size().cmp(&a.dtype.size()).then_with(|| a.name.cmp(&b.name)));

    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0u64;
    let mut lengths = Vec::with_capacity(tensors.len());
    for tensor in &tensors {
        let bytes = tensor.bytes().ok_or_else(|| invalid(&tensor.name, "has more elements than can be counted"))?;
        let begin = end;
        end = begin.checked_add(bytes).ok_or_else(|| invalid(&tensor.name, "makes the file longer than can be"))?;
        let entry = json!({"dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [begin, end]});
        if header.insert(tensor.name.clone(), entry).is_some() {
            return Err(invalid(&tensor.name, "is given twice, or has a reserved name"));
        }
        lengths.push(bytes);
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() as u64 > LONGEST_HEADER {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many tensors for a safetensors header"));
    }
    writer.write_all(&(header.len() as u64).to_le_bytes())?;
    writer.write_all(&header)?;

    for (tensor, bytes) in tensors.into_iter().zip(lengths) {
        let mut counted = Counted { writer: &mut writer, left: bytes };
        (tensor.write)(&mut counted)?;
        if counted.left != 0 {
            return Err(invalid(&tensor.name, &format!("gave {} bytes too few for its shape", counted.left)));
        }
    }
    writer.flush()
}

/// What goes into a checkpoint folder.
pub struct FolderContents<'a> {
    /// `config.json`, an object.
    pub config: &'a Map<String, Value>,
    pub tensors: Vec<TensorSource<'a>>,
    /// A folder whose tokenizer files are copied.
    pub tokenizer: Option<&'a Path>,
    /// The model card, Markdown, written as `README.md`.
    pub model_card: &'a str,
}

/// Writes a checkpoint folder atomically. A checkpoint that is at `path` already is replaced (it may be the one the
/// tokenizer comes from); any other folder that is not empty is an error and stays as it is.
pub fn write_folder(path: &Path, contents: FolderContents<'_>) -> Result<(), CheckpointError> {
    refuse_foreign(path)?;
    let temporary = Temporary::beside(path)?;
    let folder = &temporary.path;
    let failed = |error: io::Error| CheckpointError::write(path)(error);

    fs::create_dir(folder).map_err(failed)?;
    let config = serde_json::to_vec_pretty(contents.config).map_err(|error| failed(error.into()))?;
    write_synced(&folder.join("config.json"), |writer| writer.write_all(&config)).map_err(failed)?;
    write_synced(&folder.join("README.md"), |writer| writer.write_all(contents.model_card.as_bytes()))
        .map_err(failed)?;
    if let Some(source) = contents.tokenizer {
        copy_tokenizer(source, folder)?;
    }
    write_synced(&folder.join("model.safetensors"), |writer| write_safetensors(writer, contents.tensors))
        .map_err(failed)?;
    sync_folder(folder).map_err(failed)?;

    // A folder cannot be renamed over one that has files, so the old one steps aside first and comes back on failure.
    let old = path.exists().then(|| Temporary::beside(path)).transpose()?;
    if let Some(old) = &old {
        fs::rename(path, &old.path).map_err(failed)?;
    }
    if let Err(error) = fs::rename(folder, path) {
        if let Some(old) = &old {
            fs::rename(&old.path, path).map_err(failed)?;
        }
        return Err(failed(error));
    }
    sync_folder(parent(path)).map_err(failed)
}

/// Only a checkpoint or an empty folder may be replaced.
fn refuse_foreign(path: &Path) -> Result<(), CheckpointError> {
    let mut entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(CheckpointError::write(path)(error)),
        Ok(entries) => entries,
    };
    if entries.next().is_some() && !path.join("config.json").is_file() {
        let reason = "holds files and is not a checkpoint; choose another folder, or empty it";
        return Err(CheckpointError::folder(path, reason));
    }
    Ok(())
}

fn copy_tokenizer(source: &Path, target: &Path) -> Result<(), CheckpointError> {
    let mut copied = 0;
    for name in TOKENIZER_FILES {
        let from = source.join(name);
        if !from.is_file() {
            continue;
        }
        let mut reader = File::open(&from).map_err(CheckpointError::read(&from))?;
        let to = target.join(name);
        write_synced(&to, |writer| io::copy(&mut reader, writer).map(drop)).map_err(CheckpointError::write(&to))?;
        copied += 1;
    }
    match copied {
        0 => Err(CheckpointError::folder(source, "has no tokenizer files to copy")),
        _ => Ok(()),
    }
}

fn write_synced(path: &Path, contents: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    contents(&mut writer)?;
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Makes renames in a folder last. Elsewhere than on Unix a folder cannot be opened to be synced.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name beside a target that no other writer uses. What is there when it is dropped is removed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn beside(target: &Path) -> Result<Self, CheckpointError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = target.file_name().ok_or_else(|| CheckpointError::folder(target, "is not a name to write to"))?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".{}.{}-{count}.tmp", name.to_string_lossy(), std::process::id());
        Ok(Self { path: parent(target).join(name) })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove; after a failure there is no one left to tell.
        let _ = if self.path.is_dir() { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
    }
}

/// Refuses more bytes than a tensor has room for.
struct Counted<W> {
    writer: W,
    left: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a tensor gave more bytes than its shape needs"));
        }
        let written = self.writer.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn invalid(tensor: &str, reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("tensor `{tensor}` {reason}"))
}
