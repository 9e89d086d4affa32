//! Gets what a verification lacks from the vendors' services, and keeps it for when they are down.
//!
//! ```text
//! evidence ──▶ needs() ──▶ cache: in date, and asked for not long ago? ──▶ endorsements ──▶ verify()
//!              (pure)         │ no                                              ▲
//!                             └──▶ service over HTTPS ──▶ cache ────────────────┘
//! ```
//!
//! Nothing here is trusted: everything fetched is signed by its vendor, and [`cocoon_attestation::verify`] judges it with
//! the rest, by its own dates. What this crate decides is whom to ask, when, and what to say if there is no answer.
//!
//! | what | of whom | asked again after | used until |
//! | --- | --- | --- | --- |
//! | TCB info, QE identity, PCK CRL | Intel's PCS, API v4 | a day | its `nextUpdate` |
//! | root CRL | Intel's certificate server | a day | its `nextUpdate` |
//! | VCEK | AMD's key service | never | its `notAfter` |
//! | CRL | AMD's key service | a day | its `nextUpdate` |
//! | RIM | NVIDIA's RIM service | a day | as long as its signer's certificates |
//! | answer about a certificate | NVIDIA's OCSP responder | an hour | its `nextUpdate` |
//!
//! What is past its date is still handed to the verifier if there is nothing better, so that the verdict names what ran out;
//! the [`Outcome`] says why there is nothing better. That something is *not* there is never kept.
//!
//! # Rollback
//!
//! The cache keeps the highest `tcbEvaluationDataNumber` whose signatures held, per root, kind and family of platforms
//! ([`Cache::mark`]). [`Gathered::floor`] is for [`cocoon_attestation::TrustAnchors::with_evaluation_floor`]; a document below
//! it is not kept, and does not take the place of one that is.

mod cache;
mod clock;
mod error;
mod gather;
mod http;
mod intel;
mod marks;
mod question;
mod services;

pub use cache::{Cache, CacheError};
pub use clock::{Clock, SystemClock};
pub use error::FetchError;
pub use gather::{Fetcher, Gathered, Outcome, Source};
pub use http::{Limits, Progress};
pub use services::{InvalidUrl, Service, ServiceUrl, Services};
