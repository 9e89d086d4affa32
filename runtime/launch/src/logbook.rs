//! The host's log: lines of the guests, which hold no content, and the host's own; one JSON object on a line, in one
//! file that starts over when it is full. `cocoon host logs` reads the file, whether the host runs or not.

use std::{
    fs,
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::vm::LineSink;

/// The file's name in the state folder; the one before has `.1` at its end.
pub const FILE: &str = "host.log";
/// The file starts over when it is larger than this, in bytes; so the log takes at most twice as much.
pub const MAX_FILE: u64 = 16 << 20;
/// Longest line of text that is kept, in bytes.
const MAX_TEXT: usize = 4096;
/// Longest line of the file that is read back, in bytes: every byte of the text may be written as six.
const MAX_ENTRY: u64 = 6 * MAX_TEXT as u64 + 256;
/// Who speaks when it is no guest.
pub const HOST: &str = "host";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was written, milliseconds after 1970.
    pub at: u64,
    /// The guest's name, or [`HOST`].
    pub from: String,
    /// The text, without control characters.
    pub line: String,
}

/// Writes the log. Clones write the same one.
#[derive(Clone, Debug)]
pub struct LogBook {
    open: Arc<Mutex<Open>>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: fs::File,
    length: u64,
    most: u64,
}

impl LogBook {
    /// Opens the log of a state folder, and goes on where it ends.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(state: &Path) -> io::Result<Self> {
        Self::with_limit(state, MAX_FILE)
    }

    fn with_limit(state: &Path, most: u64) -> io::Result<Self> {
        let path = state.join(FILE);
        let file = fs::OpenOptions::new().append(true).create(true).open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { open: Arc::new(Mutex::new(Open { path, file, length, most })) })
    }

    /// Writes a line. A log that cannot be written stops nobody: it is said once in our own diagnostics.
    pub fn note(&self, from: &str, line: &str) {
        let line: String =
            line.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
        let line = line.get(..line.floor_char_boundary(MAX_TEXT)).unwrap_or_default().to_owned();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let mut entry =
            serde_json::to_vec(&Entry { at, from: from.to_owned(), line }).expect("plain data encodes");
        entry.push(b'\n');
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = open.append(&entry) {
            tracing::warn!(%error, file = %open.path.display(), "the host's log cannot be written");
        }
    }

    /// Takes a guest's lines.
    pub fn sink(&self, guest: &str) -> LineSink {
        let (book, guest) = (self.clone(), guest.to_owned());
        Arc::new(move |line: &str| book.note(&guest, line))
    }
}

impl Open {
    fn append(&mut self, entry: &[u8]) -> io::Result<()> {
        if self.length.saturating_add(entry.len() as u64) > self.most {
            fs::rename(&self.path, before(&self.path))?;
            self.file = fs::OpenOptions::new().append(true).create(true).open(&self.path)?;
            self.length = 0;
        }
        self.file.write_all(entry)?;
        self.length += entry.len() as u64;
        Ok(())
    }
}

fn before(path: &Path) -> PathBuf {
    let mut before = path.as_os_str().to_owned();
    before.push(".1");
    before.into()
}

/// Reads a log, and follows it over its new beginnings.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    reader: BufReader<fs::File>,
    inode: u64,
    /// The beginning of a line whose end is not written yet.
    part: Vec<u8>,
}

impl LogReader {
    /// Opens the log of a state folder at its last `last` lines.
    ///
    /// # Errors
    /// What the system says; not found, if no host has ever run there.
    pub fn open(state: &Path, last: usize) -> io::Result<(Vec<Entry>, Self)> {
        let path = state.join(FILE);
        let mut entries = Vec::new();
        // The file before this one may hold the older of them.
        if let Ok(file) = fs::File::open(before(&path)) {
            let mut old =
                Self { path: path.clone(), reader: BufReader::new(file), inode: 0, part: Vec::new() };
            entries = old.read_to_end(last)?;
        }
        let mut reader = Self::start(&path)?;
        entries.extend(reader.read_to_end(last)?);
        entries.drain(..entries.len().saturating_sub(last));
        Ok((entries, reader))
    }

