//! A folder as one file, so that one hash names a model of several: an archive in POSIX's ustar format (IEEE 1003.1, pax,
//! "ustar Interchange Format") with one spelling. It holds what a reader of the folder asks for and nothing else, in the
//! order of the names' bytes; of each file name and bytes, and neither times nor owners. GNU tar writes the same bytes:
//!
//! ```text
//! LC_ALL=C tar --format=ustar --blocking-factor=1 --sort=none --mode=644 --mtime=@0 --owner=0 --group=0 --numeric-owner \
//!     -cf MODEL.tar 1_Pooling/config.json config.json model.safetensors …
//! ```

use std::{
    collections::BTreeMap,
    io::{self, Write},
    ops::Range,
    sync::Arc,
};

use crate::{
    container::{Source, cut_short},
    error::ModelError,
    files::{Files, required},
};

/// Bytes of a header, and of the blocks that files are filled up to.
const BLOCK: usize = 512;
/// Most files of an archive: one for each part of the weights, and a few more.
const MAX_FILES: usize = 1100;
/// Longest name, in bytes.
const MAX_NAME: usize = 100;
/// Longest file, in bytes: what eleven octal digits can say.
const MAX_FILE: u64 = (1 << 33) - 1;
/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;
/// Where a header says that it is one.
const MAGIC: Range<usize> = 257..265;

/// An archive in memory.
pub(crate) struct Archive {
    bytes: Arc<Vec<u8>>,
    files: BTreeMap<String, Range<usize>>,
}

/// One file of an archive.
struct Member {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Source for Member {
    fn size(&self) -> u64 {
        self.range.len() as u64
    }

    fn read(&self, offset: u64, out: &mut [u8], what: &str) -> Result<(), ModelError> {
        let all = &self.bytes[self.range.clone()];
        let rest = usize::try_from(offset).ok().and_then(|offset| all.get(offset..)).unwrap_or_default();
        match rest.get(..out.len()) {
            Some(found) => out.copy_from_slice(found),
            None => return Err(cut_short(what, out.len() as u64, rest.len() as u64)),
        }
        Ok(())
    }
}

impl Files for Archive {
    fn name(&self) -> Option<&str> {
        None
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Source>>, ModelError> {
        let member = |range: &Range<usize>| Member { bytes: Arc::clone(&self.bytes), range: range.clone() };
        Ok(self.files.get(name).map(|range| Box::new(member(range)) as Box<dyn Source>))
    }
}

impl Archive {
    /// Whether these bytes begin as an archive does.
    pub(crate) fn is_one(bytes: &[u8]) -> bool {
        bytes.get(MAGIC) == Some(b"ustar\x0000")
    }

    /// The same of a file.
    pub(crate) fn is_at(file: &dyn Source) -> Result<bool, ModelError> {
        let mut block = [0; BLOCK];
        if file.size() < BLOCK as u64 {
            return Ok(false);
        }
        file.read(0, &mut block, "its first bytes")?;
        Ok(Self::is_one(&block))
    }

    /// Reads a whole file into memory.
    pub(crate) fn load(file: &dyn Source) -> Result<Self, ModelError> {
        let what = "the archive";
        let limit = || ModelError::Limit { what: what.into(), found: file.size(), limit: usize::MAX as u64 };
        let mut bytes = Vec::new();
        let size = usize::try_from(file.size()).map_err(|_| limit())?;
        bytes.try_reserve_exact(size).map_err(|_| limit())?;
        bytes.resize(size, 0);
        file.read(0, &mut bytes, what)?;
        Self::read(bytes)
    }

