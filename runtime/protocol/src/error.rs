//! Errors by who is to blame. All of them can be compared, and none carries plaintext.

use thiserror::Error;

/// The caller asked for something that cannot be sealed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// The body is longer than [`crate::MAX_BODY`].
    #[error("the request body has {got} bytes, more than {limit}")]
    BodyTooLarge {
        /// Most bytes.
        limit: usize,
        /// Bytes given.
        got: usize,
    },
    /// The header names a statement other than the trusted peer's.
    #[error("the header names another statement than the trusted peer's")]
    WrongStatement,
    /// The header names another TON network than the trusted peer's statement.
    #[error("the header is for network {header}, the peer for network {peer}")]
    WrongNetwork {
        /// In the header.
        header: i32,
        /// In the peer's statement.
        peer: i32,
    },
    /// The trusted peer does not serve this model.
    #[error("the trusted peer does not serve the model that the header names")]
    ModelNotServed,
    /// The peer's statement holds a seal key that is no X-Wing public key.
    #[error("the peer's seal key is no X-Wing public key")]
    PeerKey,
}

/// Bytes that are not what the wire format says; whoever wrote or relayed them is to blame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The first four bytes are not the format's.
    #[error("not a {expected} (wrong first four bytes)")]
    Magic {
        /// The format that was expected.
        expected: &'static str,
    },
    /// A length beyond its limit, refused before memory was taken for it.
    #[error("{what} of {got} bytes, more than {limit}")]
    Oversized {
        /// What was too long.
        what: &'static str,
        /// Most bytes.
        limit: usize,
        /// Bytes announced.
        got: usize,
    },
    /// The bytes end too early.
    #[error("the bytes end inside {what}")]
    Truncated {
        /// What was cut.
        what: &'static str,
    },
    /// Bytes follow where nothing may follow.
    #[error("bytes follow after the end")]
    TrailingBytes,
    /// A structure is not in its one canonical form.
    #[error("malformed {what}")]
    Malformed {
        /// Which structure.
        what: &'static str,
    },
    /// Frames are missing, doubled or in another order.
    #[error("frame {got} came where frame {expected} was due")]
    OutOfOrder {
        /// The counter that was due.
        expected: u32,
        /// The counter in the frame.
        got: u32,
    },
    /// More frames than [`crate::MAX_FRAMES`].
    #[error("more than {limit} frames")]
    TooManyFrames {
        /// Most frames.
        limit: u32,
    },
    /// The cumulative usage of a frame is below that of the frame before.
    #[error("the usage went back at frame {frame}")]
    UsageWentBack {
        /// The frame's counter.
        frame: u32,
    },
    /// The cumulative usage of a frame exceeds the budget of the request.
    #[error("the usage exceeds the budget at frame {frame}")]
    OverBudget {
        /// The frame's counter.
        frame: u32,
    },
}

/// The guest refuses a request; the sender or a relay is to blame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Not a request at all.
    #[error("malformed request: {0}")]
    Wire(#[from] WireError),
    /// Sealed under a statement that this guest did not issue or no longer remembers.
    #[error("the request names a statement that is not current; fetch the bundle again")]
    StaleStatement,
    /// Another TON network.
    #[error("the request is for network {got}, this guest for network {expected}")]
    WrongNetwork {
        /// The guest's.
        expected: i32,
        /// The request's.
        got: i32,
    },
    /// A model that this guest does not serve.
    #[error("the request names a model that this guest does not serve")]
    UnknownModel,
    /// The same request id was seen before under this statement.
    #[error("a request with this id was already taken")]
    Replayed,
    /// As many requests as are remembered were taken under this statement.
    #[error("this statement has taken all the requests it may; fetch the bundle again")]
    Exhausted,
    /// The seal does not open: other key, or changed on the way.
    #[error("the seal does not open: it was made for another key, or the request was changed on the way")]
    Forged,
}

impl RequestError {
    /// The error code in the guest's HTTP reply.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Wire(WireError::Oversized { .. }) => "too_large",
            Self::Wire(_) => "malformed",
            Self::StaleStatement => "stale_statement",
            Self::WrongNetwork { .. } => "wrong_network",
            Self::UnknownModel => "unknown_model",
            Self::Replayed => "replayed",
            Self::Exhausted => "statement_exhausted",
            Self::Forged => "forged",
        }
    }
}

/// The client refuses an answer; the worker or a relay is to blame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// Not an answer, or cut, reordered, oversized.
    #[error("bad answer: {0}")]
    Wire(#[from] WireError),
    /// A frame does not open: changed on the way, or of another answer.
    #[error(
        "frame {frame} of the answer does not open: it was changed on the way, or belongs to another answer"
    )]
    Forged {
        /// The frame's counter.
        frame: u32,
    },
    /// The receipt is not the one this answer must have.
    #[error("bad receipt: {0}")]
    Receipt(#[from] ReceiptError),
}

/// A blind party refuses to forward an answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MeterError {
    /// Not an answer, or cut, reordered, oversized, over budget.
    #[error("bad answer: {0}")]
    Wire(#[from] WireError),
    /// The receipt contradicts the request or the frames.
    #[error("bad receipt: {0}")]
    Receipt(#[from] ReceiptError),
}

/// A receipt does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReceiptError {
    /// Not a receipt in canonical form.
    #[error("the receipt is malformed")]
    Malformed,
    /// Not an opening in canonical form, or one over a limit.
    #[error("the opening is malformed")]
    BadOpening,
    /// Written by another version of the protocol.
    #[error(
        "it is of version {found}, and version {expected} is read here: use the program of its time to read it"
    )]
    Version {
        /// Its version.
        found: u8,
        /// Ours.
        expected: u8,
    },
    /// Not signed by the expected receipt key.
    #[error("the receipt's signature does not hold under the attested receipt key")]
    Signature,
    /// It says something else than what happened.
    #[error("the receipt's {field} is not what was asked or delivered")]
    Mismatch {
        /// Which field.
        field: &'static str,
    },
    /// The commitment does not open to what the client saw.
    #[error("the receipt's commitment does not open: {field}")]
    Commitment {
        /// What differs.
        field: &'static str,
    },
    /// It is not the receipt that the sealed last frame names.
    #[error("the receipt was swapped: the sealed last frame names another")]
    Swapped,
}
