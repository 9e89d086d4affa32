//! What every container of a model comes to: metadata under GGUF's keys, and a directory of tensors under GGUF's names.
//!
//! GGUF has both itself; a Hugging Face folder is translated (`huggingface`), so that nothing after this knows which it was.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::error::ModelError;

/// Where the bytes of a model come from: memory, or a file read piece by piece.
pub(crate) trait Source: Sync {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fills `out` from `offset`; `what` names the piece in errors.
    fn read(&self, offset: u64, out: &mut [u8], what: &str) -> Result<(), ModelError>;
}

impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, out: &mut [u8], what: &str) -> Result<(), ModelError> {
        let available = self.size().saturating_sub(offset);
        if (out.len() as u64) > available {
            return Err(cut_short(what, out.len() as u64, available));
        }
        let start = offset as usize; // fits: offset <= len
        out.copy_from_slice(&self[start..start + out.len()]);
        Ok(())
    }
}

/// Storage format of a tensor's elements, as GGUF names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Singles.
    F32,
    /// Halves.
    F16,
    /// Upper halves of singles.
    Bf16,
    /// 32 nibbles less 8, times a half.
    Q4_0,
    /// 32 nibbles times a half, plus a half.
    Q4_1,
    /// 32 numbers of five bits less 16, times a half.
    Q5_0,
    /// 32 signed bytes times a half.
    Q8_0,
    /// 256 nibbles with scales and minima of 32 each.
    Q4K,
    /// 256 numbers of five bits with scales and minima of 32 each.
    Q5K,
    /// 256 numbers of six bits less 32, with scales of 16 each.
    Q6K,
}

impl Format {
    /// Elements in one block.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes in one block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }
}

/// One entry of the tensor directory, checked against the file's size.
#[derive(Debug)]
pub(crate) struct TensorInfo {
    pub(crate) name: String,
    /// Fastest dimension first, as GGUF has it: columns, rows, …
    pub(crate) dimensions: Vec<usize>,
    pub(crate) format: Format,
    /// From the start of the file.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) adjust: Adjust,
}

/// How a tensor of another container becomes what GGUF would have stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adjust {
    None,
    /// The two halves of each of so many heads' rows become neighbouring pairs.
    Pairs(usize),
    /// One is added to each weight.
    PlusOne,
}

/// A metadata value.
#[derive(Debug)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i64>),
    Floats(Vec<f32>),
}

/// Metadata and directory of one model.
#[derive(Debug, Default)]
pub(crate) struct Header {
    pub(crate) values: HashMap<String, Value>,
    pub(crate) tensors: HashMap<String, TensorInfo>,
    /// Short tensors that are computed from the configuration instead of being stored.
    pub(crate) given: HashMap<String, Vec<f32>>,
}

impl Header {
    pub(crate) fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    pub(crate) fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    fn wrong(key: &str, expected: &str) -> ModelError {
        ModelError::Malformed(format!("metadata key {key} is not {expected}"))
    }

    pub(crate) fn unsigned(&self, key: &str) -> Result<Option<u64>, ModelError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(value)) => Ok(Some(*value)),
            Some(Value::Signed(value)) if *value >= 0 => Ok(Some(value.unsigned_abs())),
            Some(_) => Err(Self::wrong(key, "an unsigned integer")),
        }
    }

    pub(crate) fn float(&self, key: &str) -> Result<Option<f64>, ModelError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Float(value)) => Ok(Some(*value)),
            Some(_) => Err(Self::wrong(key, "a number")),
        }
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>, ModelError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(Self::wrong(key, "a boolean")),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, ModelError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(value)) => Ok(Some(value)),
            Some(_) => Err(Self::wrong(key, "a string")),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Option<&[String]>, ModelError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Texts(value)) => Ok(Some(value)),
            Some(_) => Err(Self::wrong(key, "an array of strings")),
        }
    }

    pub(crate) fn floats(&self, key: &str) -> Result<Option<&[f32]>, ModelError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Floats(value)) => Ok(Some(value)),
            Some(_) => Err(Self::wrong(key, "an array of numbers")),
        }
    }

    pub(crate) fn integers(&self, key: &str) -> Result<Option<&[i64]>, ModelError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Integers(value)) => Ok(Some(value)),
            Some(_) => Err(Self::wrong(key, "an array of integers")),
        }
    }
}

/// The error for a source that ends too early.
pub(crate) fn cut_short(what: &str, needed: u64, available: u64) -> ModelError {
    ModelError::CutShort { what: what.into(), needed, available }
}

/// A file, read piece by piece.
pub(crate) struct FileSource {
    file: File,
    path: PathBuf,
    size: u64,
}

impl FileSource {
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let failed = |source| ModelError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok(Self { file, path: path.to_owned(), size })
    }
}

impl Source for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, out: &mut [u8], _what: &str) -> Result<(), ModelError> {
        self.file
            .read_exact_at(out, offset)
            .map_err(|source| ModelError::Io { path: self.path.clone(), source })
    }
}
