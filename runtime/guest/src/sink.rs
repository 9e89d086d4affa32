//! From the task that answers to the connection that sends: bounded, so that an answer is made no faster than it
//! is read.

use bytes::Bytes;
use std::time::Duration;
use tokio::sync::mpsc::{self, OwnedPermit};

/// Sealed pieces that may wait for the reader, beside the last.
const PIECES: usize = 8;
/// How long a reader may pause before its answer ends, and its place is free. A gateway holds a stream back while it
/// waits for a voucher, for up to 20 s; this is a little longer.
pub(crate) const STALL: Duration = Duration::from_secs(25);

/// The answering side.
pub(crate) struct Sink {
    sender: mpsc::Sender<Bytes>,
    /// Room for the end, which is kept from the start: a slow reader finds it when it reads on.
    last: OwnedPermit<Bytes>,
    stall: Duration,
}

/// Why a piece was not sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Nobody is there.
    Left,
    /// There was no room for too long; here is the piece.
    Stalled(Vec<u8>),
}

pub(crate) fn channel() -> (Sink, mpsc::Receiver<Bytes>) {
    let (sender, receiver) = mpsc::channel(PIECES + 1);
    let last = sender.clone().try_reserve_owned().expect("a fresh channel has room");
    (Sink { sender, last, stall: STALL }, receiver)
}

impl Sink {
    /// Waits until there is room; gives up if the reader left, or paused for too long.
    pub(crate) async fn send(&self, piece: Vec<u8>) -> Result<(), Gone> {
        match tokio::time::timeout(self.stall, self.sender.reserve()).await {
            Ok(Ok(room)) => {
                room.send(piece.into());
                Ok(())
            }
            Ok(Err(_)) => Err(Gone::Left),
            Err(_) => Err(Gone::Stalled(piece)),
        }
    }

    /// The last piece. It waits for nobody, and whoever reads on gets it.
    pub(crate) fn last(self, piece: Vec<u8>) {
        self.last.send(piece.into());
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
    async fn a_reader_that_does_not_read_stops_the_writer_and_finds_the_end_when_it_reads_on() {
        let (mut sink, mut receiver) = channel();
        sink.stall = Duration::from_millis(200);
        let mut sent = 0;
        // It ends by itself, after as many pieces as there is room for.
        let unsent = loop {
            match sink.send(vec![sent]).await {
                Ok(()) => sent += 1,
                Err(Gone::Stalled(piece)) => break piece,
                Err(Gone::Left) => panic!("the reader is there"),
            }
        };
        assert_eq!((usize::from(sent), unsent.as_slice()), (PIECES, [sent].as_slice()), "no piece is lost");
        sink.last([unsent, b"end".to_vec()].concat());
        let mut read = Vec::new();
        while let Some(piece) = receiver.recv().await {
            read.extend_from_slice(&piece);
        }
        let whole: Vec<u8> = (0..=sent).chain(*b"end").collect();
        assert_eq!(read, whole);
    }

    #[tokio::test]
    async fn a_reader_that_leaves_is_noticed() {
        let (sink, receiver) = channel();
        drop(receiver);
        sink.abandoned().await;
        assert_eq!(sink.send(vec![0]).await, Err(Gone::Left));
        sink.last(vec![1]);
    }
}
