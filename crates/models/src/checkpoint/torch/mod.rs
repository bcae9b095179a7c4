//! Files of PyTorch (`.th`, `.pt`, `.pth`, `.bin`): tensors by name, without running any of the code that a pickle is.
//!
//! Two forms are in use: a ZIP archive with a pickle and a file for each storage (since PyTorch 1.6), and before that
//! pickles one after the other with the storages behind them. In both the pickle says of a tensor which storage it is a
//! view of, with offset, sizes and strides.

mod pickle;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use zip::{CompressionMethod, ZipArchive};

use super::error::printable;
use super::{CheckpointError, Dtype, TensorF32};
use pickle::{Fault, Id, Node, Pickle};

/// An open file of PyTorch. Only the descriptions of tensors are in memory.
#[derive(Debug)]
pub struct TorchFile {
    path: PathBuf,
    file: Mutex<File>,
    tensors: Vec<TorchTensor>,
}

/// A tensor of such a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TorchTensor {
    /// The keys that lead to it, joined by dots: `state_dict.conv1.weight`.
    pub name: String,
    pub dtype: Dtype,
    /// Row-major; empty for a scalar.
    pub shape: Vec<usize>,
    /// Elements from one index to the next in each dimension.
    strides: Vec<usize>,
    /// Byte of the file with which it begins, and how many it reaches over.
    start: u64,
    bytes: u64,
}

/// Where a storage is.
#[derive(Clone, Copy)]
struct Storage {
    start: u64,
    bytes: u64,
}

/// The first eight bytes of the number with which the older form begins.
const MAGIC: i64 = 0x1950_a86a_20f9_469c_fc6c_u128 as i64;
const PROTOCOL: i64 = 1001;

/// Dictionaries within dictionaries, at most.
const DEPTH: usize = 8;
/// Tensors and dictionaries of a file, at most: a dictionary may be in itself.
const ENTRIES: usize = 1_000_000;
/// Bytes of a name, at most: each tensor keeps its own, where a pickle may share one text.
const NAME: usize = 1000;

impl TorchFile {
    /// Opens a file and finds its tensors, which are all those in dictionaries by text.
    ///
    /// # Errors
    /// A file of another kind, one that is cut short, a tensor that reaches beyond its storage or is of a type that
    /// has no bytes here.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let mut file = File::open(path).map_err(CheckpointError::read(path))?;
        let about = file.metadata().map_err(CheckpointError::read(path))?;
        if !about.is_file() {
            return Err(CheckpointError::folder(path, "is not a regular file"));
        }
        let mut magic = Vec::new();
        (&mut file).take(4).read_to_end(&mut magic).map_err(CheckpointError::read(path))?;
        file.rewind().map_err(CheckpointError::read(path))?;
        let found = if magic == b"PK\x03\x04" { archive(&mut file) } else { pickles(&mut file, about.len()) };
        let (pickle, storages) = found.map_err(|fault| {
            CheckpointError::folder(path, format!("is no file of PyTorch that can be read: {fault}"))
        })?;
        let mut tensors = Vec::new();
        let reader = Reader { pickle: &pickle, storages: &storages };
        if let Some(root) = pickle.root() {
            let mut left = ENTRIES;
            let failed = |(name, fault): (String, Fault)| CheckpointError::tensor(path, &name, fault);
            reader.collect(root, "", DEPTH, &mut left, &mut tensors).map_err(failed)?;
        }
        if tensors.is_empty() {
            return Err(CheckpointError::folder(path, "holds no tensors by name"));
        }
        Ok(Self { path: path.to_owned(), file: Mutex::new(file), tensors })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// In the order of the file.
    pub fn tensors(&self) -> &[TorchTensor] {
        &self.tensors
    }

