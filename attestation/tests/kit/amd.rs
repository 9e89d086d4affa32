//! An AMD look-alike that really signs: ARK, ASK, ASVK, VCEK, VLEK, CRLs and reports, of every product.
//!
//! A [`Guest`] is a draft of everything; rows of a table change one thing of it, and [`Guest::issue`] signs the rest.

use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKey, KeySize};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA384};
use cocoon_attestation::snp::{KeyKind, Product};
use cocoon_attestation::{Endorsements, TrustAnchors};

use super::der;

/// When everything is in date.
pub const NOW: u64 = 1_785_000_000;
const YEAR: u64 = 365 * 86_400;

/// Keys of one look-alike: generated once per process, since RSA keys take long.
pub struct Keys {
    ark: RsaKey,
    ask: RsaKey,
    vek: EcdsaKeyPair,
}

impl Keys {
    fn generate() -> Self {
        let rsa = || RsaKey::generate(KeySize::Rsa2048).expect("the system's random source works");
        let vek = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key");
        Self { ark: rsa(), ask: rsa(), vek }
    }

    /// The look-alike that the verifier is told of.
    pub fn named() -> &'static Self {
        static KEYS: OnceLock<Keys> = OnceLock::new();
        KEYS.get_or_init(Self::generate)
    }

    /// Another one, of the same names: a forger.
    pub fn other() -> &'static Self {
        static KEYS: OnceLock<Keys> = OnceLock::new();
        KEYS.get_or_init(Self::generate)
    }
}

fn rsa_sign(key: &RsaKey, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), message, &mut signature).expect("signs");
    signature
}

fn signed(key: &RsaKey, tbs: Vec<u8>) -> Vec<u8> {
    let signature = rsa_sign(key, &tbs);
    der::sequence(&[tbs, der::rsa_pss_sha384(), der::bits(&signature)])
}

/// A draft of a certificate, without its keys.
#[derive(Clone)]
pub struct CertificateDraft {
    pub subject: String,
    pub issuer: String,
    pub serial: u32,
    pub from: u64,
    pub to: u64,
    /// In DER, each a whole extension.
    pub extensions: Vec<Vec<u8>>,
}

impl CertificateDraft {
    fn sign(&self, public_key: Vec<u8>, key: &RsaKey) -> Vec<u8> {
        let tbs = der::sequence(&[
            der::tlv(0xa0, &der::integer(2)),
            der::integer(self.serial),
            der::rsa_pss_sha384(),
            der::name(&self.issuer),
            der::sequence(&[der::utc_time(self.from), der::utc_time(self.to)]),
            der::name(&self.subject),
            public_key,
            der::tlv(0xa3, &der::sequence(&self.extensions)),
        ]);
        signed(key, tbs)
    }

    fn authority(subject: String, issuer: String, serial: u32) -> Self {
        let constraints = der::sequence(&[der::tlv(1, &[0xff])]);
        let usage = der::tlv(3, &[1, 0b0000_0110]);
        let extensions = vec![
            der::extension(&[0x55, 0x1d, 0x13], true, &constraints),
            der::extension(&[0x55, 0x1d, 0x0f], true, &usage),
        ];
        Self { subject, issuer, serial, from: NOW - YEAR, to: NOW + 20 * YEAR, extensions }
    }
}

/// A draft of a revocation list.
#[derive(Clone)]
pub struct CrlDraft {
    pub issuer: String,
    /// Signed by the ASK, else by the ARK.
    pub by_ask: bool,
    pub from: u64,
    pub to: u64,
    pub revoked: Vec<u32>,
    /// Signed by a key that is not the issuer's.
    pub forged: bool,
}

impl CrlDraft {
    fn sign(&self, keys: &Keys) -> Vec<u8> {
        let entry = |serial: &u32| der::sequence(&[der::integer(*serial), der::utc_time(self.from)]);
        let entries: Vec<Vec<u8>> = self.revoked.iter().map(entry).collect();
        let mut parts = vec![
            der::integer(1),
            der::rsa_pss_sha384(),
            der::name(&self.issuer),
            der::utc_time(self.from),
            der::utc_time(self.to),
        ];
        if !entries.is_empty() {
            parts.push(der::sequence(&entries));
        }
        let key = if self.by_ask != self.forged { &keys.ask } else { &keys.ark };
        signed(key, der::sequence(&parts))
    }
}

