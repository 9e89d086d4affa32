//! One GPU's evidence, as a bundle carries it.
//!
//! Deterministic CBOR (RFC 8949, 4.2.1), an array of three:
//!
//! | index | field | form |
//! | --- | --- | --- |
//! | 0 | architecture | text: `HOPPER`, `BLACKWELL`, …, as the driver calls it; empty when it does not know |
//! | 1 | report | bytes: SPDM request ‖ response, as the driver gives it |
//! | 2 | certificates | bytes: the attestation certificate chain, as the driver gives it (PEM so far) |
//!
//! The architecture is a hint that nobody signed: a verifier takes it from the certificates. SHA-256 of the encoded
//! record stands in the statement ([`GpuRecord::digest`]).

use serde::{Deserialize, Serialize};

use crate::Malformed;
use crate::bundle::ByteString;

const WHAT: &str = "GPU record";
/// What an array of three strings adds to them at most, in bytes: its own head, and three heads of up to five.
const FRAMING: usize = 1 + 3 * 5;

/// What one GPU says about itself, for one nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuRecord {
    /// The architecture's name in `A–Z`, `0–9` and `_`, at most [`GpuRecord::MAX_ARCHITECTURE`] bytes; may be empty.
    pub architecture: String,
    /// SPDM request and response, 1 to [`GpuRecord::MAX_REPORT`] bytes.
    pub report: Vec<u8>,
    /// The certificate chain that signs the report, 1 to [`GpuRecord::MAX_CERTIFICATES`] bytes.
    pub certificates: Vec<u8>,
}

impl GpuRecord {
    /// Longest name of an architecture, in bytes.
    pub const MAX_ARCHITECTURE: usize = 32;
    /// Largest report, in bytes. NVML's buffer has 8 KiB.
    pub const MAX_REPORT: usize = 16 * 1024;
    /// Largest certificate chain, in bytes. NVML's buffer has 5 KiB.
    pub const MAX_CERTIFICATES: usize = 32 * 1024;
    /// Largest record, in bytes.
    pub const MAX: usize = Self::MAX_ARCHITECTURE + Self::MAX_REPORT + Self::MAX_CERTIFICATES + FRAMING;

    /// The one encoding.
    ///
    /// # Errors
    /// If a field exceeds its limit, or is empty and may not be.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        self.check()?;
        let wire = Wire(
            self.architecture.clone(),
            ByteString(self.report.clone()),
            ByteString(self.certificates.clone()),
        );
        Ok(serde_cbor::to_vec(&wire).expect("plain values always encode"))
    }

    /// Parses the one encoding a record has.
    ///
    /// # Errors
    /// If the bytes are not exactly what [`GpuRecord::encode`] gives.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > Self::MAX {
            return Err(Malformed::new(WHAT, format!("{} bytes, at most {}", bytes.len(), Self::MAX)));
        }
        let Wire(architecture, ByteString(report), ByteString(certificates)) = serde_cbor::from_slice(bytes)
            .map_err(|e| Malformed::new(WHAT, format!("not an array of text, bytes and bytes: {e}")))?;
        let record = Self { architecture, report, certificates };
        if record.encode()? != bytes {
            return Err(Malformed::new(WHAT, "not the deterministic encoding"));
        }
        Ok(record)
    }

    /// What the statement says of an encoded record: its SHA-256.
    pub fn digest(encoded: &[u8]) -> [u8; 32] {
        crate::crypto::sha256(&[encoded])
    }

    fn check(&self) -> Result<(), Malformed> {
        let sizes = [
            ("architecture", self.architecture.len(), 0, Self::MAX_ARCHITECTURE),
            ("report", self.report.len(), 1, Self::MAX_REPORT),
            ("certificate chain", self.certificates.len(), 1, Self::MAX_CERTIFICATES),
        ];
        for (field, got, least, most) in sizes {
            if !(least..=most).contains(&got) {
                return Err(Malformed::new(WHAT, format!("{field} of {got} bytes, {least} to {most}")));
            }
        }
        let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        if let Some(at) = self.architecture.bytes().position(|byte| !plain(byte)) {
            let text = format!("the architecture's byte {at} is none of A-Z, 0-9 and _");
            return Err(Malformed::new(WHAT, text));
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Wire(String, ByteString, ByteString);
