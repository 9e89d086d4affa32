//! Why there is no certificate, or no connection.

use cocoon_attestation::{Malformed, Refusal};

/// Why a peer is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAttested {
    /// It shows no certificate with evidence.
    #[error("ratls.certificate: {0}. Connect to a guest that speaks attested TLS")]
    Certificate(Malformed),
    /// It shows evidence of another scheme, or a chain.
    #[error("ratls.certificate: expected one self-signed certificate with our bundle, got {0}")]
    OtherScheme(String),
    /// Its evidence is not genuine, not bound to its TLS key, or not accepted by the policy: the refusal names the check.
    #[error("{0}")]
    Refused(Refusal),
    /// The handshake is not over, or is not the one that was judged.
    #[error("ratls.handshake: {0}")]
    Handshake(&'static str),
}

/// Why a certificate cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotIssue {
    /// The bundle's statement cannot be read.
    #[error("{0}")]
    Statement(#[from] Malformed),
    /// The statement names another TLS key, or none.
    #[error(
        "the statement does not name this TLS key: make the key first, then the statement, then the quote"
    )]
    OtherKey,
    /// A TLS stack would not take it.
    #[error("certificate of {0} bytes, at most {max}: leave out the padding of the event log", max = super::MAX_TLS_CERTIFICATE)]
    TooLarge(usize),
    /// ring failed.
    #[error("the system gave no randomness, or the key cannot sign")]
    Cryptography,
}

impl From<ring::error::Unspecified> for CannotIssue {
    fn from(_: ring::error::Unspecified) -> Self {
        Self::Cryptography
    }
}
