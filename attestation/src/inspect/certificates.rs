//! Certificates as a forest: each once, behind the one that its issuer's name names. Signatures are not looked at.

use std::collections::{BTreeMap, BTreeSet};

use crate::anchors::{INTEL_ROOT, NVIDIA_DEVICE_ROOT, NVIDIA_RIM_ROOT};
use crate::crypto::sha256;
use crate::der::{Reader, tag};
use crate::snp::{self, KeyKind, Product};
use crate::x509::{self, PublicKey};

/// Most certificates that are shown: a rack's 80 devices with three of their own each, and room.
const MAX_CERTIFICATES: usize = 512;
/// Longest value in a name, in characters.
const MAX_NAME: usize = 128;

/// One certificate, for people. Nothing in it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Place of its issuer in the list, which is before its own; `None` for a root, or if the issuer is not there.
    pub parent: Option<usize>,
    /// How many stand above it.
    pub depth: usize,
    /// What it is for, as far as its form tells.
    pub role: Role,
    /// It is, byte for byte, a root or intermediate that this verifier has built in.
    pub pinned: bool,
    /// For example `CN=ARK-Genoa, O=Advanced Micro Devices`.
    pub subject: String,
    /// The same of its issuer.
    pub issuer: String,
    /// In hex.
    pub serial: String,
    /// First second of its validity, RFC 3339.
    pub not_before: String,
    /// Last second of its validity, RFC 3339.
    pub not_after: String,
    /// For example `ECDSA P-384`.
    pub key: String,
    /// SHA-256 of the DER, in hex.
    pub sha256: String,
    /// Where it was found: `quote`, `collateral`, `endorsement`, `device 3`, `RIM`, `built in`.
    pub found_in: String,
}

/// What a certificate is for, as far as its form tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Intel's root.
    IntelRoot,
    /// Intel's authority over platforms.
    PckCa,
    /// A platform's key at Intel.
    Pck,
    /// Signs Intel's TCB info and QE identity.
    TcbSigner,
    /// AMD's root of a product.
    Ark,
    /// AMD's authority over VCEKs.
    Ask,
    /// AMD's authority over VLEKs.
    Asvk,
    /// A chip's key at AMD.
    Vcek,
    /// A cloud's key at AMD.
    Vlek,
    /// NVIDIA's root of devices.
    NvidiaRoot,
    /// NVIDIA's root of RIMs.
    RimRoot,
    /// Signs a RIM.
    RimSigner,
    /// A device's chain, below the root.
    Device,
    /// Some root.
    Root,
    /// Some authority.
    Authority,
    /// Some leaf.
    Leaf,
}

impl Role {
    /// Its words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::IntelRoot => "Intel root",
            Self::PckCa => "PCK CA",
            Self::Pck => "PCK",
            Self::TcbSigner => "TCB signer",
            Self::Ark => "ARK",
            Self::Ask => "ASK",
            Self::Asvk => "ASVK",
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
            Self::NvidiaRoot => "NVIDIA device root",
            Self::RimRoot => "NVIDIA RIM root",
            Self::RimSigner => "RIM signer",
            Self::Device => "device chain",
            Self::Root => "root",
            Self::Authority => "authority",
            Self::Leaf => "certificate",
        }
    }
}

/// Certificates as they are found: DER by digest, and where the first of its kind was found.
#[derive(Default)]
pub(super) struct Pool {
    found: Vec<(Vec<u8>, String)>,
    seen: BTreeSet<[u8; 32]>,
}

impl Pool {
    /// Takes one in, unless it is there, is none, or is one too many.
    pub(super) fn add(&mut self, der: &[u8], found_in: impl Into<String>) {
        if self.found.len() < MAX_CERTIFICATES
            && x509::Certificate::parse(der).is_ok()
            && self.seen.insert(sha256(&[der]))
        {
            self.found.push((der.to_vec(), found_in.into()));
        }
    }

    /// Adds the built-in issuers of what was found, and puts each behind its issuer.
    pub(super) fn forest(mut self) -> Vec<Certificate> {
        for der in self.missing_issuers() {
            self.add(der, "built in");
        }
        let parsed: Vec<x509::Certificate<'_>> =
            self.found.iter().filter_map(|(der, _)| x509::Certificate::parse(der).ok()).collect();
        let mut by_subject = BTreeMap::new();
        for (at, certificate) in parsed.iter().enumerate() {
            by_subject.entry(certificate.subject).or_insert(at);
        }
        let issuer = |at: usize| by_subject.get(parsed[at].issuer).copied().filter(|issuer| *issuer != at);
        let mut children = vec![Vec::new(); parsed.len()];
        let mut roots = Vec::new();
        for at in 0..parsed.len() {
            match issuer(at) {
                Some(issuer) => children[issuer].push(at),
                None => roots.push(at),
            }
        }
        // Certificates that issue each other in a ring hang from none: each is then shown as its own root.
        let mut out: Vec<Certificate> = Vec::with_capacity(parsed.len());
        let mut placed = vec![false; parsed.len()];
        for root in roots.into_iter().chain(0..parsed.len()) {
            let mut waiting = vec![(root, None, 0)];
            while let Some((at, parent, depth)) = waiting.pop() {
                if std::mem::replace(&mut placed[at], true) {
                    continue;
                }
                let place = out.len();
                let mut one = shown(&parsed[at], &self.found[at].1, parent, depth);
                one.role = below(parent.map(|parent: usize| out[parent].role), one.role);
                out.push(one);
                waiting.extend(children[at].iter().rev().map(|child| (*child, Some(place), depth + 1)));
            }
        }
        out
    }

