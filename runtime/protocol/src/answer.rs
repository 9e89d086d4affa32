//! The guest's side of an answer: events, sealed frame by frame, and the receipt at the end.

use crate::crypto::{AnswerKey, AnswerSecret, aad, random};
use crate::frame::{FrameHeader, MAX_FRAMES, MAX_PAYLOAD, pad, sealed_length};
use crate::{
    Answer, Embedded, EngineId, MAX_EVENT, MAX_OPENING, Opening, Outcome, Receipt, ReceiptKey, RequestHeader,
    Run, SignedReceipt, Usage, WireError,
};
use ring::digest;
use zeroize::Zeroizing;

/// Most frames of the event that ends an answer: room for them is always kept.
const END_FRAMES: u32 = ((32 + MAX_OPENING) / (MAX_PAYLOAD - 1) + 1) as u32;

pub(crate) const MAGIC: &[u8; 4] = b"CAN1";

/// What one or more sealed frames carry. No `Debug`: it holds plaintext.
#[expect(clippy::large_enum_variant, reason = "one at a time is there, and it ends the answer")]
pub enum AnswerEvent {
    /// OpenAI JSON: one `chat.completion.chunk` when streaming, else the whole object; of vectors a part of it, and all parts
    /// together are the object.
    Chunk(Answer),
    /// Progress only: its frame carries the usage so far.
    Tick,
    /// The request was refused, and only the client may know why.
    Error {
        /// HTTP status.
        status: u16,
        /// OpenAI error JSON.
        body: Answer,
    },
    /// The end: always in the last frame, written by [`AnswerSealer::finish`].
    End {
        /// Opens the receipt's commitment.
        opening: Opening,
        /// SHA-256 of the receipt that follows.
        receipt_digest: [u8; 32],
    },
}

pub(crate) mod kind {
    pub(crate) const CHUNK: u8 = 1;
    pub(crate) const TICK: u8 = 2;
    pub(crate) const ERROR: u8 = 3;
    pub(crate) const END: u8 = 4;
    /// Set in every frame of an event but its last.
    pub(crate) const MORE: u8 = 0x80;
}

impl AnswerEvent {
    fn encode(&self) -> (u8, Zeroizing<Vec<u8>>) {
        match self {
            Self::Chunk(answer) => (kind::CHUNK, Zeroizing::new(answer.expose().to_vec())),
            Self::Tick => (kind::TICK, Zeroizing::default()),
            Self::Error { status, body } => {
                (kind::ERROR, Zeroizing::new([&status.to_be_bytes(), body.expose()].concat()))
            }
            Self::End { opening, receipt_digest } => {
                (kind::END, Zeroizing::new([receipt_digest.as_slice(), &opening.encode()].concat()))
            }
        }
    }
}

/// Digest over the events that make up the answer, the same on both ends.
pub(crate) struct AnswerHash(digest::Context);

impl AnswerHash {
    pub(crate) fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    pub(crate) fn add(&mut self, kind: u8, body: &[u8]) {
        if kind == kind::CHUNK || kind == kind::ERROR {
            self.0.update(&[kind]);
            self.0.update(&u32::try_from(body.len()).expect("events are below MAX_EVENT").to_be_bytes());
            self.0.update(body);
        }
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
    }
}

/// What the guest says at the end; the sealer knows the rest of the receipt.
///
/// No `Debug`: the run holds the prompt and the answer.
#[derive(Clone, PartialEq)]
pub struct Ending {
    /// Tokens in all.
    pub usage: Usage,
    /// Unix milliseconds when work began.
    pub started_ms: u64,
    /// Unix milliseconds when it ended.
    pub finished_ms: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What computed it.
    pub engine: EngineId,
    /// What the engine was asked and what it wrote; sealed, and committed to in the receipt. `None` where nothing ran, or
    /// where no engine of ours did. One of more than [`MAX_RUN_TOKENS`](crate::MAX_RUN_TOKENS) is left out.
    pub run: Option<Run>,
    /// The same of texts that became vectors. Where there is a run, it is left out.
    pub vectors: Option<Embedded>,
}

/// Seals one answer. Frames must be sent in the order in which they were sealed.
pub struct AnswerSealer {
    header: RequestHeader,
    key: AnswerKey,
    nonce: [u8; 32],
    prefix: [u8; 32],
    request_hash: [u8; 32],
    hash: AnswerHash,
    counter: u32,
    usage: Usage,
}

