//! X.509 certificates and CRLs (RFC 5280), read in place, as far as attestation needs them.
//!
//! There is no path building here: every vendor's chain is known, and each link is asked for by [`Certificate::issue`].

mod crl;
mod fields;

pub(crate) use crl::Crl;
pub(crate) use fields::{DIGITAL_SIGNATURE, Extension, PublicKey, extensions, oid, time};

use crate::crypto;
use crate::der::{Reader, tag};
use crate::{Malformed, UnixTime};
use fields::{SignedParts, algorithm};

/// The largest certificate, in bytes.
pub(crate) const MAX_CERTIFICATE: usize = 16 * 1024;

/// A certificate taken apart. Nothing in it is believed yet.
#[derive(Debug, Clone)]
pub(crate) struct Certificate<'a> {
    /// All of its bytes.
    pub(crate) raw: &'a [u8],
    /// Serial number, big endian, without a sign byte.
    pub(crate) serial: &'a [u8],
    /// Issuer name in DER.
    pub(crate) issuer: &'a [u8],
    /// Subject name in DER.
    pub(crate) subject: &'a [u8],
    /// First and last second of its validity.
    pub(crate) validity: (UnixTime, UnixTime),
    pub(crate) key: PublicKey<'a>,
    /// SubjectPublicKeyInfo in DER.
    pub(crate) spki: &'a [u8],
    extensions: Vec<Extension<'a>>,
    signed: SignedParts<'a>,
}

/// Why one certificate or CRL is not another's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotIssued {
    /// The issuer's name is another.
    Name,
    /// The issuer may not sign certificates (RFC 5280, 4.2.1.3 and 4.2.1.9).
    NotAnAuthority,
    /// A critical extension that this verifier does not know (RFC 5280, 4.2).
    UnknownCritical,
    /// The signature does not hold, or its algorithm is not one that any vendor uses.
    Signature,
}

impl std::fmt::Display for NotIssued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Name => "it names another issuer",
            Self::NotAnAuthority => "its issuer is not a certificate authority",
            Self::UnknownCritical => "it has a critical extension that is not known",
            Self::Signature => "its signature does not hold",
        })
    }
}

impl<'a> Certificate<'a> {
    /// Reads one certificate of at most [`MAX_CERTIFICATE`] bytes; nothing may follow it.
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, Malformed> {
        Self::parse_limited(der, MAX_CERTIFICATE)
    }

    /// As [`Certificate::parse`], with another limit: evidence inside makes a certificate long.
    pub(crate) fn parse_limited(der: &'a [u8], most: usize) -> Result<Self, Malformed> {
        const WHAT: &str = "certificate";
        if der.len() > most {
            return Err(Malformed::at(WHAT, 0, "length", format!("{} bytes, at most {most}", der.len())));
        }
        let (signed, mut tbs) = SignedParts::parse(der, WHAT)?;
        let version = match tbs.optional(tag::context(0), "version")? {
            Some(version) => {
                let mut version = version.reader(WHAT);
                let number = version.number("version")?;
                version.end("version")?;
                number
            }
            None => 0,
        };
        let serial = tbs.unsigned("serialNumber")?;
        signed.same_algorithm(tbs.expect(tag::SEQUENCE, "signature")?.raw)?;
        let issuer = tbs.expect(tag::SEQUENCE, "issuer")?.raw;
        let mut dates = tbs.sequence("validity")?;
        let validity = (time(&mut dates, "notBefore")?, time(&mut dates, "notAfter")?);
        dates.end("validity")?;
        let subject = tbs.expect(tag::SEQUENCE, "subject")?.raw;
        let spki = tbs.expect(tag::SEQUENCE, "subjectPublicKeyInfo")?;
        let key = PublicKey::parse(spki.reader(WHAT))?;
        for unique_id in [1, 2] {
            tbs.optional(tag::context_primitive(unique_id), "uniqueID")?;
        }
        let extensions = match tbs.optional(tag::context(3), "extensions")? {
            // RFC 5280, 4.1.2.1: what has extensions is of version 3, written as 2.
            Some(_) if version != 2 => {
                return Err(Malformed::new(WHAT, "version must be 3 for a certificate with extensions"));
            }
            Some(list) => extensions(list.reader(WHAT))?,
            None => Vec::new(),
        };
        tbs.end("tbsCertificate")?;
        Ok(Self { raw: der, serial, issuer, subject, validity, key, spki: spki.raw, extensions, signed })
    }

