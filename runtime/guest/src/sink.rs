//! From the task that answers to the connection that sends: bounded, so that an answer is made no faster than it
//! is read.

use bytes::Bytes;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::sync::mpsc;

/// Sealed pieces that may wait for the reader.
const PIECES: usize = 8;
/// How long a reader may pause before its answer ends, and its place is free. A gateway holds a stream back while it
/// waits for a voucher, for up to 20 s; this is a little longer.
pub(crate) const STALL: Duration = Duration::from_secs(25);

/// The answering side.
pub(crate) struct Sink {
    sender: mpsc::Sender<Bytes>,
    stall: Duration,
}

pub(crate) fn channel() -> (Sink, mpsc::Receiver<Bytes>) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (Sink { sender, stall: STALL }, receiver)
}

impl Sink {
    /// Waits until there is room; breaks if the reader left, or paused for too long.
    pub(crate) async fn send(&self, piece: Vec<u8>) -> ControlFlow<()> {
        match tokio::time::timeout(self.stall, self.sender.send(piece.into())).await {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
        }
    }

    /// Resolves when the reader left.
    pub(crate) async fn abandoned(&self) {
        self.sender.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_does_not_read_stops_the_writer() {
        let (mut sink, mut receiver) = channel();
        sink.stall = Duration::from_millis(200);
        let mut sent = 0;
        // It ends by itself, after as many pieces as there is room for.
        while sink.send(vec![0]).await.is_continue() {
            sent += 1;
        }
        assert_eq!(sent, PIECES);
        assert!(receiver.recv().await.is_some());
    }

    #[tokio::test]
    async fn a_reader_that_leaves_is_noticed() {
        let (sink, receiver) = channel();
        drop(receiver);
        sink.abandoned().await;
        assert!(sink.send(vec![0]).await.is_break());
    }
}
