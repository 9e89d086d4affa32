//! The serial console of a development guest, kept in two files of limited size: whatever a guest writes, its last words are
//! there, and the disk does not fill up.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::plan::files;

/// Most bytes of one of the two files: [`files::CONSOLE`], and what came before it in [`files::CONSOLE_BEFORE`].
pub const MAX_CONSOLE: u64 = 4 << 20;

/// The two files.
#[derive(Debug)]
pub(super) struct Console {
    folder: PathBuf,
    file: File,
    room: u64,
    limit: u64,
}

impl Console {
    /// Begins in a folder, in place of what an earlier guest left.
    pub(super) fn begin(folder: &Path, limit: u64) -> io::Result<Self> {
        let file = File::create(folder.join(files::CONSOLE))?;
        Ok(Self { folder: folder.to_path_buf(), file, room: limit, limit })
    }

    /// Keeps all that comes, until it ends or cannot be written; then it is still read, so that the guest never waits.
    pub(super) async fn keep(mut self, mut from: impl AsyncRead + Unpin) {
        let (mut buffer, mut full) = ([0; 16 * 1024], false);
        loop {
            let bytes = match from.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(length) => buffer.get(..length).expect("a read fills no more than the buffer"),
            };
            if !full && let Err(error) = self.write(bytes) {
                tracing::warn!(%error, "the guest's console is not kept any more");
                full = true;
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.room == 0 {
                std::fs::rename(self.folder.join(files::CONSOLE), self.folder.join(files::CONSOLE_BEFORE))?;
                self.file = File::create(self.folder.join(files::CONSOLE))?;
                self.room = self.limit;
            }
            let fits = usize::try_from(self.room).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(fits);
            self.file.write_all(now)?;
            self.room -= fits as u64;
            bytes = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_words_are_kept_and_no_more_than_two_files_of_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let text: String = (0..1000).map(|line| format!("line {line}\n")).collect();
        Console::begin(folder.path(), 1000).expect("writable").keep(text.as_bytes()).await;
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("it is there");
        let (before, last) = (read(files::CONSOLE_BEFORE), read(files::CONSOLE));
        assert!(before.len() == 1000 && last.len() <= 1000, "{} and {}", before.len(), last.len());
        assert!(text.ends_with(&format!("{before}{last}")), "nothing is missing at the end");
        Console::begin(folder.path(), 1000).expect("writable").keep(&b"new"[..]).await;
        assert_eq!(read(files::CONSOLE), "new");
    }

    #[tokio::test]
    async fn a_console_that_cannot_be_kept_is_still_read_to_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let console = Console::begin(folder.path(), 10).expect("writable");
        drop(folder);
        let (mut guest, host) = tokio::io::duplex(64);
        let kept = tokio::spawn(console.keep(host));
        tokio::io::AsyncWriteExt::write_all(&mut guest, &[b'x'; 4096])
            .await
            .expect("it never blocks for good");
        drop(guest);
        kept.await.expect("it ends with the guest");
    }
}
