//! What a child writes: counted and dropped, since it may quote prompts.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes and lines that a child has written.
#[derive(Default)]
pub(crate) struct LogCount {
    pub(crate) bytes: AtomicU64,
    pub(crate) lines: AtomicU64,
}

/// After a full buffer: a child that writes without end takes little of our time, and waits for it itself.
const FLOOD: std::time::Duration = std::time::Duration::from_millis(2);

/// Reads to the end. Only with `development` is anything passed on, to standard error.
pub(crate) async fn drain(mut from: impl AsyncRead + Unpin, count: Arc<LogCount>, development: bool) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let lines = buffer[..length].iter().filter(|byte| **byte == b'\n').count();
                count.bytes.fetch_add(length as u64, Ordering::Relaxed);
                count.lines.fetch_add(lines as u64, Ordering::Relaxed);
                if development {
                    let _ = std::io::stderr().write_all(&buffer[..length]); // nobody reads it, then
                }
                buffer[..length].fill(0);
                if length == buffer.len() {
                    tokio::time::sleep(FLOOD).await;
                }
            }
        }
    }
}
