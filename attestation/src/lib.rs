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
//! Neither proof can be made in another way: no fields, no copies, no reading from bytes, no default.
//!
//! ```compile_fail,E0451
//! let forged = cocoon_attestation::Genuine { proven: unimplemented!() };
//! ```
//! ```compile_fail,E0451
//! let forged = cocoon_attestation::Trusted {
//!     statement: unimplemented!(),
//!     digest: [0; 32],
//!     checks: Vec::new(),
//!     platform: unimplemented!(),
//!     image: String::new(),
//!     fresh_until: cocoon_attestation::UnixTime(0),
//! };
//! ```
//! ```compile_fail,E0277
//! let forged: cocoon_attestation::Genuine = serde_json::from_str("{}").unwrap();
//! ```
//! ```compile_fail,E0277
//! let forged: cocoon_attestation::Trusted = serde_json::from_str("{}").unwrap();
//! ```
//! ```compile_fail,E0599
//! fn twice(genuine: cocoon_attestation::Genuine) -> [cocoon_attestation::Genuine; 2] { [genuine.clone(), genuine] }
//! ```
//! ```compile_fail,E0277
//! let nobody: cocoon_attestation::Trusted = Default::default();
//! ```
//!
//! Whereas what may be read from bytes compiles in the same way:
//!
//! ```
//! let read: Result<cocoon_attestation::Measurements, _> = serde_json::from_str("{}");
//! assert!(read.is_err(), "no register may be left out");
//! ```
//!
//! # Bytes that nobody signed
//!
//! A changed byte of statement, quote or bundle is always refused; `tests/flips.rs` tries each. What may differ between
//! two accepted forms of the same evidence: zero bytes after a quote (Google pads to 8000), the equally valid twin
//! (r, n − s) of an ECDSA signature, the CPUSVN and MAC of a TDREPORT that Azure sends beside the quote made of it (for the
//! processor alone), zero bytes after Azure's runtime data, and, in files that the caller itself brings, white space in
//! JSON, the case of hex, and the other names and forms that [`canonical_collateral`] reads. None of it has a meaning. Never use a hash of a quote or bundle as its name: use the statement's digest.

mod anchors;
mod azure;
mod binding;
pub mod bundle;
mod check;
mod collateral;
mod crypto;
mod der;
mod endorsements;
pub mod eventlog;
mod evidence;
mod exceptions;
mod genuine;
mod gpu_record;
pub mod inspect;
mod json;
mod measurements;
mod needs;
pub mod nvidia;
mod pem;
mod platform;
mod policy;
pub mod ratls;
mod refusal;
pub mod snp;
pub mod statement;
pub mod tdx;
mod time;
mod verdict;
mod verifier;
mod x509;

pub use anchors::{InvalidRoot, TrustAnchors};
pub use azure::{VmConfiguration, Vtpm, canonical_azure};
pub use bundle::{Bundle, Tee};
pub use check::{Check, Group, Status};
pub use collateral::canonical_collateral;
pub use endorsements::{Endorsement, Endorsements};
pub use eventlog::EventLog;
pub use evidence::Evidence;
pub use exceptions::{Exceptions, UnknownException};
pub use genuine::{Claims, Genuine};
pub use gpu_record::GpuRecord;
pub use inspect::{Inspection, inspect};
pub use measurements::{Measurements, extend};
pub use needs::{Document, Need, crl_document, needs};
pub use platform::{Platform, PlatformId, PlatformKind, shared_ids};
pub use policy::{
    AzureReference, Context, Floor, GpuRules, GuestPolicyRules, ImageReference, InvalidPolicy, KnownBlock,
    Mask, Names, Paragraph, Pin, PlatformInfoRules, Platforms, Policy, Release, SnpReference, SnpRules,
    Switch, TcbFloor, TcbFloors, TdxReference, TdxRules, Trusted,
};
pub use refusal::{Explanation, Refusal, RefusalKind};
pub use statement::Statement;
pub use tdx::{EvaluationMark, IntelNeeds, IntelTee, PckCa, TdxCache, evaluation_mark, intel_needs};
pub use time::UnixTime;
pub use verdict::{Reason, Verdict};
pub use verifier::{Verifier, verify};

/// Bytes that do not have the form they must have: where, which field, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Which input, for example "statement".
    pub what: &'static str,
    /// Offset of the byte at which reading failed, where the input is binary and its place is known.
    pub offset: Option<usize>,
    /// The field that was being read; empty where the input has none.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Malformed {
    /// Without a place: text formats, and limits of the whole.
    pub(crate) fn new(what: &'static str, reason: impl Into<String>) -> Self {
        Self { what, offset: None, field: "", reason: reason.into() }
    }

    /// At a byte, in a field.
    pub(crate) fn at(
        what: &'static str,
        offset: usize,
        field: &'static str,
        reason: impl Into<String>,
    ) -> Self {
        Self { what, offset: Some(offset), field, reason: reason.into() }
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "malformed {}", self.what)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        if !self.field.is_empty() {
            write!(f, " ({})", self.field)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for Malformed {}
