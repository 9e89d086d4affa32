//! An initial RAM disk as a cpio archive of the format "newc" (Documentation/driver-api/early-userspace/buffer-format.rst):
//! a header of 110 bytes in hex, the name with a NUL, the content; each padded to four bytes.
//!
//! The archive depends on its entries alone: sorted by path, inodes counted from 1, times and owners zero.

use std::collections::BTreeMap;

/// What stands at a path.
enum Entry {
    Folder,
    File { mode: u32, content: Vec<u8> },
}

/// An archive in the making.
#[derive(Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

/// Why something cannot be added.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpioError {
    /// A path that is absolute, leads upwards, or is not of plain names.
    #[error("`{0}` is no path inside of an archive")]
    Path(String),
    /// Something of that name is there already.
    #[error("`{0}` is there twice")]
    Twice(String),
    /// It has no folder to be in: the kernel makes none.
    #[error("the folder of `{0}` is missing")]
    NoFolder(String),
    /// The format counts lengths in 32 bits.
    #[error("`{0}` is longer than 4 GiB")]
    TooLong(String),
}

const FOLDER: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
/// The length of a member's header, in bytes.
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";

impl Archive {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an empty folder, mode 0755. `path` is relative: `modules`.
    ///
    /// # Errors
    /// See [`CpioError`].
    pub fn folder(&mut self, path: &str) -> Result<(), CpioError> {
        self.insert(path, Entry::Folder)
    }

    /// Adds a file with the permissions `mode` (0755, 0644). Its folder must have been added.
    ///
    /// # Errors
    /// See [`CpioError`].
    pub fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) -> Result<(), CpioError> {
        if u32::try_from(content.len()).is_err() {
            return Err(CpioError::TooLong(path.to_owned()));
        }
        self.insert(path, Entry::File { mode: REGULAR | (mode & 0o7777), content })
    }

    /// Reads an archive that [`Archive::to_bytes`] has written; `None` for any other, be it only in order or padding, and for one
    /// with something behind it: the kernel would unpack that too.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut archive = Self::new();
        let mut rest = bytes;
        loop {
            let (mode, name, content) = member(&mut rest)?;
            match mode {
                FOLDER => archive.folder(name).ok()?,
                _ if mode & !0o7777 == REGULAR => archive.file(name, mode, content.to_vec()).ok()?,
                _ if name == TRAILER => break,
                _ => return None,
            }
        }
        (archive.to_bytes() == bytes).then_some(archive)
    }

    /// The content of a file, by its path in the archive.
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        match self.entries.get(path)? {
            Entry::File { content, .. } => Some(content),
            Entry::Folder => None,
        }
    }

    fn insert(&mut self, path: &str, entry: Entry) -> Result<(), CpioError> {
        // A path that is the trailer's name would end the archive.
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !path.split('/').all(plain) || path == TRAILER || path.len() > 4095 {
            return Err(CpioError::Path(path.to_owned()));
        }
        if let Some((folder, _)) = path.rsplit_once('/')
            && !matches!(self.entries.get(folder), Some(Entry::Folder))
        {
            return Err(CpioError::NoFolder(path.to_owned()));
        }
        if self.entries.contains_key(path) {
            return Err(CpioError::Twice(path.to_owned()));
        }
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    /// The bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            match entry {
                Entry::Folder => append(&mut out, inode, FOLDER, 2, path, &[]),
                Entry::File { mode, content } => append(&mut out, inode, *mode, 1, path, content),
            }
        }
        append(&mut out, 0, 0, 1, TRAILER, &[]);
        out
    }
}

