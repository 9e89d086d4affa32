//! The GGUF container, versions 2 and 3: metadata and a directory of tensors.
//!
//! The file is a peer's bytes until its hash is known: every length, count and offset is checked against a named
//! limit and against the file's size before anything is allocated for it.

use std::collections::HashMap;

use crate::{
    container::{Adjust, Format, Header, Source, TensorInfo, Value, cut_short},
    error::ModelError,
};

/// Most metadata keys in a file.
const MAX_KEYS: u64 = 4096;
/// Most tensors in a file.
const MAX_TENSORS: u64 = 65_536;
/// Longest string, in bytes: chat templates are the long ones.
const MAX_STRING: u64 = 1 << 20;
/// Longest key or tensor name, in bytes.
const MAX_NAME: u64 = 256;
/// Most elements in an array: vocabularies and merges are the long ones.
const MAX_ARRAY: u64 = 1 << 21;
/// Most elements of all arrays together: in memory an element takes up to 24 bytes, in the file one.
const MAX_ELEMENTS: u64 = 1 << 23;
/// Most bytes of metadata and directory together.
const MAX_HEADER: u64 = 256 << 20;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: u32 = 4;
/// Most elements along one dimension.
const MAX_DIMENSION: u64 = 1 << 32;
/// Largest alignment of tensor data that a file may ask for.
const MAX_ALIGNMENT: u64 = 1 << 16;
/// How much of the header is fetched from the source at a time.
const WINDOW: usize = 1 << 16;

/// Reads and checks everything but the tensors' data.
pub(crate) fn read(source: &dyn Source) -> Result<Header, ModelError> {
    let mut cursor = Cursor::new(source);
    let magic = cursor.array::<4>("the magic")?;
    if &magic != b"GGUF" {
        return Err(ModelError::NotGguf { found: magic });
    }
    let version = cursor.u32("the version")?;
    if !(2..=3).contains(&version) {
        return Err(ModelError::Version(version));
    }
    let tensor_count = limited("the number of tensors", cursor.u64("the tensor count")?, MAX_TENSORS)?;
    let key_count = limited("the number of metadata keys", cursor.u64("the key count")?, MAX_KEYS)?;

    let mut values = HashMap::new();
    for _ in 0..key_count {
        let key = cursor.string("a metadata key", MAX_NAME)?;
        let value = cursor.value(&key)?;
        if values.insert(key.clone(), value).is_some() {
            return Err(ModelError::Malformed(format!("metadata key {key} appears twice")));
        }
    }
    let mut header = Header { values, ..Header::default() };
    read_directory(&mut header, &mut cursor, tensor_count)?;
    Ok(header)
}

fn read_directory(header: &mut Header, cursor: &mut Cursor<'_>, count: u64) -> Result<(), ModelError> {
    let alignment = header.unsigned("general.alignment")?.unwrap_or(32);
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(ModelError::Malformed(format!(
            "general.alignment is {alignment}, not a power of two up to {MAX_ALIGNMENT}"
        )));
    }
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(cursor.tensor()?);
    }
    let data_start = cursor.position.next_multiple_of(alignment);
    let size = cursor.source.size();
    let mut total = 0u64;
    for mut tensor in entries {
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(ModelError::Malformed(format!("tensor {} is not aligned", tensor.name)));
        }
        let start = data_start.saturating_add(tensor.offset);
        let available = size.saturating_sub(start);
        if tensor.bytes > available {
            return Err(cut_short(&format!("tensor {}", tensor.name), tensor.bytes, available));
        }
        // Tensors that lie over each other could ask for more memory than the file has bytes.
        total = total.saturating_add(tensor.bytes);
        if total > size {
            return Err(ModelError::Malformed("its tensors overlap".into()));
        }
        tensor.offset = start;
        if let Some(twice) = header.tensors.insert(tensor.name.clone(), tensor) {
            return Err(ModelError::Malformed(format!("tensor {} appears twice", twice.name)));
        }
    }
    Ok(())
}

fn limited(what: &str, found: u64, limit: u64) -> Result<u64, ModelError> {
    if found > limit {
        return Err(ModelError::Limit { what: what.into(), found, limit });
    }
    Ok(found)
}

/// Reads the header front to back through a small window.
struct Cursor<'a> {
    source: &'a dyn Source,
    position: u64,
    window: Vec<u8>,
    window_start: u64,
    /// Elements of arrays so far.
    elements: u64,
}

impl<'a> Cursor<'a> {
    fn new(source: &'a dyn Source) -> Self {
        Self { source, position: 0, window: Vec::new(), window_start: 0, elements: 0 }
    }

