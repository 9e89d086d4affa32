//! What was fetched, on disk.
//!
//! One file per document, named by what it is: `intel/tcb-tdx-90c06f000000`, `amd/crl-vcek-Genoa`, `nvidia/rim-NV_…`. Its first
//! line is JSON about it (when it was fetched, from where, until when it may be used, its digest), the rest is the document as
//! the service gave it. Both are one file so that no process ever sees one without the other: it is written beside and renamed,
//! and of two processes that write the same document the later wins. What does not fit its own digest, or is no longer read as
//! the document it should be, counts as absent and is fetched again.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cocoon_attestation::{Document, UnixTime};
use serde::{Deserialize, Serialize};

use crate::question::{Content, Question};

const VERSION: u32 = 1;
/// Longest first line, in bytes: it holds an issuer's chain.
const MAX_HEAD: usize = 64 * 1024;
/// Largest file, in bytes.
const MAX_FILE: u64 = 2 * 1024 * 1024;

/// A folder of endorsements that were fetched. Its calls block for as long as a small file takes.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// Something could not be written: the next run will fetch it again.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep {}: {source}", path.display())]
pub struct CacheError {
    /// Where.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

/// A document that is there.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) content: Content,
    pub(crate) document: Document,
    pub(crate) fetched: UnixTime,
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    version: u32,
    what: String,
    from: String,
    /// Unix seconds.
    fetched: u64,
    /// Unix seconds; for people, since the document says it itself.
    until: Option<u64>,
    chain: String,
    sha256: String,
}

impl Cache {
    /// A folder that may not exist yet.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// `$XDG_CACHE_HOME/cocoon/endorsements`, or below `~/.cache`; `None` if the environment names neither.
    pub fn of_user() -> Option<Self> {
        let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))?;
        Some(Self::at(base.join("cocoon").join("endorsements")))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn get(&self, question: &Question) -> Option<Entry> {
        let (folder, name) = question.place();
        let bytes = read_bounded(&self.folder.join(folder).join(name))?;
        let end = bytes.iter().take(MAX_HEAD).position(|byte| *byte == b'\n')?;
        let head: Head = serde_json::from_slice(&bytes[..end]).ok()?;
        let content = Content { body: bytes[end + 1..].to_vec(), chain: head.chain };
        if head.version != VERSION || head.sha256 != content.sha256() {
            return None;
        }
        let document = question.document(&content).ok()?;
        Some(Entry { content, document, fetched: UnixTime(head.fetched) })
    }

    pub(crate) fn put(&self, question: &Question, entry: &Entry, from: &str) -> Result<(), CacheError> {
        let (folder, name) = question.place();
        let head = Head {
            version: VERSION,
            what: question.what(),
            from: from.to_owned(),
            fetched: entry.fetched.0,
            until: entry.document.until.map(|until| until.0),
            chain: entry.content.chain.clone(),
            sha256: entry.content.sha256(),
        };
        let mut bytes = serde_json::to_vec(&head).expect("strings and numbers are JSON");
        bytes.push(b'\n');
        bytes.extend_from_slice(&entry.content.body);
        replace(&self.folder.join(folder), &name, &bytes)
    }
}

impl Content {
    fn sha256(&self) -> String {
        hex::encode(digest(&[self.chain.as_bytes(), &[0], &self.body]))
    }
}

/// SHA-256 of the parts, one after the other.
pub(crate) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("SHA-256 is 32 bytes")
}

/// A file of at most [`MAX_FILE`] bytes.
pub(crate) fn read_bounded(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MAX_FILE + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= MAX_FILE).then_some(bytes)
}

/// Writes a file beside its place and renames it.
pub(crate) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let path = folder.join(name);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let beside = folder.join(format!(".{name}.{}.{count}", std::process::id()));
    let write = || {
        std::fs::create_dir_all(folder)?;
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(bytes)?;
        // A crash must not leave an empty file under the name.
        file.sync_all()?;
        std::fs::rename(&beside, &path)
    };
    write().map_err(|source| {
        drop(std::fs::remove_file(&beside)); // it may not even exist
        CacheError { path: path.clone(), source }
    })
}
