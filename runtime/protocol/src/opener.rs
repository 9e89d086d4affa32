//! The client's side of an answer.

use crate::answer::{AnswerHash, kind};
use crate::crypto::{AnswerKey, AnswerSecret, aad};
use crate::frame::{FRAME_HEADER, FrameHeader, unpad};
use crate::meter::{Piece, Splitter, receipt_of};
use crate::{
    Answer, AnswerError, AnswerEvent, Opening, Receipt, ReceiptError, RequestHeader, SignedReceipt, Usage,
    WireError,
};
use zeroize::Zeroizing;

/// Most bytes of one event, over all its frames.
pub const MAX_EVENT: usize = 4 * 1024 * 1024;
/// Most bytes of an answer that is not streamed, over all its events: vectors may come in several.
pub const MAX_WHOLE: usize = 64 * 1024 * 1024;

/// Opens the answer to one request, and only to that one.
pub struct AnswerOpener {
    header: RequestHeader,
    secret: AnswerSecret,
    prefix: [u8; 32],
    request_hash: [u8; 32],
    receipt_key: [u8; 32],
    splitter: Splitter,
    key: Option<AnswerKey>,
    hash: Option<AnswerHash>,
    /// The kind and the pieces of an event whose last frame has not come.
    partial: Option<(u8, Zeroizing<Vec<u8>>)>,
    end: Option<(Opening, [u8; 32])>,
    receipt: Option<SignedReceipt>,
    failed: Option<AnswerError>,
}

impl AnswerOpener {
    pub(crate) fn new(
        header: RequestHeader,
        secret: AnswerSecret,
        prefix: [u8; 32],
        request_hash: [u8; 32],
        receipt_key: [u8; 32],
    ) -> Self {
        Self {
            splitter: Splitter::new(&header),
            header,
            secret,
            prefix,
            request_hash,
            receipt_key,
            key: None,
            hash: Some(AnswerHash::new()),
            partial: None,
            end: None,
            receipt: None,
            failed: None,
        }
    }

    /// Takes the next bytes, in pieces of any size, and gives the events that are whole and authentic, each with the
    /// cumulative usage of its frame.
    ///
    /// # Errors
    /// [`AnswerError`] at the first byte that is not the worker's; the same error again ever after.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<(AnswerEvent, Usage)>, AnswerError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.split(bytes).inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Cumulative usage, as announced by the frames so far.
    pub fn usage(&self) -> Usage {
        self.splitter.usage()
    }

