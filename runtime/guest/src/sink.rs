//! From the thread that generates to the connection that sends: bounded, so that an answer is made no faster than it
//! is read.

use bytes::Bytes;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Sealed pieces that may wait for the reader.
const PIECES: usize = 8;
/// How long a reader may pause before its answer ends, and its place is free. A gateway holds a stream back while it
/// waits for a voucher, for up to 20 s; this is a little longer.
const STALL: Duration = Duration::from_secs(25);

/// The generating side. Used outside async code only.
pub(crate) struct Sink {
    sender: mpsc::Sender<Bytes>,
    runtime: Handle,
    stall: Duration,
}

pub(crate) fn channel(runtime: Handle) -> (Sink, mpsc::Receiver<Bytes>) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (Sink { sender, runtime, stall: STALL }, receiver)
}

impl Sink {
    /// Waits until there is room; breaks if the reader left, or paused for too long.
    pub(crate) fn send(&self, piece: Vec<u8>) -> ControlFlow<()> {
        let sent = self.runtime.block_on(tokio::time::timeout(self.stall, self.sender.send(piece.into())));
        match sent {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
        }
    }

    /// Whether the reader left.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.sender.is_closed()
    }

    /// Resolves when the reader left.
    pub(crate) async fn abandoned(&self) {
        self.sender.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_reader_that_does_not_read_stops_the_writer() {
        let (mut sink, mut receiver) = channel(Handle::current());
        sink.stall = Duration::from_millis(200);
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        let writer = tokio::task::spawn_blocking(move || {
            while sink.send(vec![0]).is_continue() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        // It ends by itself, after as many pieces as there is room for.
        writer.await.expect("no panic");
        assert_eq!(sent.load(Ordering::SeqCst), PIECES);
        assert!(receiver.recv().await.is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_reader_that_leaves_is_noticed() {
        let (sink, receiver) = channel(Handle::current());
        assert!(!sink.is_abandoned());
        drop(receiver);
        sink.abandoned().await;
        let flow = tokio::task::spawn_blocking(move || sink.send(vec![0])).await.expect("no panic");
        assert!(flow.is_break());
    }
}
