//! One safetensors file, its tensors read by seeking when they are asked for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{CheckpointError, Header, TensorInfo};

/// A tensor in memory, converted to `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorF32 {
    /// Row-major; empty for a scalar.
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

/// An open safetensors file. Only the header is in memory; the file stays open, so that a checkpoint that is replaced
/// while it is read gives the old tensors and never a mixture.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    file: Mutex<File>,
    header: Header,
    positions: HashMap<String, usize>,
}

impl SafetensorsFile {
    /// Opens a file and checks its header.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let mut file = File::open(path).map_err(CheckpointError::read(path))?;
        let about = file.metadata().map_err(CheckpointError::read(path))?;
        if !about.is_file() {
            return Err(CheckpointError::folder(path, "is not a regular file"));
        }
        let header = Header::read(&mut file, about.len(), path)?;
        let positions = header.tensors.iter().enumerate().map(|(index, info)| (info.name.clone(), index)).collect();
        Ok(Self { path: path.to_owned(), file: Mutex::new(file), header, positions })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The description of a tensor, if the file has it.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.positions.get(name).map(|&index| &self.header.tensors[index])
    }

    /// A tensor's bytes as stored: little-endian, row-major.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let info = self.find(name)?;
        let mut bytes = self.room(info, info.bytes)?;
        self.for_each_chunk(info, |chunk| bytes.extend_from_slice(chunk))?;
        Ok(bytes)
    }

    /// A tensor of F32, F16, BF16 or F64 as `f32`; of another type it is an error.
    pub fn tensor(&self, name: &str) -> Result<TensorF32, CheckpointError> {
        let info = self.find(name)?;
        let convert = info.dtype.to_f32().ok_or_else(|| {
            let reason = format!("is stored as {}, which is not a float that can be read", info.dtype);
            CheckpointError::tensor(&self.path, name, reason)
        })?;
        let mut data = self.room(info, info.elements())?;
        self.for_each_chunk(info, |chunk| data.extend(chunk.chunks_exact(info.dtype.size()).map(convert)))?;
        Ok(TensorF32 { shape: info.shape.clone(), data })
    }

    fn find(&self, name: &str) -> Result<&TensorInfo, CheckpointError> {
        self.info(name).ok_or_else(|| CheckpointError::MissingTensor {
            path: self.path.clone(),
            tensor: name.to_owned(),
            nearest: None,
        })
    }

    /// An empty vector with room for a tensor. Its size is that of a part of the file, which still may be a sparse one
    /// that is larger than memory.
    fn room<T>(&self, info: &TensorInfo, length: u64) -> Result<Vec<T>, CheckpointError> {
        let mut room = Vec::new();
        match usize::try_from(length).map(|length| room.try_reserve_exact(length)) {
            Ok(Ok(())) => Ok(room),
            _ => Err(CheckpointError::tensor(
                &self.path,
                &info.name,
                format!("its {} bytes do not fit into memory", info.bytes),
            )),
        }
    }

    /// Hands a tensor's bytes over in chunks that end on whole elements, so that a conversion never holds both forms.
    fn for_each_chunk(&self, info: &TensorInfo, mut take: impl FnMut(&[u8])) -> Result<(), CheckpointError> {
        /// A multiple of every element size.
        const CHUNK: u64 = 1 << 18;
        // The lock guards the file's cursor alone, which is set anew here: a panic elsewhere cannot have broken it.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(info.start)).map_err(CheckpointError::read(&self.path))?;
        let mut buffer = vec![0; CHUNK.min(info.bytes) as usize];
        let mut left = info.bytes;
        while left > 0 {
            let chunk = &mut buffer[..CHUNK.min(left) as usize];
            file.read_exact(chunk).map_err(CheckpointError::read(&self.path))?;
            take(chunk);
            left -= chunk.len() as u64;
        }
        Ok(())
    }
}