impl AnswerSealer {
    pub(crate) fn new(
        header: RequestHeader,
        secret: &AnswerSecret,
        prefix: [u8; 32],
        request_hash: [u8; 32],
    ) -> Self {
        let nonce = random();
        let key = secret.key(&nonce, &prefix);
        let hash = AnswerHash::new();
        Self { header, key, nonce, prefix, request_hash, hash, counter: 0, usage: Usage::default() }
    }

    /// The first bytes of the answer.
    pub fn preamble(&self) -> Vec<u8> {
        [MAGIC.as_slice(), &self.nonce].concat()
    }

    /// Seals one event into one or more frames; `usage` is cumulative.
    ///
    /// # Errors
    /// [`WireError`] where the caller breaks a rule of the wire: usage that goes back or over the budget, an event over
    /// [`MAX_EVENT`], too many frames, or an `End`, which only [`AnswerSealer::finish`] writes. Nothing is sealed then.
    pub fn seal(&mut self, event: &AnswerEvent, usage: Usage) -> Result<Vec<u8>, WireError> {
        if matches!(event, AnswerEvent::End { .. }) {
            return Err(WireError::Malformed { what: "order of events" });
        }
        let (kind, body) = event.encode();
        if body.len() > MAX_EVENT {
            return Err(WireError::Oversized { what: "event", limit: MAX_EVENT, got: body.len() });
        }
        // Room is kept for the frames that end the answer.
        let frames = u32::try_from(body.len() / (MAX_PAYLOAD - 1) + 1).expect("events are below MAX_EVENT");
        if self.counter + frames > MAX_FRAMES - END_FRAMES {
            return Err(WireError::TooManyFrames { limit: MAX_FRAMES });
        }
        self.check(usage)?;
        self.hash.add(kind, &body);
        Ok(self.frames(kind, &body, usage, false))
    }

    /// The last frame and the trailer with the signed receipt.
    ///
    /// # Errors
    /// [`WireError`] if the usage goes back or exceeds the budget.
    pub fn finish(mut self, ending: Ending, signer: &ReceiptKey) -> Result<Vec<u8>, WireError> {
        self.check(ending.usage)?;
        let hash = std::mem::replace(&mut self.hash, AnswerHash::new());
        let opening = Opening {
            salt: random(),
            request_hash: self.request_hash,
            answer_hash: hash.finish(),
            vectors: ending.vectors.filter(|vectors| ending.run.is_none() && vectors.fits()),
            run: ending.run.filter(Run::fits),
        };
        let receipt = Receipt {
            network: self.header.network,
            request_id: self.header.request_id,
            statement: self.header.statement,
            model: self.header.model,
            usage: ending.usage,
            price: self.header.price,
            started_ms: ending.started_ms,
            finished_ms: ending.finished_ms.max(ending.started_ms), // a clock may step back
            outcome: ending.outcome,
            engine: ending.engine,
            commitment: opening.commitment(),
        };
        let signed = SignedReceipt::sign(receipt, signer);
        let (kind, body) = AnswerEvent::End { opening, receipt_digest: signed.digest() }.encode();
        let mut wire = self.frames(kind, &body, ending.usage, true);
        let receipt = signed.encode();
        wire.extend_from_slice(&u32::try_from(receipt.len()).expect("below MAX_RECEIPT").to_be_bytes());
        wire.extend_from_slice(&receipt);
        Ok(wire)
    }

    /// The usage of the last frame sealed.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    fn check(&self, usage: Usage) -> Result<(), WireError> {
        if !usage.follows(&self.usage) {
            return Err(WireError::UsageWentBack { frame: self.counter });
        }
        if !usage.within(&self.header.budget) {
            return Err(WireError::OverBudget { frame: self.counter });
        }
        Ok(())
    }

    fn frames(&mut self, kind: u8, body: &[u8], usage: Usage, last: bool) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut rest = body;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(MAX_PAYLOAD - 1));
            rest = after;
            let more = if rest.is_empty() { 0 } else { kind::MORE };
            let mut payload = Zeroizing::new(Vec::with_capacity(1 + piece.len()));
            payload.push(kind | more);
            payload.extend_from_slice(piece);
            self.frame(&payload, usage, last && rest.is_empty(), &mut wire);
            if rest.is_empty() {
                self.usage = usage;
                return wire;
            }
        }
    }

    fn frame(&mut self, payload: &[u8], usage: Usage, last: bool, wire: &mut Vec<u8>) {
        let length = sealed_length(payload.len());
        let raw = FrameHeader { last, counter: self.counter, usage, length }.encode();
        let mut sealed = pad(payload);
        self.key.seal(self.counter, &aad(&self.prefix, &raw), &mut sealed);
        wire.extend_from_slice(&raw);
        wire.extend_from_slice(&sealed);
        self.counter += 1;
    }
}
