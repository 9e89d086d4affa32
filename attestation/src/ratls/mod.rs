//! RA-TLS: evidence inside a TLS certificate, read here and never written.
//!
//! A certificate is self-signed, so nothing in it is believed but what its evidence says; what makes it more than a
//! bundle is that the evidence names the certificate's key. Schemes that are read:
//!
//! | scheme | extension | content | report data |
//! | --- | --- | --- | --- |
//! | ours | 1.3.6.1.5.5.7.1.35 (CMW, RFC 9999) | OCTET STRING: our bundle | the statement, which names the TLS key |
//! | other CMW | the same | OCTET STRING: CBOR; UTF8String: JSON | not judged |
//! | DICE, Gramine | 2.23.133.5.4.9 | CBOR 60000([quote, claims]) | SHA-256(claims), 32 zeros; claims hash the key |
//! | Gramine before 1.8 | 1.2.840.113741.1337.6 | quote | SHA-256(key), 32 zeros |
//! | dstack | 1.3.6.1.4.1.62397.1.1, .1.2 | OCTET STRING: quote; event log | SHA-512("ratls-cert:" ‖ key) |
//! | dstack, newer | 1.3.6.1.4.1.62397.1.8 | OCTET STRING: envelope around the quote | the same |
//! | the C++ COCOON | 1.3.6.1.4.1.12345.1 | quote | SHA-512(key) |
//! | TDX quote by Intel's arc | 1.2.840.113741.1.5.5.1.6 | quote | depends on a time or a nonce: not judged |
//!
//! "Key" is the DER SubjectPublicKeyInfo; for the C++ COCOON also the 32 bytes of the Ed25519 key alone.

mod binding;
mod certificate;
mod envelope;

pub use binding::KeyBinding;

use crate::x509::Certificate;
use crate::{Bundle, Malformed};

/// The largest certificate, in bytes of DER: one with a bundle of the largest size.
pub const MAX_CERTIFICATE: usize = crate::bundle::MAX_BUNDLE + 4096;

/// Content of OID 1.3.6.1.5.5.7.1.35: id-pe-cmw.
pub const CMW_OID: [u8; 8] = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x23];
const DICE: &[u8] = &[0x67, 0x81, 0x05, 0x05, 0x04, 0x09];
const DSTACK_QUOTE: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xe7, 0x3d, 0x01, 0x01];
const DSTACK_EVENT_LOG: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xe7, 0x3d, 0x01, 0x02];
const DSTACK_ATTESTATION: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xe7, 0x3d, 0x01, 0x08];
const CPP_COCOON: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xe0, 0x39, 0x01];
const GRAMINE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x8a, 0x39, 0x06];
/// Gramine writes tag and length of the OID into its content.
const GRAMINE_TWICE: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x8a, 0x39, 0x06];
const INTEL_TDX: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x05, 0x05, 0x01, 0x06];

const WHAT: &str = "RA-TLS certificate";

/// A certificate with evidence in it. Nothing is believed yet, and its own signature is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaTlsCertificate {
    /// The certificate.
    pub der: Vec<u8>,
    /// Its public key: DER SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// What it carries.
    pub evidence: RaTlsEvidence,
}

/// Evidence in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RaTlsEvidence {
    /// Our bundle: its statement must name the certificate's key, see [`crate::Genuine::with_tls_key`].
    Bundle(Box<Bundle>),
    /// A quote by another scheme.
    Quote {
        /// Who made the certificate, in words.
        scheme: &'static str,
        /// The quote, as it stands in the certificate.
        quote: Vec<u8>,
        /// The event log, in the scheme's own format.
        event_log: Option<Vec<u8>>,
        /// How the quote's report data names the certificate's key.
        binding: KeyBinding,
    },
    /// A conceptual message wrapper that is not our bundle: recognised, and not judged.
    OtherCmw {
        /// "CBOR" or "JSON".
        encoding: &'static str,
    },
}

impl RaTlsCertificate {
    /// Takes a certificate apart, in DER or as one PEM block, and finds its evidence.
    ///
    /// # Errors
    /// If it is not a certificate of X.509 version 3, exceeds a limit, has an extension twice, carries no evidence of a
    /// scheme that is known, or that evidence does not have its form.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let der = certificate::der(bytes)?;
        let certificate = Certificate::parse_limited(&der, MAX_CERTIFICATE)?;
        let (spki, evidence) = (certificate.spki.to_vec(), evidence(&certificate)?);
        Ok(Self { der, spki, evidence })
    }

    /// Does this report data name the certificate's key, by the rule of its scheme? Always false for our own bundle, whose
    /// statement names the key, and where the rule is not known.
    pub fn binds(&self, report_data: &[u8; 64]) -> bool {
        match &self.evidence {
            RaTlsEvidence::Quote { binding, .. } => binding.holds(report_data, &self.spki),
            RaTlsEvidence::Bundle(_) | RaTlsEvidence::OtherCmw { .. } => false,
        }
    }
}

/// The first scheme that is there, from the one that says most to the one that says least.
fn evidence(certificate: &Certificate<'_>) -> Result<RaTlsEvidence, Malformed> {
    let quote = |scheme, quote: &[u8], binding| RaTlsEvidence::Quote {
        scheme,
        quote: quote.to_vec(),
        event_log: None,
        binding,
    };
    let find = |oid| certificate.extension(oid);
    if let Some(value) = find(&CMW_OID) {
        return envelope::cmw(value);
    }
    if let Some(value) = find(DICE) {
        let (found, claims) = envelope::dice(value)?;
        return Ok(quote("TCG DICE", &found, KeyBinding::Claims(claims)));
    }
    let event_log = || find(DSTACK_EVENT_LOG).map(|log| certificate::octets(log).to_vec());
    if let Some(value) = find(DSTACK_ATTESTATION) {
        let found = envelope::embedded_quote(certificate::octets(value))?.to_vec();
        let (scheme, binding) = ("dstack", KeyBinding::Dstack);
        return Ok(RaTlsEvidence::Quote { scheme, quote: found, event_log: event_log(), binding });
    }
    if let Some(value) = find(DSTACK_QUOTE) {
        let (scheme, binding) = ("dstack", KeyBinding::Dstack);
        let found = certificate::octets(value).to_vec();
        return Ok(RaTlsEvidence::Quote { scheme, quote: found, event_log: event_log(), binding });
    }
    for (oid, scheme, binding) in [
        (CPP_COCOON, "COCOON in C++", KeyBinding::Sha512),
        (GRAMINE, "Gramine", KeyBinding::Sha256),
        (GRAMINE_TWICE, "Gramine", KeyBinding::Sha256),
        (INTEL_TDX, "TDX quote by Intel's arc", KeyBinding::Unknown),
    ] {
        if let Some(value) = find(oid) {
            return Ok(quote(scheme, certificate::octets(value), binding));
        }
    }
    Err(Malformed::new(WHAT, "no extension with evidence: it is a plain certificate"))
}