    fn start(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Self { path: path.to_path_buf(), reader: BufReader::new(file), inode, part: Vec::new() })
    }

    /// What has been written since.
    ///
    /// # Errors
    /// What the system says.
    pub fn news(&mut self) -> io::Result<Vec<Entry>> {
        let mut entries = self.read_to_end(usize::MAX)?;
        if fs::metadata(&self.path).is_ok_and(|now| now.ino() != self.inode) {
            *self = Self::start(&self.path)?;
            entries.extend(self.read_to_end(usize::MAX)?);
        }
        Ok(entries)
    }

    /// All whole lines up to the end, the last `most` of them. What is no entry is passed over.
    fn read_to_end(&mut self, most: usize) -> io::Result<Vec<Entry>> {
        let mut entries = std::collections::VecDeque::new();
        // A file that grew again since its end was seen.
        let at = self.reader.stream_position()?;
        self.reader.seek(SeekFrom::Start(at))?;
        loop {
            let room = MAX_ENTRY.saturating_sub(self.part.len() as u64);
            let got = io::Read::take(&mut self.reader, room.max(1)).read_until(b'\n', &mut self.part)?;
            if got == 0 {
                return Ok(entries.into());
            }
            let whole = self.part.ends_with(b"\n");
            if !whole && (self.part.len() as u64) < MAX_ENTRY {
                continue;
            }
            if let Ok(entry) = serde_json::from_slice(&self.part) {
                if entries.len() >= most {
                    entries.pop_front();
                }
                entries.push_back(entry);
            }
            self.part.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.line.as_str()).collect()
    }

    #[test]
    fn what_is_written_is_read_back_and_followed() {
        let at = tempfile::tempdir().expect("a folder");
        let book = LogBook::open(at.path()).expect("writable");
        book.note(HOST, "one");
        book.sink("gpu-0")("two \x1b[2J");
        let (entries, mut reader) = LogReader::open(at.path(), 10).expect("there");
        assert_eq!(lines(&entries), ["one", "two \u{fffd}[2J"]);
        assert_eq!((entries[0].from.as_str(), entries[1].from.as_str()), (HOST, "gpu-0"));
        assert!(entries[0].at > 1_600_000_000_000 && reader.news().expect("there").is_empty());
        book.note(HOST, "three");
        assert_eq!(lines(&reader.news().expect("there")), ["three"]);
        drop(book);
        LogBook::open(at.path()).expect("writable").note(HOST, "four");
        assert_eq!(lines(&LogReader::open(at.path(), 2).expect("there").0), ["three", "four"]);
    }

    #[test]
    fn the_log_starts_over_and_neither_reader_nor_disk_suffers() {
        let at = tempfile::tempdir().expect("a folder");
        let book = LogBook::with_limit(at.path(), 1000).expect("writable");
        book.note(HOST, "first");
        let (_, mut reader) = LogReader::open(at.path(), 0).expect("there");
        let mut seen = Vec::new();
        for n in 0..100 {
            book.note(HOST, &n.to_string());
            seen.extend(reader.news().expect("there").into_iter().map(|entry| entry.line));
            assert!(fs::metadata(at.path().join(FILE)).expect("there").len() <= 1000);
        }
        assert_eq!(seen, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(at.path()).expect("there").count(), 2);
        let (entries, _) = LogReader::open(at.path(), 20).expect("there");
        assert_eq!(entries.len(), 20, "over both files");
    }

    #[test]
    fn lines_that_are_none_are_passed_over_and_halves_are_waited_for() {
        let at = tempfile::tempdir().expect("a folder");
        let good = r#"{"at":1,"from":"host","line":"good"}"#;
        let long = "x".repeat(100_000);
        fs::write(at.path().join(FILE), format!("nonsense\n{good}\n{long}\n{{}}\n{good}\n{{\"at\":2,"))
            .expect("writable");
        let (entries, mut reader) = LogReader::open(at.path(), 10).expect("there");
        assert_eq!(lines(&entries), ["good", "good"]);
        let mut file = fs::OpenOptions::new().append(true).open(at.path().join(FILE)).expect("there");
        file.write_all(b"\"from\":\"a\",\"line\":\"later\"}\n").expect("writable");
        assert_eq!(lines(&reader.news().expect("there")), ["later"]);
        assert!(LogReader::open(Path::new("/nowhere"), 1).is_err());
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let at = tempfile::tempdir().expect("a folder");
        LogBook::open(at.path()).expect("writable").note(HOST, &"ü".repeat(5000));
        let (entries, _) = LogReader::open(at.path(), 1).expect("there");
        assert_eq!(entries[0].line.len(), MAX_TEXT);
    }
}