    /// The receipt, if the answer came whole and the receipt is exactly the one it must have.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if the end is missing, [`ReceiptError`] if the receipt does not hold, or the error met
    /// earlier.
    pub fn finish(self) -> Result<VerifiedReceipt, AnswerError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let (Some((opening, digest)), Some(signed)) = (self.end, self.receipt) else {
            return Err(WireError::Truncated { what: "answer" }.into());
        };
        if signed.digest() != digest {
            return Err(ReceiptError::Swapped.into());
        }
        let receipt = signed.verify(&self.receipt_key)?;
        receipt.answers(&self.header)?;
        if receipt.usage != self.splitter.usage() {
            return Err(ReceiptError::Mismatch { field: "usage" }.into());
        }
        if opening.commitment() != receipt.commitment {
            return Err(ReceiptError::Commitment { field: "opening" }.into());
        }
        Ok(VerifiedReceipt { signed, opening })
    }

    fn split(&mut self, mut input: &[u8]) -> Result<Vec<(AnswerEvent, Usage)>, AnswerError> {
        let mut events = Vec::new();
        while let Some((piece, mut bytes)) = self.splitter.next(&mut input)? {
            match piece {
                Piece::Preamble(nonce) => self.key = Some(self.secret.key(&nonce, &self.prefix)),
                Piece::Frame(header, raw) => {
                    let event = self.frame(&header, &raw, &mut bytes[FRAME_HEADER..])?;
                    events.extend(event.map(|event| (event, header.usage)));
                }
                Piece::Receipt => self.receipt = Some(receipt_of(&bytes)?),
            }
        }
        Ok(events)
    }

    fn frame(
        &mut self,
        header: &FrameHeader,
        raw: &[u8; FRAME_HEADER],
        ciphertext: &mut [u8],
    ) -> Result<Option<AnswerEvent>, AnswerError> {
        let key = self.key.as_ref().expect("the preamble is the first piece");
        let plain = key
            .open(header.counter, &aad(&self.prefix, raw), ciphertext)
            .ok_or(AnswerError::Forged { frame: header.counter })?;
        let payload = unpad(plain).ok_or(WireError::Malformed { what: "padding" })?;
        let event = self.collect(payload, header.last)?;
        zeroize::Zeroize::zeroize(ciphertext); // it was opened in place
        Ok(event)
    }

    /// Adds one frame's payload; gives the event when its last frame came.
    fn collect(&mut self, payload: &[u8], last: bool) -> Result<Option<AnswerEvent>, WireError> {
        let order = WireError::Malformed { what: "order of events" };
        let (tag, piece) = payload.split_first().ok_or(WireError::Malformed { what: "event" })?;
        let (event, more) = (tag & !kind::MORE, tag & kind::MORE != 0);
        let (begun, mut body) = self.partial.take().unwrap_or((event, Zeroizing::default()));
        if begun != event || last != (event == kind::END && !more) {
            return Err(order);
        }
        if body.len() + piece.len() > MAX_EVENT {
            return Err(WireError::Oversized {
                what: "event",
                limit: MAX_EVENT,
                got: body.len() + piece.len(),
            });
        }
        append(&mut body, piece);
        if more {
            self.partial = Some((event, body));
            return Ok(None);
        }
        self.hash.as_mut().ok_or(order)?.add(event, &body);
        self.decode(event, &body).map(Some)
    }

    fn decode(&mut self, event: u8, body: &[u8]) -> Result<AnswerEvent, WireError> {
        let malformed = WireError::Malformed { what: "event" };
        match event {
            kind::CHUNK => Ok(AnswerEvent::Chunk(Answer::new(body.to_vec()))),
            kind::TICK if body.is_empty() => Ok(AnswerEvent::Tick),
            kind::ERROR => {
                let (status, body) = body.split_first_chunk().ok_or(malformed)?;
                Ok(AnswerEvent::Error {
                    status: u16::from_be_bytes(*status),
                    body: Answer::new(body.to_vec()),
                })
            }
            kind::END => {
                let (digest, opening) = body.split_first_chunk::<32>().ok_or(malformed.clone())?;
                let opening = Opening::decode(opening).map_err(|_| malformed)?;
                self.check_opening(&opening)?;
                self.end = Some((opening.clone(), *digest));
                Ok(AnswerEvent::End { opening, receipt_digest: *digest })
            }
            _ => Err(malformed),
        }
    }

    /// The opening must be of this request and of the answer that was received.
    fn check_opening(&mut self, opening: &Opening) -> Result<(), WireError> {
        let answer = self.hash.take().map(AnswerHash::finish);
        if opening.request_hash != self.request_hash || Some(opening.answer_hash) != answer {
            return Err(WireError::Malformed { what: "opening: it is of another request or answer" });
        }
        Ok(())
    }
}

/// Appends without leaving an unwiped copy behind where the vector must grow.
fn append(body: &mut Zeroizing<Vec<u8>>, piece: &[u8]) {
    if body.capacity() - body.len() < piece.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity((body.len() + piece.len()) * 2));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(piece);
}

/// A receipt that was checked against its request, its answer and the attested key. Made only by
/// [`AnswerOpener::finish`].
pub struct VerifiedReceipt {
    signed: SignedReceipt,
    opening: Opening,
}

impl VerifiedReceipt {
    /// What it says.
    pub fn receipt(&self) -> &Receipt {
        self.signed.claimed()
    }

    /// With its signature, to keep or to show.
    pub fn signed(&self) -> &SignedReceipt {
        &self.signed
    }

    /// Opens its commitment; the client's alone.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }
}