/// 1.3.6.1.4.1.3704.1 and the arcs after it.
pub fn amd_oid(arcs: &[u8]) -> Vec<u8> {
    [&[0x2b, 6, 1, 4, 1, 0x9c, 0x78, 1], arcs].concat()
}

/// The extensions that AMD puts into a VEK's certificate, by their arcs.
#[derive(Clone)]
pub struct VekExtensions(pub Vec<(Vec<u8>, Vec<u8>)>);

impl VekExtensions {
    pub fn set(&mut self, arcs: &[u8], value: Vec<u8>) {
        self.0.retain(|(other, _)| other != arcs);
        self.0.push((arcs.to_vec(), value));
    }

    pub fn remove(&mut self, arcs: &[u8]) {
        self.0.retain(|(other, _)| other != arcs);
    }
}

/// A guest on a look-alike of AMD's hardware: a draft of its report and of everything that vouches for it.
#[derive(Clone)]
pub struct Guest {
    /// 1184 bytes, the signature yet to come.
    pub report: Vec<u8>,
    pub vek: CertificateDraft,
    pub extensions: VekExtensions,
    pub ask: CertificateDraft,
    pub ark: CertificateDraft,
    pub crls: Vec<CrlDraft>,
    /// The VEK's certificate is signed by a forger.
    pub forged_vek: bool,
    /// The ASK's certificate is signed by a forger.
    pub forged_ask: bool,
    /// A forger signs the report.
    pub forged_report: bool,
    /// The verifier is not told of the root.
    pub unnamed: bool,
    pub leave_out_vek: bool,
    pub leave_out_ask: bool,
    /// SIGNATURE_ALGO and the bytes of the signature are written before this runs.
    pub after_signing: fn(&mut Vec<u8>),
}

/// FMC, boot loader, TEE, SNP, microcode of a healthy guest.
pub const TCB: [u8; 5] = [1, 10, 0, 23, 84];

/// A TCB_VERSION in the product's layout.
pub fn tcb(product: Product, [fmc, boot_loader, tee, snp, microcode]: [u8; 5]) -> [u8; 8] {
    match product {
        Product::Milan | Product::Genoa => [boot_loader, tee, 0, 0, 0, 0, snp, microcode],
        Product::Turin => [fmc, boot_loader, tee, snp, 0, 0, 0, microcode],
    }
}

impl Guest {
    /// A healthy guest: nothing about it is to be refused (but a Milan by its name).
    pub fn new(product: Product, kind: KeyKind, version: u8) -> Self {
        let name = product.name();
        let prefix = if kind == KeyKind::Vlek { "SEV-VLEK" } else { "SEV" };
        let (ark, ask) = (format!("ARK-{name}"), format!("{prefix}-{name}"));
        let vek = CertificateDraft {
            subject: format!("SEV-{}", kind.name()),
            issuer: ask.clone(),
            serial: 0,
            from: NOW - YEAR,
            to: NOW + YEAR,
            extensions: Vec::new(),
        };
        Self {
            report: report(product, kind, version),
            vek,
            extensions: vek_extensions(product, kind),
            ask: CertificateDraft::authority(ask, ark.clone(), 7),
            ark: CertificateDraft::authority(ark.clone(), ark, 1),
            crls: Vec::new(),
            forged_vek: false,
            forged_ask: false,
            forged_report: false,
            unnamed: false,
            leave_out_vek: false,
            leave_out_ask: false,
            after_signing: |_| {},
        }
    }