/// One member.
fn append(out: &mut Vec<u8>, inode: u32, mode: u32, links: u32, name: &str, content: &[u8]) {
    let length = u32::try_from(content.len()).expect("checked when it was added");
    let name_length = u32::try_from(name.len() + 1).expect("checked when it was added");
    let (owner, group, time, device, check) = (0, 0, 0, 0, 0);
    let fields =
        [inode, mode, owner, group, links, time, length, device, device, device, device, name_length, check];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

/// Mode, name and content of the next member, which `rest` then begins behind.
fn member<'a>(rest: &mut &'a [u8]) -> Option<(u32, &'a str, &'a [u8])> {
    let (header, behind) = rest.split_at_checked(HEADER)?;
    let field = |index: usize| {
        let digits = header.get(6 + 8 * index..14 + 8 * index)?;
        u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mode, length, name_length) = (field(1)?, field(6)? as usize, field(11)? as usize);
    // The header and the name are padded together.
    let padded = HEADER.checked_add(name_length)?.checked_next_multiple_of(4)?.checked_sub(HEADER)?;
    let (name, behind) = behind.split_at_checked(padded)?;
    let name = str::from_utf8(name.get(..name_length)?.strip_suffix(b"\0")?).ok()?;
    let (content, behind) = behind.split_at_checked(length.checked_next_multiple_of(4)?)?;
    *rest = behind;
    Some((mode, name, content.get(..length)?))
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_is_these_bytes() {
        let mut archive = Archive::new();
        archive.file("init", 0o755, b"hello".to_vec()).expect("a plain path");
        let expected = concat!(
            "070701",
            "00000001",
            "000081ed",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000005",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000005",
            "00000000",
            "init\0\0",
            "hello\0\0\0",
            "070701",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "0000000b",
            "00000000",
            "TRAILER!!!\0\0\0\0",
        );
        assert_eq!(String::from_utf8(archive.to_bytes()).expect("text"), expected);
    }

    #[test]
    fn the_order_of_adding_does_not_show() {
        let build = |names: [&str; 3]| {
            let mut archive = Archive::new();
            archive.folder("d").expect("a plain path");
            for name in names {
                archive.file(name, 0o644, name.as_bytes().to_vec()).expect("a plain path");
            }
            archive.to_bytes()
        };
        assert_eq!(build(["a", "d/b", "z"]), build(["z", "a", "d/b"]));
    }

    #[test]
    fn what_would_not_unpack_is_refused() {
        let mut archive = Archive::new();
        archive.folder("d").expect("a plain path");
        archive.file("f", 0o644, vec![]).expect("a plain path");
        for path in ["", "/x", "x/", "d/../x", "./x", "d//x", "x\0y", TRAILER] {
            assert_eq!(archive.file(path, 0o644, vec![]), Err(CpioError::Path(path.to_owned())));
        }
        assert_eq!(archive.folder("d"), Err(CpioError::Twice("d".into())));
        for path in ["e/x", "f/x"] {
            assert_eq!(archive.file(path, 0o644, vec![]), Err(CpioError::NoFolder(path.into())));
        }
    }

    #[test]
    fn an_archive_is_read_again_and_any_other_bytes_are_refused() {
        let mut archive = Archive::new();
        archive.folder("modules").expect("a plain path");
        archive.file("init", 0o755, b"hello".to_vec()).expect("a plain path");
        archive.file("modules/00-a.ko", 0o644, Vec::new()).expect("a plain path");
        let bytes = archive.to_bytes();
        let read = Archive::from_bytes(&bytes).expect("its own bytes");
        assert_eq!(read.content("init"), Some(b"hello".as_slice()));
        assert_eq!(read.content("modules/00-a.ko"), Some(b"".as_slice()));
        assert_eq!((read.content("modules"), read.content("sh")), (None, None));
        let twice = [bytes.as_slice(), &bytes].concat();
        assert!(Archive::from_bytes(&twice).is_none(), "the kernel would unpack the second over the first");
        for length in 0..bytes.len() {
            assert!(Archive::from_bytes(&bytes[..length]).is_none(), "{length} bytes of it");
        }
        // Any byte but those of contents, names, modes and lengths is given; none is read without a panic.
        for at in 0..bytes.len() {
            for flip in [1, 0x10, 0x80] {
                let mut other = bytes.clone();
                other[at] ^= flip;
                if let Some(archive) = Archive::from_bytes(&other) {
                    assert_eq!(archive.to_bytes(), other, "byte {at}");
                }
            }
        }
    }
}