    /// A tensor of F32, F16, BF16 or F64 as `f32`, row-major whatever its strides.
    ///
    /// # Errors
    /// A name that is not there, a tensor of another type, a file that was changed since it was opened.
    pub fn tensor(&self, name: &str) -> Result<TensorF32, CheckpointError> {
        let missing =
            || CheckpointError::MissingTensor { path: self.path.clone(), tensor: printable(name), nearest: None };
        let tensor = self.tensors.iter().find(|tensor| tensor.name == name).ok_or_else(missing)?;
        let fault = |reason: String| CheckpointError::tensor(&self.path, name, reason);
        let convert = (tensor.dtype.to_f32())
            .ok_or_else(|| fault(format!("is stored as {}, which is not a float that can be read", tensor.dtype)))?;

        let mut bytes = Vec::new();
        // The lock guards the file's cursor alone, which is set anew here.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(tensor.start)).map_err(CheckpointError::read(&self.path))?;
        let read =
            (&mut *file).take(tensor.bytes).read_to_end(&mut bytes).map_err(CheckpointError::read(&self.path))?;
        drop(file);
        if read as u64 != tensor.bytes {
            return Err(fault("the file has become shorter".to_owned()));
        }
        let stored: Vec<f32> = bytes.chunks_exact(tensor.dtype.size()).map(convert).collect();
        Ok(TensorF32 { shape: tensor.shape.clone(), data: tensor.in_order(stored) })
    }
}

impl TorchTensor {
    /// Elements of the view, from those that it reaches over.
    fn in_order(&self, stored: Vec<f32>) -> Vec<f32> {
        let elements: usize = self.shape.iter().product();
        if elements == 0 {
            return Vec::new();
        }
        if self.strides == row_major(&self.shape) {
            return stored;
        }
        let mut index = vec![0; self.shape.len()];
        let mut data = Vec::with_capacity(elements);
        for _ in 0..elements {
            data.push(stored[index.iter().zip(&self.strides).map(|(index, stride)| index * stride).sum::<usize>()]);
            for (index, &size) in index.iter_mut().zip(&self.shape).rev() {
                *index += 1;
                if *index < size {
                    break;
                }
                *index = 0;
            }
        }
        data
    }
}

fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for place in (1..shape.len()).rev() {
        strides[place - 1] = strides[place] * shape[place];
    }
    strides
}

/// The storages by what the pickle calls them.
type Storages = HashMap<String, Storage>;

/// A pickle in an archive, beside a file for each storage.
fn archive(file: &mut File) -> Result<(Pickle, Storages), Fault> {
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| error.to_string())?;
    // A name that is no text is none of PyTorch's.
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let described = names.iter().find_map(|name| name.strip_suffix("data.pkl")).ok_or("it has no data.pkl")?;
    let storage = format!("{described}data/");
    let mut storages = Storages::new();
    for name in &names {
        let Some(key) = name.strip_prefix(&storage) else { continue };
        let entry = archive.by_name(name).map_err(|error| error.to_string())?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("{} is compressed, which PyTorch does not do", printable(name)));
        }
        let start = entry.data_start().ok_or_else(|| format!("{} lies nowhere", printable(name)))?;
        storages.insert(key.to_owned(), Storage { start, bytes: entry.size() });
    }
    let order = format!("{described}byteorder");
    if names.contains(&order) {
        let mut text = String::new();
        let entry = archive.by_name(&order).map_err(|error| error.to_string())?;
        entry.take(16).read_to_string(&mut text).map_err(|error| error.to_string())?;
        if text.trim() != "little" {
            return Err(format!("its numbers are {text:?}-endian, and only little-endian ones are read"));
        }
    }
    let entry = archive.by_name(&format!("{described}data.pkl")).map_err(|error| error.to_string())?;
    Ok((Pickle::read(&mut BufReader::new(entry))?, storages))
}

