//! The few file operations that the kernel's attestation interfaces need, so that tests can stand in for the kernel.

use super::TeeError;
use super::clock::Trouble;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Files and folders, as the kernel shows them.
pub(super) trait Files: Send {
    /// Makes a folder; in configfs, an object.
    fn make(&self, folder: &Path) -> io::Result<()>;
    /// Removes it with its attributes, which in configfs cannot be removed by themselves.
    fn remove(&self, folder: &Path) -> io::Result<()>;
    /// Opens, writes in one call, closes. Less than everything is an error.
    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Opens for reading from the start.
    fn open(&self, file: &Path) -> io::Result<Box<dyn Read>>;
    /// Whether there is something at this path.
    fn exists(&self, path: &Path) -> bool;
}

/// The real ones.
pub(super) struct Disk;

impl Files for Disk {
    fn make(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir(folder)
    }

    fn remove(&self, folder: &Path) -> io::Result<()> {
        std::fs::remove_dir(folder)
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        // Neither created nor cut: an attribute is there, or the kernel has none.
        let mut file = OpenOptions::new().write(true).open(file)?;
        let written = file.write(bytes)?;
        if written != bytes.len() {
            let text = format!("{written} of {} bytes were taken", bytes.len());
            return Err(io::Error::new(io::ErrorKind::WriteZero, text));
        }
        Ok(())
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(File::open(file)?))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

/// Whether an operation may succeed when it is tried again: a signal came (EINTR), or the device is busy with an
/// earlier request (EBUSY, EAGAIN), or gave up waiting for the host (ETIMEDOUT).
pub(super) fn passes(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, ResourceBusy, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | ResourceBusy | TimedOut | WouldBlock)
}

/// An error of an operation on `path`.
pub(super) fn trouble(path: &Path, error: io::Error) -> Trouble<TeeError> {
    if passes(&error) {
        Trouble::Passing(format!("{}: {error}", path.display()))
    } else {
        Trouble::Lasting(TeeError::Unreachable { path: path.to_path_buf(), source: error })
    }
}

/// The whole of a file, however few bytes each read gives.
///
/// # Errors
/// More than `limit` bytes are `Malformed`; they are not kept.
pub(super) fn read(files: &dyn Files, path: &Path, limit: usize) -> Result<Vec<u8>, Trouble<TeeError>> {
    let mut file = files.open(path).map_err(|error| trouble(path, error))?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = file.read(&mut chunk).map_err(|error| trouble(path, error))?;
        if count == 0 {
            return Ok(bytes);
        }
        if bytes.len() + count > limit {
            let text = format!("more than {limit} bytes in {}", path.display());
            return Err(Trouble::Lasting(TeeError::Malformed(text)));
        }
        bytes.extend_from_slice(&chunk[..count]);
    }
}

/// A line of text, without the line's end.
pub(super) fn read_line(files: &dyn Files, path: &Path) -> Result<String, Trouble<TeeError>> {
    /// Names and numbers are short.
    const MAX_LINE: usize = 128;
    let bytes = read(files, path, MAX_LINE)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// An unsigned number in decimal.
pub(super) fn read_number(files: &dyn Files, path: &Path) -> Result<u64, Trouble<TeeError>> {
    let line = read_line(files, path)?;
    line.parse().map_err(|_| {
        Trouble::Lasting(TeeError::Malformed(format!(
            "{line:?} in {}, where a number must be",
            path.display()
        )))
    })
}
