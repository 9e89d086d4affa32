//! A sealed answer on its way through a blind party: metered, charged, forwarded, with nothing piled up.
//!
//! The stream that [`relay`] returns reads its source only when it is polled itself, and holds at most the pieces of
//! one chunk. Dropping it (the receiver is gone) drops the source, and with it the connection that the source is.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use cocoon_protocol::{Meter, MeterError, Metered, Part, Price};
use futures_util::{Stream, StreamExt, stream};

use crate::{Reservation, errors::ChargeError};

/// How a relayed answer is treated.
#[derive(Clone, Copy, Debug)]
pub struct RelayOptions {
    /// What the receiver pays.
    pub price: Price,
    /// How long a stream over its window waits for a voucher.
    pub patience: Duration,
    /// How long the source may be silent.
    pub silence: Duration,
}

/// Why a relayed answer was cut. The receiver sees a connection that ended before the answer did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// The source failed.
    #[error("the source of the answer failed: {0}")]
    Source(String),
    /// The source ended before the receipt.
    #[error("the answer ended before its receipt")]
    Truncated,
    /// The source said nothing for too long.
    #[error("the source of the answer was silent for {0:?}")]
    Silent(Duration),
    /// The source sent something that is no answer to this request.
    #[error("what came is no answer to this request: {0}")]
    Meter(#[from] MeterError),
    /// The account does not allow it to go on.
    #[error(transparent)]
    Charge(#[from] ChargeError),
    /// What the observer said.
    #[error("{0}")]
    Refused(String),
}

struct Relay<S, O> {
    source: S,
    meter: Meter,
    observer: O,
    reservation: Option<Reservation>,
    options: RelayOptions,
    ready: VecDeque<Metered>,
    over: bool,
}

/// Forwards the answer in `source`, whole piece by whole piece. Each frame is charged to `reservation`, which
/// may wait for a voucher, then shown to `observer`, then given out: nothing is owed onwards that is not charged. The
/// receipt is shown first, so that it can be refused. The last piece comes out once the
/// charge is on the disk. After an error the stream is over.
pub fn relay<S, E, O>(
    source: S,
    meter: Meter,
    reservation: Reservation,
    options: RelayOptions,
    observer: O,
) -> impl Stream<Item = Result<Bytes, RelayError>>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
    O: FnMut(&Part) -> Result<(), String>,
{
    let ready = VecDeque::new();
    let relay =
        Relay { source, meter, observer, reservation: Some(reservation), options, ready, over: false };
    stream::unfold(relay, |mut relay| async move {
        if relay.over {
            return None;
        }
        match relay.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), relay)),
            Ok(None) => None,
            Err(error) => {
                relay.over = true;
                // What was charged so far is given back to the books now, not when the connection has died.
                relay.reservation = None;
                tracing::warn!(%error, "an answer was cut");
                // A server that meets an error drops what it has not written: let it write what was charged for.
                tokio::task::yield_now().await;
                Some((Err(error), relay))
            }
        }
    })
}

impl<S, E, O> Relay<S, O>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
    O: FnMut(&Part) -> Result<(), String>,
{
    async fn next(&mut self) -> Result<Option<Bytes>, RelayError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                if matches!(piece.part, Part::Receipt(_)) {
                    (self.observer)(&piece.part).map_err(RelayError::Refused)?;
                    self.charge(&piece.part).await?;
                } else {
                    self.charge(&piece.part).await?;
                    (self.observer)(&piece.part).map_err(RelayError::Refused)?;
                }
                return Ok(Some(Bytes::from(piece.bytes)));
            }
            if self.meter.is_complete() {
                return Ok(None);
            }
            let silence = self.options.silence;
            let chunk = tokio::time::timeout(silence, self.source.next());
            match chunk.await.map_err(|_| RelayError::Silent(silence))? {
                Some(Ok(bytes)) => self.ready.extend(self.meter.push(&bytes)?),
                Some(Err(error)) => return Err(RelayError::Source(error.to_string())),
                None => return Err(RelayError::Truncated),
            }
        }
    }

    async fn charge(&mut self, part: &Part) -> Result<(), RelayError> {
        match part {
            Part::Preamble => {}
            Part::Frame { usage, .. } => {
                if let Some(reservation) = &mut self.reservation {
                    let bill = self.options.price.bill(usage);
                    reservation.charge(bill, self.options.patience).await?;
                }
            }
            Part::Receipt(_) => {
                if let Some(reservation) = self.reservation.take() {
                    reservation.finish().await.map_err(ChargeError::from)?;
                }
            }
        }
        Ok(())
    }
}
