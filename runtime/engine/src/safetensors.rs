//! The safetensors container: eight bytes with the length of a JSON header, the header, and the tensors' bytes.
//!
//! Of <https://github.com/huggingface/safetensors>, "Format". A model may be cut into several files, which lie in one
//! folder with an index. As with GGUF, every length and offset is checked before anything is allocated for it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};

use crate::{
    container::{Format, Source, cut_short},
    error::ModelError,
    files::{self, Files},
};

/// Longest header of a file, in bytes.
const MAX_HEADER: u64 = 64 << 20;
/// Most tensors in a file.
const MAX_TENSORS: usize = 65_536;
/// Most files of a model.
const MAX_FILES: usize = 1024;
/// Longest index, in bytes.
const MAX_INDEX: u64 = 64 << 20;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 4;

/// One tensor of the directory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) format: Format,
    /// Slowest dimension first, as the file has it: rows, columns.
    pub(crate) shape: Vec<usize>,
    /// From the start of all files, one after the other.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// A tensor as the header describes it.
#[derive(Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// `model.safetensors.index.json`; what else it says is not needed.
#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

/// The files of a model as one source, one after the other.
pub(crate) struct Parts {
    /// Where each starts.
    files: Vec<(u64, Box<dyn Source>)>,
}

impl Source for Parts {
    fn size(&self) -> u64 {
        self.files.last().map_or(0, |(start, file)| start + file.size())
    }

    fn read(&self, offset: u64, out: &mut [u8], what: &str) -> Result<(), ModelError> {
        let after = self.files.partition_point(|(start, _)| *start <= offset);
        let (start, file) = &self.files[after.saturating_sub(1)];
        file.read(offset - start, out, what)
    }
}

/// Opens `model.safetensors`, or the files that its index names, and reads their headers, but for tensors that are to be
/// left out.
pub(crate) fn open(
    folder: &dyn Files,
    is_unused: impl Fn(&str) -> bool,
) -> Result<(Parts, HashMap<String, Entry>), ModelError> {
    const INDEX: &str = "model.safetensors.index.json";
    let names = match folder.open(INDEX)? {
        Some(_) => indexed(files::json(folder, INDEX, MAX_INDEX)?)?,
        None => vec!["model.safetensors".to_owned()],
    };
    let (mut parts, mut all) = (Parts { files: Vec::new() }, HashMap::new());
    for name in names {
        let file = files::required(folder, &name)?;
        let start = parts.size();
        for (tensor, mut entry) in read(&*file, &is_unused)? {
            entry.offset += start;
            if all.insert(tensor.clone(), entry).is_some() {
                return Err(ModelError::Malformed(format!("tensor {tensor} is in two of its files")));
            }
        }
        parts.files.push((start, file));
    }
    Ok((parts, all))
}

/// The files that an index names, each once, in order.
fn indexed(index: Index) -> Result<Vec<String>, ModelError> {
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort_unstable();
    names.dedup();
    // A name is not a path: an index must not reach out of its folder.
    if let Some(name) =
        names.iter().find(|name| name.contains(['/', '\\']) || !name.ends_with(".safetensors"))
    {
        return Err(ModelError::Malformed(format!("its index names the file {name:?}")));
    }
    if names.is_empty() || names.len() > MAX_FILES {
        let (what, found) = ("the number of its files".into(), names.len() as u64);
        return Err(ModelError::Limit { what, found, limit: MAX_FILES as u64 });
    }
    Ok(names)
}