    /// AMD's and NVIDIA's own certificates do not travel with evidence.
    fn missing_issuers(&self) -> Vec<&'static [u8]> {
        let parsed: Vec<_> =
            self.found.iter().filter_map(|(der, _)| x509::Certificate::parse(der).ok()).collect();
        let wanted = |der: &[u8]| {
            x509::Certificate::parse(der)
                .is_ok_and(|own| parsed.iter().any(|certificate| certificate.issuer == own.subject))
        };
        let mut missing: Vec<&'static [u8]> = Vec::new();
        for pinned in Product::ALL.map(Product::pinned) {
            for intermediate in [pinned.ask, pinned.asvk] {
                if wanted(intermediate) {
                    missing.extend([intermediate, pinned.root]);
                }
            }
        }
        missing.extend(
            [INTEL_ROOT, NVIDIA_DEVICE_ROOT, NVIDIA_RIM_ROOT].into_iter().filter(|root| wanted(root)),
        );
        missing
    }
}

fn shown(
    certificate: &x509::Certificate<'_>,
    found_in: &str,
    parent: Option<usize>,
    depth: usize,
) -> Certificate {
    Certificate {
        parent,
        depth,
        role: role(certificate, found_in),
        pinned: is_pinned(certificate.raw),
        subject: name(certificate.subject),
        issuer: name(certificate.issuer),
        serial: hex::encode(certificate.serial),
        not_before: certificate.validity.0.to_string(),
        not_after: certificate.validity.1.to_string(),
        key: key(&certificate.key),
        sha256: hex::encode(sha256(&[certificate.raw])),
        found_in: found_in.to_owned(),
    }
}

fn is_pinned(der: &[u8]) -> bool {
    let amd = |product: Product| [product.pinned().root, product.pinned().ask, product.pinned().asvk];
    [INTEL_ROOT, NVIDIA_DEVICE_ROOT, NVIDIA_RIM_ROOT].contains(&der)
        || Product::ALL.into_iter().any(|product| amd(product).contains(&der))
}

fn role(certificate: &x509::Certificate<'_>, found_in: &str) -> Role {
    const PCK_CA: [&str; 2] = [" SGX PCK Processor CA", " SGX PCK Platform CA"];
    let (subject, issuer) = (certificate.common_name(), certificate.issuer_common_name());
    let self_issued = certificate.subject == certificate.issuer;
    match Product::of_intermediate(&subject) {
        Some((_, KeyKind::Vcek)) => return Role::Ask,
        Some((_, KeyKind::Vlek)) => return Role::Asvk,
        None => {}
    }
    if certificate.raw == INTEL_ROOT {
        Role::IntelRoot
    } else if certificate.raw == NVIDIA_DEVICE_ROOT {
        Role::NvidiaRoot
    } else if certificate.raw == NVIDIA_RIM_ROOT {
        Role::RimRoot
    } else if snp::is_root(certificate.raw) {
        Role::Ark
    } else if snp::is_vek(certificate) {
        if subject.ends_with("VLEK") { Role::Vlek } else { Role::Vcek }
    } else if PCK_CA.iter().any(|ca| subject.ends_with(ca)) {
        Role::PckCa
    } else if PCK_CA.iter().any(|ca| issuer.ends_with(ca)) {
        Role::Pck
    } else if subject.ends_with(" SGX TCB Signing") {
        Role::TcbSigner
    } else if self_issued {
        Role::Root
    } else if found_in.starts_with("RIM") && !certificate.is_authority() {
        Role::RimSigner
    } else if found_in.starts_with("device") {
        Role::Device
    } else if certificate.is_authority() {
        Role::Authority
    } else {
        Role::Leaf
    }
}

/// What hangs from a device root is of a device, wherever it was found.
fn below(parent: Option<Role>, role: Role) -> Role {
    match (parent, role) {
        (Some(Role::NvidiaRoot | Role::Device), Role::Authority | Role::Leaf) => Role::Device,
        _ => role,
    }
}

fn key(key: &PublicKey<'_>) -> String {
    match key {
        PublicKey::P256(_) => "ECDSA P-256".into(),
        PublicKey::P384(_) => "ECDSA P-384".into(),
        PublicKey::Ed25519(_) => "Ed25519".into(),
        PublicKey::Rsa(der) => {
            let modulus =
                Reader::new(der, "RSA key").sequence("key").and_then(|mut key| key.unsigned("modulus"));
            modulus.map_or("RSA".into(), |modulus| format!("RSA {}", modulus.len() * 8))
        }
        PublicKey::Other(_) => "of another kind".into(),
    }
}

/// A name's parts in their order, as far as they can be read.
pub(super) fn name(der: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut read = || {
        let mut names = Reader::new(der, "name").sequence("name").ok()?;
        while !names.is_empty() {
            let mut set = names.expect(tag::SET, "relative name").ok()?.reader("name");
            while !set.is_empty() {
                let mut attribute = set.sequence("attribute").ok()?;
                let kind = attribute_name(attribute.oid("type").ok()?);
                let value = String::from_utf8_lossy(attribute.any("value").ok()?.content).into_owned();
                let value: String = value.chars().take(MAX_NAME).collect();
                parts.push(format!("{kind}={}", value.escape_debug()));
            }
        }
        Some(())
    };
    let whole = read().is_some();
    // The common name is what people look for.
    parts.sort_by_key(|part| !part.starts_with("CN="));
    if !whole {
        parts.push("…".into());
    }
    parts.join(", ")
}

/// Names of X.520 attributes (RFC 4519, 2).
fn attribute_name(oid: &[u8]) -> &'static str {
    match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        _ => "?",
    }
}
