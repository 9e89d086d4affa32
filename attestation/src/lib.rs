//! Decides, from bytes and a given time, whether a peer is a genuine TEE running something you accept.
//!
//! The words are those of RATS (RFC 9334). The path has two steps and no other way through:
//!
//! 1. [`verify`]: did genuine hardware make this [`Evidence`], is it in date, is no hard rule broken? → [`Genuine`]
//! 2. [`Policy::appraise`]: is it what I accept, for me, now? → [`Trusted`]
//!
//! Everything is an argument: no clock, no socket, no file. Whatever does not hold is a [`Refusal`] that names the
//! check, what was expected, what was found, what that likely means and what to do.
//!
//! Neither proof can be made in another way:
//!
//! ```compile_fail
//! let forged = cocoon_attestation::Genuine { checks: Vec::new() };
//! ```
//! ```compile_fail
//! let forged = cocoon_attestation::Trusted { checks: Vec::new() };
//! ```
//! ```compile_fail
//! let forged: cocoon_attestation::Genuine = serde_json::from_str("{}").unwrap();
//! ```
//! ```compile_fail
//! let forged: cocoon_attestation::Trusted = serde_json::from_str("{}").unwrap();
//! ```
//! ```compile_fail
//! fn twice(genuine: &cocoon_attestation::Genuine) -> cocoon_attestation::Genuine { genuine.clone() }
//! ```
//! ```compile_fail
//! let nobody = <cocoon_attestation::Trusted as Default>::default();
//! ```

mod anchors;
mod appraise;
pub mod bundle;
mod check;
mod collateral;
mod evidence;
mod exceptions;
mod genuine;
mod measurements;
mod pem;
mod policy;
mod refusal;
pub mod statement;
pub mod tdx;
mod time;
mod verdict;

pub use anchors::{InvalidRoot, TrustAnchors};
pub use appraise::Trusted;
pub use bundle::Bundle;
pub use check::{Check, Status};
pub use collateral::canonical_collateral;
pub use evidence::{Endorsements, Evidence};
pub use exceptions::{Exceptions, UnknownException};
pub use genuine::{Genuine, Platform, verify};
pub use measurements::{Measurements, extend};
pub use policy::{Context, ImageReference, InvalidPolicy, KnownBlock, Policy};
pub use refusal::{Refusal, RefusalKind};
pub use statement::Statement;
pub use time::UnixTime;
pub use verdict::Verdict;

/// Bytes that do not have the form they must have, with the place and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: {reason}")]
pub struct Malformed {
    /// Which input, for example "statement".
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Malformed {
    pub(crate) fn new(what: &'static str, reason: impl Into<String>) -> Self {
        Self { what, reason: reason.into() }
    }
}