    /// Reads what [`write`] wrote, and nothing else.
    pub(crate) fn read(bytes: Vec<u8>) -> Result<Self, ModelError> {
        let mut files: BTreeMap<String, Range<usize>> = BTreeMap::new();
        let mut at = 0;
        while let Some((name, size)) = member(&bytes, at)? {
            let start = at + BLOCK;
            let available = bytes.len() - start;
            let end = match usize::try_from(size) {
                Ok(size) if size.next_multiple_of(BLOCK) <= available => start + size,
                _ => return Err(cut_short(&name, size, available as u64)),
            };
            at = end.next_multiple_of(BLOCK);
            if bytes[end..at].iter().any(|byte| *byte != 0) {
                return Err(malformed(format!("something stands between {name} and what comes next")));
            }
            if files.last_key_value().is_some_and(|(last, _)| *last >= name) || files.len() == MAX_FILES {
                return Err(malformed(format!("{name} is out of order, or one file too many")));
            }
            files.insert(name, start..end);
        }
        if bytes[at..].len() != 2 * BLOCK || bytes[at..].iter().any(|byte| *byte != 0) {
            return Err(malformed("it does not end with two empty blocks".into()));
        }
        Ok(Self { bytes: Arc::new(bytes), files })
    }
}

/// Name and size of the file whose header stands at `at`; `None` for an empty block, with which the end begins.
fn member(bytes: &[u8], at: usize) -> Result<Option<(String, u64)>, ModelError> {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some(found) = rest.first_chunk::<BLOCK>() else {
        return Err(cut_short("a header of the archive", BLOCK as u64, rest.len() as u64));
    };
    if found == &[0; BLOCK] {
        return Ok(None);
    }
    let name = found[..MAX_NAME].split(|byte| *byte == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).ok().filter(|name| is_plain(name));
    let name = name.ok_or_else(|| malformed("it names a file that no model has".into()))?;
    let size = std::str::from_utf8(&found[124..135]).ok().and_then(|text| u64::from_str_radix(text, 8).ok());
    // One spelling: what is not as we would have written it is refused, whatever it says.
    match size {
        Some(size) if *found == header(name, size) => Ok(Some((name.to_owned(), size))),
        _ => Err(malformed(format!("the header of {name} is not as this engine writes it"))),
    }
}

/// Writes these files of a folder.
///
/// # Errors
/// What reading or writing says; a name or a file is too long.
pub(crate) fn write<'n>(
    files: &dyn Files,
    names: impl IntoIterator<Item = &'n str>,
    out: &mut dyn Write,
) -> Result<(), PackError> {
    for name in names {
        let file = required(files, name)?;
        if !is_plain(name) {
            return Err(malformed(format!("a file cannot be called {name:?} in an archive")).into());
        }
        if file.size() > MAX_FILE {
            return Err(ModelError::Limit {
                what: format!("the size of {name}"),
                found: file.size(),
                limit: MAX_FILE,
            }
            .into());
        }
        out.write_all(&header(name, file.size()))?;
        copy(&*file, name, out)?;
    }
    out.write_all(&[0; 2 * BLOCK])?;
    Ok(())
}

fn copy(file: &dyn Source, name: &str, out: &mut dyn Write) -> Result<(), PackError> {
    let (mut piece, mut at) = (vec![0; PIECE], 0);
    while at < file.size() {
        let length = (file.size() - at).min(PIECE as u64) as usize;
        file.read(at, &mut piece[..length], name)?;
        out.write_all(&piece[..length])?;
        at += length as u64;
    }
    let filling = file.size().next_multiple_of(BLOCK as u64) - file.size();
    out.write_all(&[0; BLOCK][..filling as usize])?;
    Ok(())
}

/// Why a folder was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The folder cannot be read, or holds no model that this engine runs.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The archive cannot be written.
    #[error("the archive cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Parts of letters, digits, `-`, `_` and `.`, none of which begins with a dot: it leads nowhere else.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    name.len() <= MAX_NAME && name.split('/').all(part)
}

/// A header as GNU tar writes it for a regular file of mode 644 that nobody owns, of 1970.
fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(MAGIC.start, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn malformed(what: String) -> ModelError {
    ModelError::Malformed(format!("its archive cannot be used: {what}"))
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
