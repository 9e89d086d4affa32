//! Just enough of X.509 (RFC 5280, 4.1) to find the key and the extensions, strictly in DER.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{MAX_CERTIFICATE, WHAT};
use crate::Malformed;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// Most extensions in a certificate.
const MAX_EXTENSIONS: usize = 32;

/// The parts that matter.
pub(super) struct Certificate<'a> {
    /// SubjectPublicKeyInfo, tag and length included.
    pub(super) spki: &'a [u8],
    extensions: Vec<Extension<'a>>,
}

struct Extension<'a> {
    /// The OID's content.
    oid: &'a [u8],
    /// What stands inside the OCTET STRING.
    value: &'a [u8],
}

/// Elements one behind the other, with the offset in the whole certificate.
#[derive(Clone, Copy)]
pub(super) struct Elements<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Elements<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, at: 0 }
    }

    fn error(&self, field: &str, reason: &str) -> Malformed {
        Malformed::new(WHAT, format!("at byte {}, {field}: {reason}", self.at))
    }

    /// The next element if it has this tag: its bytes, and its content as elements.
    fn next(&mut self, tag: u8, field: &str) -> Result<(&'a [u8], Elements<'a>), Malformed> {
        let (head, length) = match *self.rest {
            [found, ..] if found != tag => return Err(self.error(field, "an element of another kind")),
            [_, short @ 0..=0x7f, ..] => (2, usize::from(short)),
            [_, 0x81, a @ 0x80..=0xff, ..] => (3, usize::from(a)),
            [_, 0x82, a @ 1..=0xff, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
            [_, 0x83, a @ 1..=0xff, b, c, ..] => (5, u32::from_be_bytes([0, a, b, c]) as usize),
            _ => return Err(self.error(field, "no length in DER")),
        };
        let Some((element, rest)) = self.rest.split_at_checked(head + length) else {
            return Err(self.error(field, "cut off"));
        };
        let content = Elements { rest: &element[head..], at: self.at + head };
        (self.rest, self.at) = (rest, self.at + element.len());
        Ok((element, content))
    }

    fn inside(&mut self, tag: u8, field: &str) -> Result<Elements<'a>, Malformed> {
        self.next(tag, field).map(|(_, content)| content)
    }

    fn starts_with(&self, tag: u8) -> bool {
        self.rest.first() == Some(&tag)
    }

    fn end(&self, field: &str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error(field, "bytes left over")) }
    }
}

impl<'a> Certificate<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, Malformed> {
        let mut outer = Elements::new(der);
        let mut certificate = outer.inside(SEQUENCE, "certificate")?;
        outer.end("certificate")?;
        let mut tbs = certificate.inside(SEQUENCE, "content")?;
        certificate.next(SEQUENCE, "signature algorithm")?;
        certificate.next(BIT_STRING, "signature")?;
        certificate.end("certificate")?;

        let version = tbs.inside(VERSION, "version")?;
        if version.rest != [INTEGER, 1, 2] {
            return Err(version.error("version", "must be 3"));
        }
        tbs.next(INTEGER, "serial number")?;
        for field in ["signature algorithm", "issuer", "validity", "subject"] {
            tbs.next(SEQUENCE, field)?;
        }
        let (spki, _) = tbs.next(SEQUENCE, "public key")?;
        let mut wrapped = tbs.inside(EXTENSIONS, "extensions")?;
        tbs.end("content")?;
        let list = wrapped.inside(SEQUENCE, "extensions")?;
        wrapped.end("extensions")?;
        Ok(Self { spki, extensions: extensions(list)? })
    }

    /// The value of an extension: what stands inside its OCTET STRING.
    pub(super) fn extension(&self, oid: &[u8]) -> Option<&'a [u8]> {
        self.extensions.iter().find(|extension| extension.oid == oid).map(|extension| extension.value)
    }
}

fn extensions(mut list: Elements<'_>) -> Result<Vec<Extension<'_>>, Malformed> {
    let mut extensions: Vec<Extension<'_>> = Vec::new();
    while !list.rest.is_empty() {
        if extensions.len() == MAX_EXTENSIONS {
            return Err(list.error("extensions", &format!("more than {MAX_EXTENSIONS}")));
        }
        let mut extension = list.inside(SEQUENCE, "extension")?;
        let oid = extension.inside(OID, "extension's OID")?;
        if extension.starts_with(BOOLEAN) {
            extension.next(BOOLEAN, "critical")?;
        }
        let value = extension.inside(OCTET_STRING, "extension's value")?;
        extension.end("extension")?;
        if extensions.iter().any(|other| other.oid == oid.rest) {
            return Err(oid.error("extension's OID", "comes twice"));
        }
        extensions.push(Extension { oid: oid.rest, value: value.rest });
    }
    Ok(extensions)
}

/// What is inside a value that is one OCTET STRING and nothing else, or the value itself: makers of certificates differ.
pub(super) fn octets(value: &[u8]) -> &[u8] {
    of_kind(value, OCTET_STRING).unwrap_or(value)
}

/// The content of a value that is exactly one element of this tag.
pub(super) fn of_kind(value: &[u8], tag: u8) -> Option<&[u8]> {
    let mut elements = Elements::new(value);
    let content = elements.inside(tag, "value").ok()?;
    elements.rest.is_empty().then_some(content.rest)
}

/// DER from DER or from one PEM block (RFC 7468) with no text beside it.
pub(super) fn der(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let Some(text) = bytes.strip_prefix(BEGIN) else {
        return within_limit(bytes.len(), MAX_CERTIFICATE).map(|()| bytes.to_vec());
    };
    within_limit(bytes.len(), 2 * MAX_CERTIFICATE)?;
    let text = text.trim_ascii_end().strip_suffix(END);
    let text = text.ok_or_else(|| Malformed::new(WHAT, "text after the certificate"))?;
    let compact: Vec<u8> = text.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
    let der =
        STANDARD.decode(compact).map_err(|error| Malformed::new(WHAT, format!("not base64: {error}")))?;
    within_limit(der.len(), MAX_CERTIFICATE).map(|()| der)
}

fn within_limit(length: usize, most: usize) -> Result<(), Malformed> {
    if length <= most {
        return Ok(());
    }
    Err(Malformed::new(WHAT, format!("{length} bytes, at most {most}")))
}
