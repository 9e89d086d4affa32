//! Sealing, framing, metering and receipts: the words that client, gateway, host and guest share.
//!
//! The client seals an OpenAI request to a [`cocoon_attestation::Trusted`] peer and to nobody else:
//!
//! ```text
//!  client                      gateway, host                       guest
//!  seal(&Trusted, …) ─────────► SealedRequest::from_wire ─────────► open(&SealKey, …)
//!  AnswerOpener::push ◄──────── Meter::push (counts, blind) ◄────── AnswerSealer::seal
//!  AnswerOpener::finish                                             AnswerSealer::finish
//!    = VerifiedReceipt
//! ```
//!
//! The crate is pure: no sockets, files or clock. The byte tables are in `WIRE.md` beside this crate's manifest.
//! What peers send never panics here, and every length is compared with a named limit before memory is taken for it.

mod answer;
mod cbor;
mod crypto;
mod embedded;
mod engine;
mod error;
mod frame;
mod header;
pub mod http;
mod keys;
mod meter;
mod money;
mod opener;
mod opening;
mod receipt;
mod replay;
mod request;
mod run;
mod secret;

pub use answer::{AnswerEvent, AnswerSealer, Ending};
pub use embedded::{Embedded, VectorsHash};
pub use engine::{EngineId, EngineKind, Kernels};
pub use error::{AnswerError, MeterError, ReceiptError, RequestError, SealError, WireError};
pub use frame::{FRAME_HEADER, MAX_FRAME, MAX_FRAMES, MIN_FRAME};
pub use header::{Endpoint, MAX_HEADER, RequestHeader};
pub use keys::{ReceiptKey, SEAL_KEY_BYTES, SealKey};
pub use meter::{Meter, Metered, Part};
pub use money::{Budget, Coefficient, CoefficientError, Price, TOKENS_PER_PRICE, Usage};
pub use opener::{AnswerOpener, MAX_EVENT, MAX_WHOLE, VerifiedReceipt};
pub use opening::{MAX_OPENING, Opening};
pub use receipt::{MAX_RECEIPT, Outcome, Receipt, SignedReceipt};
pub use replay::ReplayGuard;
pub use request::{Expected, MAX_BODY, MAX_REQUEST, Opened, SealedRequest, open, seal};
pub use run::{MAX_RUN_TOKENS, Run, Sampling, Written};
pub use secret::{Answer, Prompt};

#[cfg(test)]
mod tests;