/// Pickles one after the other: a magic number, the version, the system, the tensors, the names of the storages. Then
/// the storages themselves, each with its number of elements before it.
fn pickles(file: &mut File, length: u64) -> Result<(Pickle, Storages), Fault> {
    let mut reader = BufReader::new(file);
    let magic = Pickle::read(&mut reader)?;
    if magic.root().and_then(|root| magic.int(root)) != Some(MAGIC) {
        return Err("it begins with another pickle than those that torch.save writes".to_owned());
    }
    let version = Pickle::read(&mut reader)?;
    match version.root().and_then(|root| version.int(root)) {
        Some(PROTOCOL) => {}
        other => return Err(format!("its protocol is {other:?}, only {PROTOCOL} is known")),
    }
    Pickle::read(&mut reader)?;
    let pickle = Pickle::read(&mut reader)?;
    let keys = Pickle::read(&mut reader)?;
    let keys = keys.root().and_then(|root| keys.list(root).map(|list| keys.clone_texts(list)));
    let keys = keys.ok_or("it does not say which storages follow")??;
    let sizes = Reader { pickle: &pickle, storages: &Storages::new() }.element_sizes();
    let mut storages = Storages::new();
    let mut start = reader.stream_position().map_err(|error| error.to_string())?;
    for key in keys {
        reader.seek(SeekFrom::Start(start)).map_err(|error| error.to_string())?;
        let mut elements = [0; 8];
        reader.read_exact(&mut elements).map_err(|_| "it ends before its storages do".to_owned())?;
        let size =
            sizes.get(&key).copied().ok_or_else(|| format!("storage {} belongs to no tensor", printable(&key)))?;
        let bytes =
            u64::from_le_bytes(elements).checked_mul(size).filter(|bytes| start + 8 + bytes.min(&length) <= length);
        let bytes = bytes.filter(|&bytes| bytes <= length).ok_or("it ends before its storages do")?;
        storages.insert(key, Storage { start: start + 8, bytes });
        start += 8 + bytes;
    }
    Ok((pickle, storages))
}

impl Pickle {
    fn clone_texts(&self, ids: &[Id]) -> Result<Vec<String>, Fault> {
        let text = |&id: &Id| self.text(id).map(str::to_owned).ok_or_else(|| "a storage has no name".to_owned());
        ids.iter().map(text).collect()
    }
}

/// Tensors out of a pickle.
struct Reader<'a> {
    pickle: &'a Pickle,
    storages: &'a Storages,
}

