//! The fields that certificates and CRLs share.

use crate::crypto::Scheme;
use crate::der::{Reader, tag};
use crate::{Malformed, UnixTime};

/// Most extensions in one certificate or CRL entry.
const MAX_EXTENSIONS: usize = 32;

/// Bit of the key usage that lets a key sign what is no certificate (RFC 5280, 4.2.1.3).
pub(crate) const DIGITAL_SIGNATURE: u8 = 0;
/// Bit of the key usage that lets an authority sign certificates (RFC 5280, 4.2.1.3).
pub(crate) const KEY_CERT_SIGN: u8 = 5;
/// Bit of the key usage that lets an authority sign CRLs.
pub(crate) const CRL_SIGN: u8 = 6;

/// Encoded object identifiers (the content, without tag and length).
pub(crate) mod oid {
    pub(crate) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
    pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
    pub(crate) const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
    pub(crate) const CERTIFICATE_POLICIES: &[u8] = &[0x55, 0x1d, 0x20];
    pub(crate) const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
    pub(crate) const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
    pub(crate) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
    pub(crate) const CRL_DISTRIBUTION_POINTS: &[u8] = &[0x55, 0x1d, 0x1f];
    pub(crate) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
    /// tcg-dice-TcbInfo 2.23.133.5.4.1.
    pub(crate) const DICE_TCB_INFO: &[u8] = &[0x67, 0x81, 0x05, 0x05, 0x04, 0x01];
    /// 2.23.133.5.4.1.1: where Blackwell's leaf has its TcbInfo.
    pub(crate) const DICE_TCB_INFO_BLACKWELL: &[u8] = &[0x67, 0x81, 0x05, 0x05, 0x04, 0x01, 0x01];
    /// tcg-dice-Ueid 2.23.133.5.4.4.
    pub(crate) const DICE_UEID: &[u8] = &[0x67, 0x81, 0x05, 0x05, 0x04, 0x04];

    /// Extensions whose being critical is no reason to refuse: those that are read here, and those that restrict nothing
    /// that is done here. Name constraints are not among them.
    pub(crate) const KNOWN: [&[u8]; 12] = [
        KEY_USAGE,
        BASIC_CONSTRAINTS,
        CRL_NUMBER,
        CERTIFICATE_POLICIES,
        AUTHORITY_KEY_ID,
        SUBJECT_KEY_ID,
        EXTENDED_KEY_USAGE,
        CRL_DISTRIBUTION_POINTS,
        SUBJECT_ALT_NAME,
        DICE_TCB_INFO,
        DICE_TCB_INFO_BLACKWELL,
        DICE_UEID,
    ];
}

/// An X.509 extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extension<'a> {
    /// Encoded object identifier.
    pub(crate) oid: &'a [u8],
    pub(crate) critical: bool,
    /// Content of the octet string.
    pub(crate) value: &'a [u8],
}

/// The three parts of anything signed: what is signed, how, and the signature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedParts<'a> {
    pub(crate) tbs: &'a [u8],
    /// AlgorithmIdentifier, all of its bytes.
    pub(crate) algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
    what: &'static str,
}

impl<'a> SignedParts<'a> {
    /// Splits `der`, and gives a reader of what is signed.
    pub(crate) fn parse(der: &'a [u8], what: &'static str) -> Result<(Self, Reader<'a>), Malformed> {
        let mut file = Reader::new(der, what);
        let mut outer = file.sequence("outer sequence")?;
        file.end("outer sequence")?;
        let tbs = outer.expect(tag::SEQUENCE, "what is signed")?;
        let algorithm = outer.expect(tag::SEQUENCE, "signatureAlgorithm")?.raw;
        let signature = outer.bits("signatureValue")?;
        outer.end("signatureValue")?;
        Ok((Self { tbs: tbs.raw, algorithm, signature, what }, tbs.reader(what)))
    }

    /// The algorithm is named twice; both must be the same (RFC 5280, 4.1.1.2).
    pub(crate) fn same_algorithm(&self, inner: &[u8]) -> Result<(), Malformed> {
        if inner == self.algorithm {
            Ok(())
        } else {
            Err(Malformed::new(self.what, "the signature algorithm is named in two ways"))
        }
    }
}

