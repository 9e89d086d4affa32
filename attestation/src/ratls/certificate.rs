//! The key and the extensions of a certificate.

use super::{MAX_CERTIFICATE, WHAT};
use crate::der::{Reader, tag};
use crate::{Malformed, pem};

/// What is inside a value that is one OCTET STRING and nothing else, or the value itself: makers of certificates differ.
pub(super) fn octets(value: &[u8]) -> &[u8] {
    of_kind(value, tag::OCTET_STRING).unwrap_or(value)
}

/// The content of a value that is exactly one element of this tag.
pub(super) fn of_kind(value: &[u8], tag: u8) -> Option<&[u8]> {
    let mut reader = Reader::new(value, WHAT);
    let element = reader.expect(tag, "extension").ok()?;
    reader.is_empty().then_some(element.content)
}

/// DER from DER or from one PEM block (RFC 7468).
pub(super) fn der(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    if bytes.len() > 2 * MAX_CERTIFICATE {
        let reason = format!("{} bytes, at most {MAX_CERTIFICATE} in DER", bytes.len());
        return Err(Malformed::new(WHAT, reason));
    }
    if !bytes.starts_with(b"-----BEGIN ") {
        return Ok(bytes.to_vec());
    }
    let mut blocks = pem::blocks(bytes)?;
    match (blocks.pop(), blocks.len()) {
        (Some(der), 0) => Ok(der),
        (_, more) => Err(Malformed::new(WHAT, format!("{} certificates, must be one", more + 1))),
    }
}