impl Reader<'_> {
    /// Tensors in a dictionary and in those within it.
    fn collect(
        &self,
        id: Id,
        prefix: &str,
        depth: usize,
        left: &mut usize,
        into: &mut Vec<TorchTensor>,
    ) -> Result<(), (String, Fault)> {
        let Some(pairs) = self.pickle.pairs(id).filter(|_| depth > 0) else { return Ok(()) };
        for &(key, value) in pairs {
            let Some(key) = self.pickle.text(key) else { continue };
            if prefix.len() + key.len() > NAME {
                return Err((format!("{prefix}.{key}"), format!("has a name of more than {NAME} bytes")));
            }
            let name = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
            *left = left
                .checked_sub(1)
                .ok_or_else(|| (name.clone(), format!("is beyond the {ENTRIES} entries that are read")))?;
            match self.tensor(value, &name).map_err(|fault| (name.clone(), fault))? {
                Some(tensor) => into.push(tensor),
                None => self.collect(value, &name, depth - 1, left, into)?,
            }
        }
        Ok(())
    }

    /// The tensor that a call would make, if it would make one.
    fn tensor(&self, id: Id, name: &str) -> Result<Option<TorchTensor>, Fault> {
        // A parameter is around a tensor once; in a damaged file it may be around itself.
        let id = match self.pickle.call(id) {
            Some(("torch._utils", "_rebuild_parameter", [tensor, ..])) => *tensor,
            _ => id,
        };
        let (storage, offset, shape, strides) = match self.pickle.call(id) {
            Some(("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2", [storage, offset, shape, strides, ..])) => {
                (*storage, *offset, *shape, *strides)
            }
            Some(("torch._utils", function, _)) if function.starts_with("_rebuild") => {
                return Err(format!("is made by {}, which is not read", printable(function)));
            }
            _ => return Ok(None),
        };
        let (dtype, key) = self.storage(storage).ok_or("is a view of no storage")??;
        let Storage { start, bytes } =
            *self.storages.get(key).ok_or_else(|| format!("its storage {} is not in the file", printable(key)))?;
        let numbers = |id: Id, what: &str| -> Result<Vec<usize>, Fault> {
            let list = self.pickle.list(id).ok_or_else(|| format!("its {what} are no list"))?;
            let number = |&id: &Id| self.pickle.int(id).and_then(|value| usize::try_from(value).ok());
            list.iter().map(|id| number(id).ok_or_else(|| format!("its {what} are no numbers"))).collect()
        };
        let (shape, strides) = (numbers(shape, "sizes")?, numbers(strides, "strides")?);
        let offset = self.pickle.int(offset).and_then(|offset| u64::try_from(offset).ok()).ok_or("has no offset")?;
        if shape.len() != strides.len() {
            return Err(format!("has {} sizes and {} strides", shape.len(), strides.len()));
        }
        let size = dtype.size() as u64;
        let beyond = || format!("reaches beyond the {} elements of its storage", bytes / size);
        // How many elements it has, and how many of the storage it reaches over.
        let product =
            shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64)).ok_or_else(beyond)?;
        let reach = shape.iter().zip(&strides).try_fold(1u64, |reach, (&size, &stride)| {
            reach.checked_add((size.max(1) as u64 - 1).checked_mul(stride as u64)?)
        });
        let reach = if product == 0 { Some(0) } else { reach };
        let end = reach.and_then(|reach| reach.checked_add(offset)).and_then(|end| end.checked_mul(size));
        // A view may repeat elements; one that makes more of them than there are is not what weights are saved as.
        if product > bytes / size || end.is_none_or(|end| end > bytes) {
            return Err(beyond());
        }
        Ok(Some(TorchTensor {
            name: name.to_owned(),
            dtype,
            shape,
            strides,
            start: start + offset * size,
            bytes: reach.unwrap_or(0) * size,
        }))
    }

    /// Type and name of a storage.
    fn storage(&self, id: Id) -> Option<Result<(Dtype, &str), Fault>> {
        let Node::Outside(name) = self.pickle.node(id) else { return None };
        let [kind, of, key, ..] = self.pickle.list(*name)? else { return None };
        let Node::Global(_, class) = self.pickle.node(*of) else { return None };
        if self.pickle.text(*kind) != Some("storage") {
            return None;
        }
        let key = self.pickle.text(*key)?;
        let dtype = match class.as_str() {
            "FloatStorage" => Dtype::F32,
            "DoubleStorage" => Dtype::F64,
            "HalfStorage" => Dtype::F16,
            "BFloat16Storage" => Dtype::BF16,
            "LongStorage" => Dtype::I64,
            "IntStorage" => Dtype::I32,
            "ShortStorage" => Dtype::I16,
            "CharStorage" => Dtype::I8,
            "ByteStorage" => Dtype::U8,
            "BoolStorage" => Dtype::Bool,
            other => return Some(Err(format!("is of a {}, which is not read", printable(other)))),
        };
        // A view of another storage, in files of the oldest versions.
        if let Some(view) = self.pickle.list(*name).and_then(|list| list.get(5))
            && *self.pickle.node(*view) != Node::Other
        {
            return Some(Err("is a view of a view, which is not read".to_owned()));
        }
        Some(Ok((dtype, key)))
    }

    /// Bytes of an element of each storage that the pickle speaks of.
    fn element_sizes(&self) -> HashMap<String, u64> {
        let known = self.pickle.ids().filter_map(|id| self.storage(id)?.ok());
        known.map(|(dtype, key)| (key.to_owned(), dtype.size() as u64)).collect()
    }
}
