//! An OCSP responder.

use cocoon_attestation::UnixTime;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, digest};

use super::NOW;
use super::der::{self, sequence, tlv};
use super::pki::{CertPlan, Key};

#[derive(Clone, Copy, PartialEq)]
pub enum Says {
    Good,
    Unknown,
    /// With the reason's number.
    Revoked(u8),
}

#[derive(Clone, Copy, PartialEq)]
pub enum Signer {
    /// The certificate's own issuer.
    Issuer,
    /// A responder that the issuer made for it.
    Delegated,
    /// A certificate of the issuer that is no responder's.
    NoResponder,
    /// Another authority.
    Stranger,
}

#[derive(Clone)]
pub struct OcspPlan {
    pub says: Says,
    pub signer: Signer,
    pub this_update: UnixTime,
    pub next_update: Option<UnixTime>,
    /// 1, 256 or 384.
    pub hash: u16,
    /// Beside the status, a critical extension.
    pub critical: bool,
    /// successful is 0.
    pub status: u8,
    pub forged: bool,
    /// About another serial number.
    pub other: bool,
}

impl OcspPlan {
    pub fn good() -> Self {
        Self {
            says: Says::Good,
            signer: Signer::Delegated,
            this_update: UnixTime(NOW.0 - 3_600),
            next_update: Some(UnixTime(NOW.0 + 86_400)),
            hash: 384,
            critical: false,
            status: 0,
            forged: false,
            other: false,
        }
    }

    /// An answer about the certificate of this plan, whose issuer has this key.
    pub fn answer(&self, certificate: &CertPlan, issuer: &Key, responder: &Key) -> Vec<u8> {
        let (algorithm, id): (_, &[u8]) = match self.hash {
            1 => (&SHA1_FOR_LEGACY_USE_ONLY, &[0x2b, 0x0e, 0x03, 0x02, 0x1a]),
            256 => (&SHA256, &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01]),
            _ => (&SHA384, der::SHA384),
        };
        let hash = |bytes: &[u8]| der::octets(digest(algorithm, bytes).as_ref());
        let serial = if self.other { vec![0x7f] } else { certificate.serial.clone() };
        let cert_id = sequence(&[
            sequence(&[der::oid(id), tlv(0x05, &[])]),
            hash(&der::name(&certificate.issuer)),
            hash(issuer.public()),
            der::integer(&serial),
        ]);
        let status = match self.says {
            Says::Good => tlv(0x80, &[]),
            Says::Unknown => tlv(0x82, &[]),
            Says::Revoked(reason) => {
                let at = der::time(UnixTime(NOW.0 - 86_400));
                tlv(0xa1, &[at, tlv(0xa0, &tlv(0x0a, &[reason]))].concat())
            }
        };
        let next = self.next_update.map(|next| tlv(0xa0, &der::time(next))).unwrap_or_default();
        let single = sequence(&[cert_id, status, der::time(self.this_update), next]);
        let signer = if self.signer == Signer::Issuer { issuer } else { responder };
        let name = digest(&SHA1_FOR_LEGACY_USE_ONLY, signer.public());
        let extensions = if self.critical {
            tlv(0xa1, &sequence(&[der::extension(&[0x2a, 0x03], true, &[5, 0])]))
        } else {
            vec![]
        };
        let data = sequence(&[
            tlv(0xa2, &der::octets(name.as_ref())),
            der::time(self.this_update),
            sequence(&[single]),
            extensions,
        ]);
        let mut signature = signer.sign_der(&data);
        if self.forged {
            *signature.last_mut().expect("a signature") ^= 1;
        }
        let beside = self.responder(certificate, issuer, responder);
        let basic = sequence(&[data, der::algorithm(), der::bits(&signature), beside]);
        let bytes = sequence(&[
            der::oid(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01]),
            der::octets(&basic),
        ]);
        sequence(&[tlv(0x0a, &[self.status]), tlv(0xa0, &bytes)])
    }

    fn responder(&self, certificate: &CertPlan, issuer: &Key, responder: &Key) -> Vec<u8> {
        let purpose = der::oid(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x09]);
        let mut plan = CertPlan::leaf("OCSP responder", &certificate.issuer, 0x41);
        if self.signer != Signer::NoResponder {
            plan.extensions.push(der::extension(&[0x55, 0x1d, 0x25], false, &sequence(&[purpose])));
        }
        let by = if self.signer == Signer::Stranger { responder } else { issuer };
        match self.signer {
            Signer::Issuer => vec![],
            _ => tlv(0xa0, &sequence(&[plan.sign(responder, by)])),
        }
    }
}
