//! A machine's files — sysfs, procfs, `/dev`, the boot configuration — under a folder: `/`, or a tree that a test built.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// No file of sysfs or procfs that is read here is longer; the rest of a longer one is not seen.
pub const MOST_BYTES: u64 = 4 << 20;
/// No folder that is listed here holds more names; further ones are not seen.
pub const MOST_NAMES: usize = 1 << 16;

/// What is read from and written to a machine's file systems. Every path is absolute, as the machine itself would say it.
pub trait Files {
    /// A file's text; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// If it cannot be opened or read.
    fn text(&self, path: &str) -> io::Result<String>;
    /// The names in a folder, sorted.
    ///
    /// # Errors
    /// If it cannot be listed.
    fn names(&self, path: &str) -> io::Result<Vec<String>>;
    /// Where a symbolic link points, as it is written there.
    ///
    /// # Errors
    /// If it is no link, or not there.
    fn link(&self, path: &str) -> io::Result<PathBuf>;
    /// Is something there?
    fn exists(&self, path: &str) -> bool;
    /// Hands a value to a file that is already there, in one write: what sysfs wants.
    ///
    /// # Errors
    /// If there is no such file, or what stands behind it refuses the value.
    fn write(&self, path: &str, value: &str) -> io::Result<()>;

    /// A file's text without the white space around it; `None` if it cannot be read.
    fn word(&self, path: &str) -> Option<String> {
        self.text(path).ok().map(|text| text.trim().to_owned())
    }

    /// The last part of what a link points to: `driver` → `nvidia`, `iommu_group` → `42`.
    fn link_name(&self, path: &str) -> Option<String> {
        let target = self.link(path).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }
}

/// The files below a folder.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    /// The machine itself.
    pub fn machine() -> Self {
        Self::at("/")
    }

    /// A tree elsewhere, which stands for a machine.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Where one of the machine's paths lies.
    pub fn path(&self, path: &str) -> PathBuf {
        self.0.join(Path::new(path.trim_start_matches('/')))
    }

    /// A file's bytes.
    ///
    /// # Errors
    /// If it cannot be read, or is longer than `limit`.
    pub fn bytes(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path(path))?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        match u64::try_from(bytes.len()) {
            Ok(length) if length <= limit => Ok(bytes),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {limit} bytes"))),
        }
    }
}

impl Files for Root {
    fn text(&self, path: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(self.path(path))?.take(MOST_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn names(&self, path: &str) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(self.path(path))?.take(MOST_NAMES);
        let mut names = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn link(&self, path: &str) -> io::Result<PathBuf> {
        std::fs::read_link(self.path(path))
    }

    fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    fn write(&self, path: &str, value: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path(path))?.write_all(value.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_machine_stays_below_the_root() {
        assert_eq!(Root::at("/x").path("/sys/bus"), Path::new("/x/sys/bus"));
        assert_eq!(Root::machine().path("/sys/bus"), Path::new("/sys/bus"));
    }

    #[test]
    fn a_file_longer_than_the_limit_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("f"), [0; 9]).expect("it can be written");
        let root = Root::at(folder.path());
        assert_eq!(root.bytes("/f", 9).expect("it fits").len(), 9);
        assert_eq!(root.bytes("/f", 8).expect_err("too long").kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_file_that_is_not_there_is_not_made_by_writing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Root::at(folder.path());
        assert_eq!(root.write("/unbind", "x").expect_err("no file").kind(), io::ErrorKind::NotFound);
        assert!(!root.exists("/unbind"));
    }
}
