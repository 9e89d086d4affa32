//! How report data names the certificate's key.

use serde_cbor::Value;

use crate::crypto;

/// The rule of a scheme. "Key" is the certificate's DER SubjectPublicKeyInfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyBinding {
    /// SHA-512("ratls-cert:" ‖ key): dstack.
    Dstack,
    /// SHA-512(key), or of the 32 bytes of an Ed25519 key alone: the C++ COCOON.
    Sha512,
    /// SHA-256(key), then 32 zero bytes: Gramine before tagged evidence.
    Sha256,
    /// SHA-256(claims), then 32 zero bytes; the claims (CBOR) have under "pubkey-hash" the algorithm's number in IANA's
    /// Named Information registry and the hash of the key.
    Claims(Vec<u8>),
    /// The rule depends on something that is not in the certificate: it cannot be shown to hold.
    Unknown,
}

impl KeyBinding {
    /// Does the report data name this key?
    pub(super) fn holds(&self, report_data: &[u8; 64], spki: &[u8]) -> bool {
        let sha512 = |bytes: &[u8]| crypto::sha512(&[bytes]) == *report_data;
        match self {
            Self::Dstack => sha512(&[b"ratls-cert:", spki].concat()),
            Self::Sha512 => sha512(spki) || ed25519(spki).is_some_and(sha512),
            Self::Sha256 => is_sha256(report_data, spki),
            Self::Claims(claims) => is_sha256(report_data, claims) && claims_name(claims, spki),
            Self::Unknown => false,
        }
    }
}

fn is_sha256(report_data: &[u8; 64], bytes: &[u8]) -> bool {
    let (hash, zeros) = report_data.split_at(32);
    crypto::sha256(&[bytes]) == hash && zeros.iter().all(|byte| *byte == 0)
}

/// The key alone, of a SubjectPublicKeyInfo with Ed25519 (RFC 8410, 4).
fn ed25519(spki: &[u8]) -> Option<&[u8]> {
    const HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    spki.strip_prefix(&HEAD).filter(|key| key.len() == 32)
}

/// The hash of the key is an array [algorithm, hash], or a byte string that holds one.
fn claims_name(claims: &[u8], spki: &[u8]) -> bool {
    let Ok(Value::Map(claims)) = serde_cbor::from_slice(claims) else { return false };
    let named = match claims.get(&Value::Text("pubkey-hash".into())) {
        Some(Value::Bytes(inner)) => serde_cbor::from_slice(inner).ok(),
        other => other.cloned(),
    };
    let Some(Value::Array(named)) = named else { return false };
    let [Value::Integer(algorithm), Value::Bytes(hash)] = named.as_slice() else { return false };
    match algorithm {
        1 => crypto::sha256(&[spki]) == hash[..],
        7 => crypto::sha384(&[spki]) == hash[..],
        8 => crypto::sha512(&[spki]) == hash[..],
        _ => false,
    }
}
