//! A device's certificate chain: firmware's own key ← boot ROM ← provisioner ← family ← NVIDIA's device root.
//!
//! Shape and fields are those of NVIDIA's attestation-sdk (`nv_x509.cpp`, `gpu/evidence.cpp`): five certificates, P-384
//! throughout, the FWID in the leaf's TcbInfo extension.

use std::collections::BTreeSet;

use crate::UnixTime;
use crate::der::{Reader, tag};
use crate::x509::{Certificate, DIGITAL_SIGNATURE, NotIssued, PublicKey, oid};

/// Certificates of a device's chain, leaf and root included.
pub(super) const DEVICE_CHAIN: usize = 5;
/// Most certificates in any chain that is followed here.
pub(super) const MAX_CHAIN: usize = 8;

/// Certificates from the leaf to one that nobody issued but itself.
#[derive(Debug, Clone)]
pub(super) struct Chain<'a>(Vec<Certificate<'a>>);

/// Why a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// One is not the next one's work: its place, and why.
    Link(usize, NotIssued),
    /// One has a key of another kind than P-384.
    Key(usize),
    /// One may not stand so far above the leaf.
    PathLength(usize),
    /// The leaf may not sign what is no certificate, or is an authority.
    Leaf,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Link(at, why) => write!(f, "certificate {}: {why}", at + 1),
            Self::Key(at) => write!(f, "certificate {}: its key is not P-384", at + 1),
            Self::PathLength(at) => write!(f, "certificate {}: its path length is exceeded", at + 1),
            Self::Leaf => write!(f, "the leaf may not sign, or is an authority"),
        }
    }
}

impl<'a> Chain<'a> {
    /// Follows names from `leaf` through `pool`, whatever its order. Nothing is verified yet.
    pub(super) fn follow(leaf: &Certificate<'a>, pool: &[Certificate<'a>]) -> Self {
        let mut chain = vec![leaf.clone()];
        while let Some(last) = chain.last()
            && last.issuer != last.subject
            && chain.len() < MAX_CHAIN
            && let Some(next) = pool.iter().find(|other| other.subject == last.issuer)
        {
            chain.push(next.clone());
        }
        Self(chain)
    }

    pub(super) fn leaf(&self) -> &Certificate<'a> {
        &self.0[0]
    }

    pub(super) fn root(&self) -> &Certificate<'a> {
        self.0.last().expect("a chain has at least its leaf")
    }

    /// From the leaf up.
    pub(super) fn certificates(&self) -> &[Certificate<'a>] {
        &self.0
    }

    /// Every link holds up to the root, which the caller compares with its anchors byte for byte.
    pub(super) fn holds(&self, known: &mut KnownLinks) -> Result<(), Broken> {
        let leaf = self.leaf();
        if leaf.is_authority() || !leaf.key_usage_allows(DIGITAL_SIGNATURE) {
            return Err(Broken::Leaf);
        }
        for (at, certificate) in self.0.iter().enumerate() {
            if !matches!(certificate.key, PublicKey::P384(_)) {
                return Err(Broken::Key(at));
            }
            if at > 0 && !certificate.allows_authorities_below(at - 1) {
                return Err(Broken::PathLength(at));
            }
        }
        for (at, pair) in self.0.windows(2).enumerate() {
            known.issue(&pair[1], &pair[0]).map_err(|why| Broken::Link(at, why))?;
        }
        Ok(())
    }

    /// The first certificate that is not in date, with its place.
    pub(super) fn out_of_date(&self, now: UnixTime) -> Option<(usize, &Certificate<'a>)> {
        self.0.iter().enumerate().find(|(_, certificate)| !certificate.in_date(now))
    }

    /// The end of the first certificate to run out.
    pub(super) fn good_until(&self) -> UnixTime {
        self.0.iter().map(|certificate| certificate.validity.1).min().expect("a chain has at least its leaf")
    }
}

/// Links that were verified in this very verification, issuer and child by all of their bytes: eight GPUs of one machine
/// share the upper part of their chains.
#[derive(Debug, Default)]
pub(super) struct KnownLinks(BTreeSet<(Vec<u8>, Vec<u8>)>);

impl KnownLinks {
    pub(super) fn issue(
        &mut self,
        issuer: &Certificate<'_>,
        child: &Certificate<'_>,
    ) -> Result<(), NotIssued> {
        let link = (issuer.raw.to_vec(), child.raw.to_vec());
        if !self.0.contains(&link) {
            issuer.issue(child)?;
            self.0.insert(link);
        }
        Ok(())
    }
}

/// What a leaf says about the firmware that holds its key: the first FWID of its TcbInfo extension, SHA-384.
///
/// Hopper and LS10 write `SEQUENCE { version, SubjectPublicKeyInfo, FWID }` under 2.23.133.5.4.1; Blackwell writes TCG's
/// DiceTcbInfo, whose field `[6]` lists FWIDs, under 2.23.133.5.4.1.1.
pub(super) fn fwid<'a>(leaf: &Certificate<'a>) -> Option<&'a [u8]> {
    const WHAT: &str = "TcbInfo";
    const SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
    let digest = |mut fwid: Reader<'a>| {
        let algorithm = fwid.oid("hashAlg").ok()?;
        let digest = fwid.octets("digest").ok()?;
        (algorithm == SHA384 && digest.len() == 48 && fwid.is_empty()).then_some(digest)
    };
    if let Some(value) = leaf.extension(oid::DICE_TCB_INFO) {
        let mut info = Reader::new(value, WHAT).sequence("TcbInfo").ok()?;
        info.number("version").ok()?;
        info.expect(tag::SEQUENCE, "subjectPublicKeyInfo").ok()?;
        return digest(info.sequence("FWID").ok()?);
    }
    let mut info =
        Reader::new(leaf.extension(oid::DICE_TCB_INFO_BLACKWELL)?, WHAT).sequence("TcbInfo").ok()?;
    while !info.is_empty() {
        let element = info.any("field").ok()?;
        if element.tag == tag::context(6) {
            return digest(element.reader(WHAT).sequence("FWID").ok()?);
        }
    }
    None
}

/// The chip in a subject's common name, for example `GH100` of `GH100 A01 GSP BROM`.
pub(super) fn chip(certificate: &Certificate<'_>) -> String {
    certificate.common_name().split(' ').next().unwrap_or_default().to_owned()
}