/// The scheme of an AlgorithmIdentifier, compared byte for byte: these are the forms vendors write.
pub(crate) fn algorithm(identifier: &[u8]) -> Option<Scheme> {
    const ECDSA: [u8; 11] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    const PKCS1: [u8; 12] = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    match identifier {
        [head @ .., 0x02] if *head == ECDSA => Some(Scheme::P256Der),
        [head @ .., 0x03] if *head == ECDSA => Some(Scheme::P384Der),
        [head @ .., 0x0b, 0x05, 0x00] if *head == PKCS1 => Some(Scheme::RsaPkcs1Sha256),
        [head @ .., 0x0c, 0x05, 0x00] if *head == PKCS1 => Some(Scheme::RsaPkcs1Sha384),
        [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70] => Some(Scheme::Ed25519),
        _ => is_pss_sha384(identifier).then_some(Scheme::RsaPssSha384),
    }
}

/// RSASSA-PSS with SHA-384 for message and mask and a salt of 48 bytes (RFC 4055, 3.1). A trailer field of 1 may be
/// written out or left to its default.
fn is_pss_sha384(identifier: &[u8]) -> bool {
    const PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
    const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
    const SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
    const WHAT: &str = "RSASSA-PSS parameters";
    let hash = |reader: &mut Reader<'_>| -> Result<bool, Malformed> {
        let mut identifier = reader.sequence("hash")?;
        let same = identifier.oid("hash")? == SHA384;
        if let Some(null) = identifier.optional(0x05, "parameters")? {
            return Ok(same && null.content.is_empty() && identifier.is_empty());
        }
        Ok(same && identifier.is_empty())
    };
    let read = || -> Result<bool, Malformed> {
        let mut outer = Reader::new(identifier, WHAT).sequence("identifier")?;
        if outer.oid("algorithm")? != PSS {
            return Ok(false);
        }
        let mut parameters = outer.sequence("parameters")?;
        let message = hash(&mut parameters.expect(tag::context(0), "hash")?.reader(WHAT))?;
        let mut mask = parameters.expect(tag::context(1), "mask")?.reader(WHAT).sequence("mask")?;
        let mgf1 = mask.oid("mask")? == MGF1 && hash(&mut mask)?;
        let salt = parameters.expect(tag::context(2), "salt")?.reader(WHAT).number("salt")?;
        let trailer = match parameters.optional(tag::context(3), "trailer")? {
            Some(trailer) => trailer.reader(WHAT).number("trailer")?,
            None => 1,
        };
        Ok(message && mgf1 && salt == 48 && trailer == 1 && parameters.is_empty() && outer.is_empty())
    };
    read().unwrap_or(false)
}

/// A public key as it stands in a SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublicKey<'a> {
    /// Uncompressed point, 65 bytes.
    P256(&'a [u8]),
    /// Uncompressed point, 97 bytes.
    P384(&'a [u8]),
    /// PKCS #1 RSAPublicKey.
    Rsa(&'a [u8]),
    /// 32 bytes.
    Ed25519(&'a [u8]),
    /// Of an algorithm that nothing here verifies.
    Other(&'a [u8]),
}

impl<'a> PublicKey<'a> {
    pub(crate) fn parse(mut spki: Reader<'a>) -> Result<Self, Malformed> {
        const P256: &[u8] = &[
            0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
            0x01, 0x07,
        ];
        const P384: &[u8] =
            &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 5, 0x2b, 0x81, 0x04, 0x00, 0x22];
        const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
        const ED25519: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];
        let algorithm = spki.expect(tag::SEQUENCE, "key algorithm")?.content;
        let bytes = spki.bits("subjectPublicKey")?;
        spki.end("subjectPublicKeyInfo")?;
        Ok(match (algorithm, bytes.len()) {
            (P256, 65) => Self::P256(bytes),
            (P384, 97) => Self::P384(bytes),
            (RSA, _) => Self::Rsa(bytes),
            (ED25519, 32) => Self::Ed25519(bytes),
            _ => Self::Other(bytes),
        })
    }

    /// In the form that [`crate::crypto`] takes.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        let (Self::P256(bytes)
        | Self::P384(bytes)
        | Self::Rsa(bytes)
        | Self::Ed25519(bytes)
        | Self::Other(bytes)) = self;
        bytes
    }

    /// Is this a key of the scheme's algorithm?
    pub(crate) fn fits(&self, scheme: Scheme) -> bool {
        match scheme {
            Scheme::P256Fixed | Scheme::P256Der => matches!(self, Self::P256(_)),
            Scheme::P384Fixed | Scheme::P384Der => matches!(self, Self::P384(_)),
            Scheme::RsaPssSha384 | Scheme::RsaPkcs1Sha256 | Scheme::RsaPkcs1Sha384 => {
                matches!(self, Self::Rsa(_))
            }
            Scheme::Ed25519 => matches!(self, Self::Ed25519(_)),
        }
    }
}

