//! The safetensors header: `u64` length, JSON of that length, then the tensors' bytes without holes.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::{CheckpointError, Dtype, error::printable};

/// The longest header that is read, in bytes: the reference implementation's limit.
pub(super) const LONGEST_HEADER: u64 = 100_000_000;

/// One tensor of a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub dtype: Dtype,
    /// Row-major; empty for a scalar.
    pub shape: Vec<usize>,
    /// Offset of the first byte in the file.
    pub start: u64,
    /// Length in bytes: the elements of `shape` times the size of `dtype`.
    pub bytes: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.bytes / self.dtype.size() as u64
    }
}

/// A checked header: each tensor's byte range is what its shape and type need, and the ranges tile the file.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// In the order of their bytes in the file.
    pub tensors: Vec<TensorInfo>,
    /// The free-form `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

impl Header {
    /// Reads and checks the header at the start of a file of `file_bytes` bytes. Memory is taken for the header that is
    /// there, never for what it claims.
    pub fn read(mut reader: impl Read, file_bytes: u64, path: &Path) -> Result<Header, CheckpointError> {
        let bad = |reason: String| CheckpointError::Header { path: path.to_owned(), reason };
        if file_bytes < 8 {
            return Err(bad(format!("the file has {file_bytes} bytes, fewer than the 8 of a header's length")));
        }
        let mut length = [0; 8];
        reader.read_exact(&mut length).map_err(CheckpointError::read(path))?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER {
            return Err(bad(format!("its length of {length} bytes is over the limit of {LONGEST_HEADER}")));
        }
        if length > file_bytes - 8 {
            return Err(bad(format!("its length of {length} bytes goes beyond the file's {file_bytes}; truncated?")));
        }
        let mut json = Vec::new();
        reader.take(length).read_to_end(&mut json).map_err(CheckpointError::read(path))?;
        let raw: RawHeader = serde_json::from_slice(&json).map_err(|error| bad(error.to_string()))?;
        drop(json);
        raw.check(8 + length, file_bytes, path)
    }
}

/// The header as JSON says it.
struct RawHeader {
    entries: Vec<(String, RawTensor)>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl RawHeader {
    fn check(self, data_start: u64, file_bytes: u64, path: &Path) -> Result<Header, CheckpointError> {
        let data_bytes = file_bytes - data_start;
        let mut tensors = Vec::with_capacity(self.entries.len());
        for (name, raw) in self.entries {
            match raw.check(data_start, data_bytes) {
                Ok((dtype, shape, start, bytes)) => tensors.push(TensorInfo { name, dtype, shape, start, bytes }),
                Err(reason) => return Err(CheckpointError::tensor(path, &name, reason)),
            }
        }
        // An empty tensor shares its offset with the next one and comes before it.
        tensors.sort_by_key(|tensor| (tensor.start, tensor.bytes));
        let mut end = data_start;
        for (index, tensor) in tensors.iter().enumerate() {
            if tensor.start < end {
                let before = printable(&tensors[index - 1].name);
                let reason = format!("its bytes overlap those of `{before}`");
                return Err(CheckpointError::tensor(path, &tensor.name, reason));
            }
            if tensor.start > end {
                let reason = format!("{} bytes before it belong to no tensor", tensor.start - end);
                return Err(CheckpointError::tensor(path, &tensor.name, reason));
            }
            end = tensor.start + tensor.bytes;
        }
        if end != file_bytes {
            let reason = format!("{} bytes at the file's end belong to no tensor", file_bytes - end);
            return Err(CheckpointError::Header { path: path.to_owned(), reason });
        }
        Ok(Header { tensors, metadata: self.metadata })
    }
}

impl RawTensor {
    /// (dtype, shape, start in the file, bytes), or what is wrong.
    fn check(self, data_start: u64, data_bytes: u64) -> Result<(Dtype, Vec<usize>, u64, u64), String> {
        let dtype = Dtype::from_name(&self.dtype)
            .ok_or_else(|| format!("element type `{}` is not one that can be read", printable(&self.dtype)))?;
        let [begin, end] = self.data_offsets;
        if begin > end {
            return Err(format!("its byte range {begin}..{end} ends before it begins"));
        }
        if end > data_bytes {
            return Err(format!("its byte range {begin}..{end} goes beyond the file's {data_bytes} bytes of tensors"));
        }
        let shape: Option<Vec<usize>> = self.shape.iter().map(|&size| usize::try_from(size).ok()).collect();
        // A zero must not hide an overflow: whoever multiplies a part of the shape would meet it again.
        let product = self.shape.iter().try_fold(dtype.size() as u64, |bytes, &size| bytes.checked_mul(size.max(1)));
        let (Some(shape), Some(product)) = (shape, product) else {
            return Err("its shape has more elements than can be counted".to_owned());
        };
        let needed = if shape.contains(&0) { 0 } else { product };
        if needed != end - begin {
            return Err(format!("shape {shape:?} of {dtype} needs {needed} bytes, its byte range has {}", end - begin));
        }
        Ok((dtype, shape, data_start + begin, needed))
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A plain map would keep only the last of two entries with one name.
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut raw = RawHeader { entries: Vec::new(), metadata: BTreeMap::new() };
                let mut seen = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    let named = |error: A::Error| A::Error::custom(format!("`{}`: {error}", printable(&name)));
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("`{}` is described twice", printable(&name))));
                    }
                    if name == "__metadata__" {
                        raw.metadata = map.next_value().map_err(named)?;
                    } else {
                        let entry = map.next_value().map_err(named)?;
                        raw.entries.push((name, entry));
                    }
                }
                Ok(raw)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