    /// An extension's value (the content of its octet string).
    pub(crate) fn extension(&self, oid: &[u8]) -> Option<&'a [u8]> {
        self.extensions.iter().find(|extension| extension.oid == oid).map(|extension| extension.value)
    }

    /// All extensions, in their order.
    pub(crate) fn extensions(&self) -> &[Extension<'a>] {
        &self.extensions
    }

    pub(crate) fn in_date(&self, now: UnixTime) -> bool {
        self.validity.0 <= now && now <= self.validity.1
    }

    /// Did this authority sign that certificate? Dates are the caller's to judge: see [`Certificate::in_date`].
    pub(crate) fn issue(&self, child: &Certificate<'_>) -> Result<(), NotIssued> {
        if child.issuer != self.subject {
            return Err(NotIssued::Name);
        }
        if !self.is_authority() {
            return Err(NotIssued::NotAnAuthority);
        }
        if [self, child].iter().any(|certificate| certificate.has_unknown_critical()) {
            return Err(NotIssued::UnknownCritical);
        }
        self.sign(&child.signed)
    }

    fn sign(&self, signed: &SignedParts<'_>) -> Result<(), NotIssued> {
        let scheme = algorithm(signed.algorithm)
            .filter(|scheme| self.key.fits(*scheme))
            .ok_or(NotIssued::Signature)?;
        let holds = crypto::holds(scheme, self.key.bytes(), signed.tbs, signed.signature);
        holds.then_some(()).ok_or(NotIssued::Signature)
    }

    fn basic_constraints_ca(&self) -> Option<bool> {
        let value = self.extension(oid::BASIC_CONSTRAINTS)?;
        let mut sequence = Reader::new(value, "certificate").sequence("basicConstraints").ok()?;
        if sequence.is_empty() { Some(false) } else { sequence.boolean("cA").ok() }
    }

    /// May this authority stand above so many other authorities in one chain (RFC 5280, 4.2.1.9, pathLenConstraint)?
    /// No for what is no authority.
    pub(crate) fn allows_authorities_below(&self, count: usize) -> bool {
        let Some(value) = self.extension(oid::BASIC_CONSTRAINTS) else { return false };
        let read = || {
            let mut sequence = Reader::new(value, "certificate").sequence("basicConstraints")?;
            let authority = !sequence.is_empty() && sequence.boolean("cA")?;
            let most = if sequence.is_empty() { u64::MAX } else { sequence.number("pathLenConstraint")? };
            Ok::<_, Malformed>(authority && count as u64 <= most)
        };
        read().unwrap_or(false)
    }

    /// Basic constraints say CA, and key usage, where it stands, allows signing certificates.
    pub(crate) fn is_authority(&self) -> bool {
        self.basic_constraints_ca() == Some(true) && self.key_usage_allows(fields::KEY_CERT_SIGN)
    }

    pub(crate) fn key_usage_allows(&self, bit: u8) -> bool {
        let Some(value) = self.extension(oid::KEY_USAGE) else { return true };
        let Ok(element) = Reader::new(value, "certificate").expect(tag::BIT_STRING, "keyUsage") else {
            return false;
        };
        // Bit 0 is the highest bit of the first byte; the first content byte counts unused bits.
        element.content.get(1 + usize::from(bit / 8)).is_some_and(|byte| byte & (0x80 >> (bit % 8)) != 0)
    }

    fn has_unknown_critical(&self) -> bool {
        self.extensions.iter().any(|extension| extension.critical && !oid::KNOWN.contains(&extension.oid))
    }

    /// The common name, escaped; empty if there is none. For people, and to tell the kinds of an authority's certificates
    /// apart once the authority's signature holds; never to find an authority.
    pub(crate) fn common_name(&self) -> String {
        fields::common_name(self.subject)
    }

    /// The issuer's common name, for people.
    pub(crate) fn issuer_common_name(&self) -> String {
        fields::common_name(self.issuer)
    }

    /// A signature by this certificate's key over `message`, under the algorithm of this AlgorithmIdentifier.
    pub(crate) fn holds(&self, algorithm_identifier: &[u8], message: &[u8], signature: &[u8]) -> bool {
        algorithm(algorithm_identifier)
            .filter(|scheme| self.key.fits(*scheme))
            .is_some_and(|scheme| crypto::holds(scheme, self.key.bytes(), message, signature))
    }
}