/// `Extensions`; none may stand there twice (RFC 5280, 4.2).
pub(crate) fn extensions<'a>(mut outer: Reader<'a>) -> Result<Vec<Extension<'a>>, Malformed> {
    let mut list = outer.sequence("extensions")?;
    outer.end("extensions")?;
    let mut found: Vec<Extension<'a>> = Vec::with_capacity(12);
    while !list.is_empty() {
        let mut entry = list.sequence("extension")?;
        let oid = entry.oid("extension")?;
        let critical = match entry.optional(tag::BOOLEAN, "critical")? {
            // Some vendors write the default FALSE out, which DER forbids and all libraries take.
            Some(flag) => flag.content != [0],
            None => false,
        };
        let value = entry.octets("extension value")?;
        entry.end("extension")?;
        if found.len() == MAX_EXTENSIONS || found.iter().any(|other| other.oid == oid) {
            return Err(Malformed::new(
                "certificate",
                format!("an extension twice, or more than {MAX_EXTENSIONS}"),
            ));
        }
        found.push(Extension { oid, critical, value });
    }
    Ok(found)
}

/// UTCTime or GeneralizedTime in the forms of RFC 5280, 4.1.2.5. Times before 1970 count as 1970.
pub(crate) fn time(reader: &mut Reader<'_>, field: &'static str) -> Result<UnixTime, Malformed> {
    let element = reader.any(field)?;
    let text = std::str::from_utf8(element.content).unwrap_or_default();
    let full = match (element.tag, text.len()) {
        (tag::UTC_TIME, 13) => {
            let century = if text.as_bytes()[0] >= b'5' { "19" } else { "20" };
            format!("{century}{text}")
        }
        (tag::GENERALIZED_TIME, 15) => text.to_owned(),
        _ => return Err(Malformed::new("certificate", format!("{field} is not a time of RFC 5280"))),
    };
    let Some((year, rest)) = full.is_ascii().then(|| full.split_at(4)) else {
        return Err(Malformed::new("certificate", format!("{field} is not a time of RFC 5280")));
    };
    let year = if year < "1970" && year.bytes().all(|byte| byte.is_ascii_digit()) { "1970" } else { year };
    let iso = format!(
        "{year}-{}-{}T{}:{}:{}{}",
        &rest[..2],
        &rest[2..4],
        &rest[4..6],
        &rest[6..8],
        &rest[8..10],
        &rest[10..]
    );
    UnixTime::from_rfc3339(&iso)
        .ok_or_else(|| Malformed::new("certificate", format!("{field} {text:?} is no date")))
}

/// The first common name (2.5.4.3) in a name, escaped; empty if there is none.
pub(crate) fn common_name(name: &[u8]) -> String {
    let find = || -> Result<Option<String>, Malformed> {
        let mut relative_names = Reader::new(name, "name").sequence("name")?;
        while !relative_names.is_empty() {
            let set = relative_names.expect(tag::SET, "relative name")?;
            let mut attribute = set.reader("name").sequence("attribute")?;
            if attribute.oid("type")? == [0x55, 0x04, 0x03] {
                let value = attribute.any("value")?.content;
                return Ok(Some(String::from_utf8_lossy(value).escape_debug().to_string()));
            }
        }
        Ok(None)
    };
    find().ok().flatten().unwrap_or_default()
}