/// Reads and checks the header of one file; offsets are from its start.
fn read(
    source: &dyn Source,
    is_unused: &impl Fn(&str) -> bool,
) -> Result<HashMap<String, Entry>, ModelError> {
    let malformed = |what: String| ModelError::Malformed(what);
    let size = source.size();
    let mut length = [0; 8];
    if size < 8 {
        return Err(cut_short("the length of its header", 8, size));
    }
    source.read(0, &mut length, "the length of its header")?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        let what = "the length of its header".into();
        return Err(ModelError::Limit { what, found: length, limit: MAX_HEADER });
    }
    if length > size - 8 {
        return Err(cut_short("its header", length, size - 8));
    }
    let mut header = vec![0; length as usize];
    source.read(8, &mut header, "its header")?;
    let mut json = serde_json::Deserializer::from_slice(&header);
    let tensors =
        Tensors { is_unused }.deserialize(&mut json).and_then(|tensors| json.end().map(|()| tensors));
    let tensors = tensors
        .map_err(|error| malformed(format!("its safetensors header cannot be understood: {error}")))?;
    if tensors.len() > MAX_TENSORS {
        let (what, found) = ("the number of tensors".into(), tensors.len() as u64);
        return Err(ModelError::Limit { what, found, limit: MAX_TENSORS as u64 });
    }
    let (mut entries, mut total) = (HashMap::new(), 0u64);
    for (name, described) in tensors {
        let entry = check(&name, described, 8 + length, size)?;
        // Tensors that lie over each other could ask for more memory than the file has bytes.
        total = total.saturating_add(entry.bytes);
        entries.insert(name, entry);
    }
    if total > size {
        return Err(malformed("its tensors overlap".into()));
    }
    Ok(entries)
}

/// Reads a header, but for what is not needed of it: nothing is kept of that, however much it is.
struct Tensors<'u, U> {
    is_unused: &'u U,
}

impl<'de, U: Fn(&str) -> bool> DeserializeSeed<'de> for Tensors<'_, U> {
    type Value = Vec<(String, Described)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, U: Fn(&str) -> bool> Visitor<'de> for Tensors<'_, U> {
    type Value = Vec<(String, Described)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let (mut tensors, mut names) = (Vec::new(), HashSet::new());
        while let Some(name) = access.next_key::<String>()? {
            if name == "__metadata__" || (self.is_unused)(&name) {
                access.next_value::<IgnoredAny>()?;
                continue;
            }
            let described = access
                .next_value()
                .map_err(|error| A::Error::custom(format!("tensor {name} cannot be understood: {error}")))?;
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("tensor {name} appears twice")));
            }
            tensors.push((name, described));
        }
        Ok(tensors)
    }
}

fn check(name: &str, described: Described, data: u64, size: u64) -> Result<Entry, ModelError> {
    let format = match described.dtype.as_str() {
        "F32" => Format::F32,
        "F16" => Format::F16,
        "BF16" => Format::Bf16,
        other => {
            return Err(ModelError::Unsupported(format!(
                "tensor {name} is stored as {other}; F32, F16 and BF16 are known"
            )));
        }
    };
    if described.shape.len() > MAX_DIMENSIONS {
        let (what, found) = (format!("the dimensions of {name}"), described.shape.len() as u64);
        return Err(ModelError::Limit { what, found, limit: MAX_DIMENSIONS as u64 });
    }
    let wrong = |what: &str| ModelError::Malformed(format!("tensor {name} {what}"));
    let [start, end] = described.data_offsets;
    let bytes = end.checked_sub(start).ok_or_else(|| wrong("ends before it begins"))?;
    let elements = described.shape.iter().try_fold(1u64, |all, length| all.checked_mul(*length));
    let needed = elements.and_then(|elements| elements.checked_mul(format.block_bytes() as u64));
    if needed != Some(bytes) || bytes == 0 {
        return Err(wrong("has a shape that is not the size of its data"));
    }
    let available = size.saturating_sub(data.saturating_add(start));
    if bytes > available {
        return Err(cut_short(&format!("tensor {name}"), bytes, available));
    }
    let shape: Result<Vec<usize>, _> =
        described.shape.iter().map(|&length| usize::try_from(length)).collect();
    let shape = shape.map_err(|_| wrong("has a dimension that does not fit a number"))?;
    Ok(Entry { format, shape, offset: data + start, bytes })
}