    fn fill(&mut self, out: &mut [u8], what: &str) -> Result<(), ModelError> {
        let needed = out.len() as u64;
        let available = self.source.size().saturating_sub(self.position);
        if needed > available {
            return Err(cut_short(what, needed, available));
        }
        limited("the size of its header", self.position + needed, MAX_HEADER)?;
        let inside = self.position.checked_sub(self.window_start).is_some_and(|skip| {
            skip + needed <= self.window.len() as u64 // both are far below 2^63
        });
        if !inside {
            let length = available.min(WINDOW.max(out.len()) as u64) as usize;
            self.window.resize(length, 0);
            self.window_start = self.position;
            self.source.read(self.position, &mut self.window, what)?;
        }
        let skip = (self.position - self.window_start) as usize;
        out.copy_from_slice(&self.window[skip..skip + out.len()]);
        self.position += needed;
        Ok(())
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], ModelError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, ModelError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, ModelError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn string(&mut self, what: &str, limit: u64) -> Result<String, ModelError> {
        let length = self.u64(what)?;
        if length > limit {
            return Err(ModelError::Limit { what: format!("the length of {what}"), found: length, limit });
        }
        let available = self.source.size().saturating_sub(self.position);
        if length > available {
            return Err(cut_short(what, length, available));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes, what)?;
        String::from_utf8(bytes).map_err(|_| ModelError::Malformed(format!("{what} is not UTF-8")))
    }

    fn value(&mut self, key: &str) -> Result<Value, ModelError> {
        let kind = self.u32(key)?;
        if kind == 9 { self.array_value(key) } else { self.scalar(kind, key) }
    }

    fn scalar(&mut self, kind: u32, key: &str) -> Result<Value, ModelError> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(self.array::<1>(key)?[0])),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.array(key)?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array(key)?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array(key)?))),
            4 => Value::Unsigned(u64::from(self.u32(key)?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array(key)?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array(key)?))),
            7 => match self.array::<1>(key)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => {
                    return Err(ModelError::Malformed(format!(
                        "metadata key {key} is {other}, not a boolean"
                    )));
                }
            },
            8 => Value::Text(self.string(key, MAX_STRING)?),
            10 => Value::Unsigned(self.u64(key)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(key)?)),
            12 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            _ => {
                return Err(ModelError::Malformed(format!("metadata key {key} has the unknown type {kind}")));
            }
        })
    }

    fn array_value(&mut self, key: &str) -> Result<Value, ModelError> {
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        limited(&format!("the number of elements of {key}"), count, MAX_ARRAY)?;
        self.elements += count; // both are far below 2^63
        limited("the number of elements of all its arrays", self.elements, MAX_ELEMENTS)?;
        if kind == 9 {
            return Err(ModelError::Malformed(format!("metadata key {key} holds arrays in an array")));
        }
        // No capacity is taken on the file's word: each element is read before there is room for it.
        let (mut texts, mut integers, mut floats) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            match self.scalar(kind, key)? {
                Value::Text(text) => texts.push(text),
                Value::Float(value) => floats.push(value as f32),
                Value::Signed(value) => integers.push(value),
                Value::Unsigned(value) => integers.push(i64::try_from(value).unwrap_or(i64::MAX)),
                Value::Bool(value) => integers.push(i64::from(value)),
                _ => unreachable!("scalar returns scalars"),
            }
        }
        Ok(match kind {
            8 => Value::Texts(texts),
            6 | 12 => Value::Floats(floats),
            _ => Value::Integers(integers),
        })
    }

    fn tensor(&mut self) -> Result<TensorInfo, ModelError> {
        let name = self.string("a tensor's name", MAX_NAME)?;
        let count = self.u32(&name)?;
        limited(&format!("the dimensions of {name}"), u64::from(count), u64::from(MAX_DIMENSIONS))?;
        let mut dimensions = Vec::new();
        let mut elements = 1u64;
        for _ in 0..count {
            let length = limited(&format!("a dimension of {name}"), self.u64(&name)?, MAX_DIMENSION)?;
            if length == 0 {
                return Err(ModelError::Malformed(format!("tensor {name} has an empty dimension")));
            }
            elements = elements.checked_mul(length).ok_or_else(|| overflow(&name))?;
            dimensions.push(usize::try_from(length).map_err(|_| overflow(&name))?);
        }
        let format = format_of(self.u32(&name)?, &name)?;
        let offset = self.u64(&name)?;
        let columns = dimensions.first().copied().unwrap_or(1);
        if !columns.is_multiple_of(format.block_len()) {
            return Err(ModelError::Malformed(format!("the rows of {name} are not whole blocks")));
        }
        let bytes = (elements / format.block_len() as u64)
            .checked_mul(format.block_bytes() as u64)
            .ok_or_else(|| overflow(&name))?;
        Ok(TensorInfo { name, dimensions, format, offset, bytes, adjust: Adjust::None })
    }
}

fn overflow(name: &str) -> ModelError {
    ModelError::Malformed(format!("the size of tensor {name} does not fit a number"))
}

/// ggml's numbers of types.
fn format_of(code: u32, tensor: &str) -> Result<Format, ModelError> {
    Ok(match code {
        0 => Format::F32,
        1 => Format::F16,
        2 => Format::Q4_0,
        3 => Format::Q4_1,
        6 => Format::Q5_0,
        8 => Format::Q8_0,
        12 => Format::Q4K,
        13 => Format::Q5K,
        14 => Format::Q6K,
        30 => Format::Bf16,
        _ => {
            return Err(ModelError::Unsupported(format!(
                "tensor {tensor} is stored in ggml type {code}; F32, F16, BF16, Q4_0, Q4_1, \
                 Q5_0, Q8_0, Q4_K, Q5_K and Q6_K are known"
            )));
        }
    })
}