    /// A list by the ARK, in date, that names nobody.
    pub fn crl(&self) -> CrlDraft {
        CrlDraft {
            issuer: self.ark.subject.clone(),
            by_ask: false,
            from: NOW - 86_400,
            to: NOW + 30 * 86_400,
            revoked: Vec::new(),
            forged: false,
        }
    }

    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.report[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Signs: the report, the endorsements in no helpful order, and the anchors.
    pub fn issue(&self) -> (Vec<u8>, Endorsements, TrustAnchors) {
        let (keys, forger) = (Keys::named(), Keys::other());
        let pick = |forged: bool| if forged { forger } else { keys };
        let rsa = |key: &RsaKey| der::rsa_key(key.public_key().as_ref());
        let ark = self.ark.sign(rsa(&keys.ark), &keys.ark);
        let ask = self.ask.sign(rsa(&keys.ask), &pick(self.forged_ask).ark);
        let mut vek = self.vek.clone();
        let own = self.extensions.0.iter().map(|(arcs, value)| der::extension(&amd_oid(arcs), false, value));
        vek.extensions.extend(own);
        let vek = vek.sign(der::p384_key(keys.vek.public_key().as_ref()), &pick(self.forged_vek).ask);
        let mut files: Vec<Vec<u8>> = self.crls.iter().map(|crl| crl.sign(keys)).collect();
        files.push(ark.clone());
        if !self.leave_out_vek {
            files.push(vek);
        }
        if !self.leave_out_ask {
            files.push(ask);
        }
        let report = self.sign_report(&pick(self.forged_report).vek);
        let anchors = if self.unnamed {
            TrustAnchors::hardware()
        } else {
            TrustAnchors::hardware().with_simulated_root(&ark).expect("a certificate")
        };
        (report, Endorsements::from_files(files).expect("certificates and lists"), anchors)
    }

    fn sign_report(&self, key: &EcdsaKeyPair) -> Vec<u8> {
        let mut report = self.report.clone();
        let signature = key.sign(&SystemRandom::new(), &report[..0x2a0]).expect("signs");
        let (r, s) = signature.as_ref().split_at(48);
        for (at, half) in [(0x2a0, r), (0x2a0 + 72, s)] {
            let little: Vec<u8> = half.iter().rev().copied().collect();
            report[at..at + 48].copy_from_slice(&little);
        }
        (self.after_signing)(&mut report);
        report
    }
}

/// The chip's id in a report: 64 bytes, of which Turin fills 8.
pub fn chip_id(product: Product) -> Vec<u8> {
    let length = if product == Product::Turin { 8 } else { 64 };
    (0..length).map(|at| 0x80 | at as u8).collect()
}

fn report(product: Product, kind: KeyKind, version: u8) -> Vec<u8> {
    let mut report = vec![0; 1184];
    let mut put = |offset: usize, bytes: &[u8]| report[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &[version]);
    put(4, &[3]);
    put(8, &0x3_001f_u64.to_le_bytes());
    put(0x34, &[1]);
    put(0x40, &[0x25]);
    put(0x48, &[if kind == KeyKind::Vlek { 4 } else { 0 }]);
    put(0x50, &[0xda; 64]);
    put(0x90, &[0x3e; 48]);
    put(0xc0, &[0x05; 32]);
    put(0x140, &[0x1d; 32]);
    put(0x160, &[0xff; 32]);
    for offset in [0x38, 0x180, 0x1e0, 0x1f0] {
        put(offset, &tcb(product, TCB));
    }
    if version >= 3 {
        put(
            0x188,
            match product {
                Product::Milan => &[0x19, 0x01, 1],
                Product::Genoa => &[0x19, 0x11, 1],
                Product::Turin => &[0x1a, 0x02, 1],
            },
        );
    }
    if kind == KeyKind::Vcek {
        put(0x1a0, &chip_id(product));
    }
    for offset in [0x1e8, 0x1ec] {
        put(offset, &[40, 55, 1]);
    }
    if version >= 5 {
        put(0x1f8, &[0x3f]);
        put(0x200, &[0x3f]);
    }
    report
}

fn vek_extensions(product: Product, kind: KeyKind) -> VekExtensions {
    let [fmc, boot_loader, tee, snp, microcode] = TCB.map(|level| der::integer(level.into()));
    let mut list = VekExtensions(Vec::new());
    list.set(&[1], der::integer(u32::from(product == Product::Turin)));
    list.set(&[2], der::ia5(product.name()));
    list.set(&[3, 1], boot_loader);
    list.set(&[3, 2], tee);
    list.set(&[3, 3], snp);
    list.set(&[3, 8], microcode);
    if product == Product::Turin {
        list.set(&[3, 9], fmc);
    }
    for reserved in 5..8 {
        list.set(&[3, reserved], der::integer(0));
    }
    match kind {
        KeyKind::Vcek => list.set(&[4], chip_id(product)),
        KeyKind::Vlek => list.set(&[5], der::ia5("CN=simulated.example")),
    }
    list
}
