//! Answers read in pieces of any size: the splitter that client and blind parties share, and the blind meter.

use crate::answer::MAGIC;
use crate::frame::{FRAME_HEADER, FrameHeader, FrameRules, MAX_FRAMES};
use crate::{MAX_RECEIPT, MeterError, ReceiptError, RequestHeader, SignedReceipt, Usage, WireError};

/// Bytes before the first frame: magic and the guest's nonce.
const PREAMBLE: usize = 4 + 32;
/// Bytes of the trailer's length.
const TRAILER: usize = 4;

/// One whole piece of an answer.
pub(crate) enum Piece {
    Preamble([u8; 32]),
    /// The header, read and raw.
    Frame(FrameHeader, [u8; FRAME_HEADER]),
    Receipt,
}

enum Awaiting {
    Preamble,
    FrameHeader,
    Ciphertext(FrameHeader, [u8; FRAME_HEADER]),
    TrailerLength,
    Receipt,
    Nothing,
}

/// Cuts a stream into preamble, frames and receipt. Holds at most one piece.
pub(crate) struct Splitter {
    awaiting: Awaiting,
    /// The piece so far, of which `needed` bytes are awaited.
    buffer: Vec<u8>,
    needed: usize,
    rules: FrameRules,
}

impl Splitter {
    pub(crate) fn new(header: &RequestHeader) -> Self {
        Self {
            awaiting: Awaiting::Preamble,
            buffer: Vec::new(),
            needed: PREAMBLE,
            rules: FrameRules::new(header.budget, MAX_FRAMES),
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.rules.usage()
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.awaiting, Awaiting::Nothing)
    }

    /// Takes bytes from the front of `input` until one piece is whole; `None` when more input is needed.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<(Piece, Vec<u8>)>, WireError> {
        loop {
            if self.is_done() {
                return if input.is_empty() { Ok(None) } else { Err(WireError::TrailingBytes) };
            }
            let (taken, rest) = input.split_at((self.needed - self.buffer.len()).min(input.len()));
            self.buffer.extend_from_slice(taken);
            *input = rest;
            if self.buffer.len() < self.needed {
                return Ok(None);
            }
            if let Some(piece) = self.advance()? {
                return Ok(Some((piece, std::mem::take(&mut self.buffer))));
            }
        }
    }

    /// `needed` bytes are here: either a piece is whole, or its head says how much more belongs to it.
    fn advance(&mut self) -> Result<Option<Piece>, WireError> {
        match std::mem::replace(&mut self.awaiting, Awaiting::Nothing) {
            Awaiting::Preamble => {
                let (magic, nonce) = self.buffer.split_first_chunk().expect("PREAMBLE bytes are here");
                if magic != MAGIC {
                    return Err(WireError::Magic { expected: "sealed answer" });
                }
                let nonce = nonce.try_into().expect("PREAMBLE bytes are here");
                self.wait(Awaiting::FrameHeader, FRAME_HEADER);
                Ok(Some(Piece::Preamble(nonce)))
            }
            Awaiting::FrameHeader => {
                let raw: [u8; FRAME_HEADER] =
                    self.buffer.as_slice().try_into().expect("FRAME_HEADER bytes are here");
                let header = FrameHeader::decode(&raw)?;
                self.rules.accept(&header)?;
                self.wait(Awaiting::Ciphertext(header, raw), FRAME_HEADER + header.length);
                Ok(None)
            }
            Awaiting::Ciphertext(header, raw) => {
                if header.last {
                    self.wait(Awaiting::TrailerLength, TRAILER);
                } else {
                    self.wait(Awaiting::FrameHeader, FRAME_HEADER);
                }
                Ok(Some(Piece::Frame(header, raw)))
            }
            Awaiting::TrailerLength => {
                let raw = self.buffer.as_slice().try_into().expect("TRAILER bytes are here");
                let length = u32::from_be_bytes(raw) as usize;
                if length > MAX_RECEIPT {
                    return Err(WireError::Oversized { what: "receipt", limit: MAX_RECEIPT, got: length });
                }
                self.wait(Awaiting::Receipt, TRAILER + length);
                Ok(None)
            }
            Awaiting::Receipt | Awaiting::Nothing => Ok(Some(Piece::Receipt)),
        }
    }

    fn wait(&mut self, awaiting: Awaiting, needed: usize) {
        self.awaiting = awaiting;
        self.needed = needed;
    }
}

/// The receipt in the bytes of a [`Piece::Receipt`].
pub(crate) fn receipt_of(bytes: &[u8]) -> Result<SignedReceipt, ReceiptError> {
    SignedReceipt::decode(bytes.get(TRAILER..).unwrap_or_default())
}

/// What a blind party learns from one whole piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first bytes.
    Preamble,
    /// One sealed frame.
    Frame {
        /// Cumulative, as the guest swears inside the seal.
        usage: Usage,
        /// Whether only the receipt follows.
        last: bool,
    },
    /// The receipt: it answers this request, and its usage is the last frame's. The signature is for the caller to
    /// check, with the receipt key of the worker's statement.
    Receipt(Box<SignedReceipt>),
}

/// One whole piece, to be forwarded unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metered {
    /// The wire bytes.
    pub bytes: Vec<u8>,
    /// What they are.
    pub part: Part,
}

/// Counts what a sealed answer uses without opening it: for gateway and host.
///
/// Bytes go in as they arrive; whole pieces come out, each within the request's budget. At most one piece is held.
pub struct Meter {
    header: RequestHeader,
    splitter: Splitter,
    failed: Option<MeterError>,
}

impl Meter {
    /// For the answer to the request with this header.
    pub fn new(header: &RequestHeader) -> Self {
        Self { header: header.clone(), splitter: Splitter::new(header), failed: None }
    }

    /// Takes the next bytes, in pieces of any size, and gives the pieces that are whole now.
    ///
    /// # Errors
    /// [`MeterError`] at the first byte that breaks a rule; the same error again ever after.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Metered>, MeterError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.split(bytes).inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn split(&mut self, mut input: &[u8]) -> Result<Vec<Metered>, MeterError> {
        let mut pieces = Vec::new();
        while let Some((piece, bytes)) = self.splitter.next(&mut input)? {
            let part = match piece {
                Piece::Preamble(_) => Part::Preamble,
                Piece::Frame(header, _) => Part::Frame { usage: header.usage, last: header.last },
                Piece::Receipt => Part::Receipt(Box::new(self.receipt(&bytes)?)),
            };
            pieces.push(Metered { bytes, part });
        }
        Ok(pieces)
    }

    fn receipt(&self, bytes: &[u8]) -> Result<SignedReceipt, ReceiptError> {
        let receipt = receipt_of(bytes)?;
        receipt.claimed().answers(&self.header)?;
        if receipt.claimed().usage != self.usage() {
            return Err(ReceiptError::Mismatch { field: "usage" });
        }
        Ok(receipt)
    }

    /// Cumulative usage of the frames so far.
    pub fn usage(&self) -> Usage {
        self.splitter.usage()
    }

    /// Whether the answer was whole, up to its receipt.
    pub fn is_complete(&self) -> bool {
        self.failed.is_none() && self.splitter.is_done()
    }

    /// The final usage.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if the answer ended before its receipt, or the error met earlier.
    pub fn finish(self) -> Result<Usage, MeterError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.splitter.is_done() => Ok(self.splitter.usage()),
            None => Err(WireError::Truncated { what: "answer" }.into()),
        }
    }
}
