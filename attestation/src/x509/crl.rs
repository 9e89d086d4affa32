//! Certificate revocation lists (RFC 5280, 5).

use super::fields::{CRL_SIGN, SignedParts, algorithm, common_name, extensions, time};
use super::{Certificate, NotIssued};
use crate::crypto;
use crate::der::{Reader, tag};
use crate::{Malformed, UnixTime};

const WHAT: &str = "CRL";
/// The largest CRL, in bytes.
pub(crate) const MAX_CRL: usize = 512 * 1024;

/// A CRL taken apart. Nothing in it is believed yet.
#[derive(Debug, Clone)]
pub(crate) struct Crl<'a> {
    /// Issuer name in DER.
    pub(crate) issuer: &'a [u8],
    pub(crate) this_update: UnixTime,
    pub(crate) next_update: UnixTime,
    entries: Reader<'a>,
    signed: SignedParts<'a>,
}

impl<'a> Crl<'a> {
    /// Reads a complete, direct CRL. Delta and indirect CRLs have critical extensions, and are refused.
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, Malformed> {
        if der.len() > MAX_CRL {
            return Err(Malformed::at(WHAT, 0, "length", format!("{} bytes, at most {MAX_CRL}", der.len())));
        }
        let (signed, mut tbs) = SignedParts::parse(der, WHAT)?;
        if tbs.number("version")? != 1 {
            return Err(Malformed::new(WHAT, "version is not 2"));
        }
        signed.same_algorithm(tbs.expect(tag::SEQUENCE, "signature")?.raw)?;
        let issuer = tbs.expect(tag::SEQUENCE, "issuer")?.raw;
        let (this_update, next_update) = (time(&mut tbs, "thisUpdate")?, time(&mut tbs, "nextUpdate")?);
        let entries = match tbs.optional(tag::SEQUENCE, "revokedCertificates")? {
            Some(list) => list.reader(WHAT),
            None => Reader::new(&[], WHAT),
        };
        if let Some(list) = tbs.optional(tag::context(0), "crlExtensions")?
            && extensions(list.reader(WHAT))?.iter().any(|extension| extension.critical)
        {
            return Err(Malformed::new(WHAT, "a critical extension: not a complete, direct list"));
        }
        tbs.end("tbsCertList")?;
        let crl = Self { issuer, this_update, next_update, entries, signed };
        crl.find(&[])?; // all entries are well formed
        Ok(crl)
    }

    /// The issuer's common name, for people and to tell lists apart; never to find an authority.
    pub(crate) fn issuer_common_name(&self) -> String {
        common_name(self.issuer)
    }

    pub(crate) fn in_date(&self, now: UnixTime) -> bool {
        self.this_update <= now && now <= self.next_update
    }

    /// Did this authority sign the list?
    pub(crate) fn issued_by(&self, issuer: &Certificate<'_>) -> Result<(), NotIssued> {
        if self.issuer != issuer.subject {
            return Err(NotIssued::Name);
        }
        if !issuer.key_usage_allows(CRL_SIGN) {
            return Err(NotIssued::NotAnAuthority);
        }
        let scheme = algorithm(self.signed.algorithm)
            .filter(|scheme| issuer.key.fits(*scheme))
            .ok_or(NotIssued::Signature)?;
        crypto::holds(scheme, issuer.key.bytes(), self.signed.tbs, self.signed.signature)
            .then_some(())
            .ok_or(NotIssued::Signature)
    }

    /// Does the list name this certificate's serial number?
    pub(crate) fn revokes(&self, certificate: &Certificate<'_>) -> bool {
        self.lists(certificate.serial)
    }

    /// Does the list name this serial number (big endian, without a sign byte)?
    pub(crate) fn lists(&self, serial: &[u8]) -> bool {
        // Entries were read once when the list was parsed; anything odd counts as revoked.
        self.find(serial).unwrap_or(true)
    }

    fn find(&self, serial: &[u8]) -> Result<bool, Malformed> {
        let mut entries = self.entries.clone();
        let mut found = false;
        while !entries.is_empty() {
            let mut entry = entries.sequence("revokedCertificate")?;
            found |= entry.unsigned("userCertificate")? == serial;
        }
        Ok(found)
    }
}
