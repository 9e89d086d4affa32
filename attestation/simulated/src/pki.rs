//! Certificates and CRLs, shaped like Intel's.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::UnixTime;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::der;
use crate::keys::{Key, random};

/// The simulated platform's family: ASCII where Intel has numbers.
pub(crate) const FMSPC: [u8; 6] = *b"SIMTDX";
/// Intel's one PCEID.
pub(crate) const PCE_ID: [u8; 2] = [0, 0];
/// Security versions the simulated platform has.
pub(crate) const CPU_SVN: [u8; 16] = [3, 3, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
pub(crate) const PCE_SVN: u16 = 11;

const ROOT_NAME: &str = "SIMULATED SGX Root CA";
const PCK_CA_NAME: &str = "SIMULATED SGX PCK Platform CA";
const PCK_NAME: &str = "SIMULATED SGX PCK Certificate";
const TCB_SIGNER_NAME: &str = "SIMULATED SGX TCB Signing";

const DAY: u64 = 86_400;
const CA_DAYS: u64 = 30 * 365;
const LEAF_DAYS: u64 = 7 * 365;
const CRL_DAYS: u64 = 30;

/// 1.2.840.113741.1.13.1: Intel's SGX extension.
const SGX: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];

/// An Intel-like PKI under a root of its own. Cloning shares the keys.
#[derive(Clone)]
pub struct SimulatedRoot(pub(crate) Arc<Pki>);

pub(crate) struct Pki {
    pub(crate) root: Authority,
    pub(crate) pck_ca: Authority,
    pub(crate) pck: Authority,
    pub(crate) tcb_signer: Authority,
}

/// A certificate with its key.
pub(crate) struct Authority {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Key,
}

/// What stands in the certificates that an issuer could get wrong. A test changes one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Common name of the platform's certificate.
    pub pck_name: &'static str,
    /// Common name of the certificate that signs TCB info and QE identity.
    pub tcb_signer_name: &'static str,
    /// Intel's SGX extension in DER.
    pub sgx_extension: Vec<u8>,
}

/// Who is on a revocation list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// The platform's PCK, on the PCK CA's list.
    Platform,
    /// The PCK CA, on the root's list.
    PckCa,
    /// The signer of TCB info and QE identity, on the root's list.
    TcbSigner,
}

impl SimulatedRoot {
    /// A fresh root with everything under it. Certificates are valid from a day before `now`.
    pub fn create(now: UnixTime) -> Self {
        Self::create_with(now, |_| ())
    }

    /// The same, with what `change` changes in the certificates before they are signed.
    pub fn create_with(now: UnixTime, change: impl FnOnce(&mut Profile)) -> Self {
        let mut profile = Profile {
            pck_name: PCK_NAME,
            tcb_signer_name: TCB_SIGNER_NAME,
            sgx_extension: sgx_extension(&random_ppid()),
        };
        change(&mut profile);
        let from = UnixTime(now.0.saturating_sub(DAY));
        let root = Key::generate();
        let root_certificate = Template::authority(ROOT_NAME, 1, from).sign(ROOT_NAME, &root, &root);
        let pck_ca = Key::generate();
        let pck_ca_certificate = Template::authority(PCK_CA_NAME, 0, from).sign(ROOT_NAME, &pck_ca, &root);
        let tcb_signer = Key::generate();
        let tcb_certificate =
            Template::leaf(profile.tcb_signer_name, from, None).sign(ROOT_NAME, &tcb_signer, &root);
        let pck = Key::generate();
        let pck_certificate = Template::leaf(profile.pck_name, from, Some(profile.sgx_extension)).sign(
            PCK_CA_NAME,
            &pck,
            &pck_ca,
        );
        Self(Arc::new(Pki {
            root: Authority { certificate: root_certificate, key: root },
            pck_ca: Authority { certificate: pck_ca_certificate, key: pck_ca },
            pck: Authority { certificate: pck_certificate, key: pck },
            tcb_signer: Authority { certificate: tcb_certificate, key: tcb_signer },
        }))
    }

    /// The root certificate, for [`cocoon_attestation::TrustAnchors::with_simulated_root`].
    pub fn root_der(&self) -> &[u8] {
        &self.0.root.certificate
    }

    /// Root and PCK CRLs issued an hour before `now`, in this order.
    pub(crate) fn crls(&self, now: UnixTime, revoked: Option<Revoked>) -> (Vec<u8>, Vec<u8>) {
        let pki = &self.0;
        let (by_root, by_ca) = match revoked {
            None => (vec![], vec![]),
            Some(Revoked::Platform) => (vec![], vec![serial(&pki.pck.key)]),
            Some(Revoked::PckCa) => (vec![serial(&pki.pck_ca.key)], vec![]),
            Some(Revoked::TcbSigner) => (vec![serial(&pki.tcb_signer.key)], vec![]),
        };
        (crl(ROOT_NAME, &pki.root.key, now, &by_root), crl(PCK_CA_NAME, &pki.pck_ca.key, now, &by_ca))
    }
}

/// Sixteen bytes that say what they are, and still tell platforms apart.
fn random_ppid() -> [u8; 16] {
    let mut ppid = random::<16>();
    ppid[..9].copy_from_slice(b"SIMULATED");
    ppid
}

struct Template {
    subject: &'static str,
    from: UnixTime,
    days: u64,
    extensions: Vec<Vec<u8>>,
}

impl Template {
    fn authority(subject: &'static str, path_length: u8, from: UnixTime) -> Self {
        let constraints = der::sequence(&[der::boolean(true), der::integer(&[path_length])]);
        let extensions = vec![
            der::extension(KEY_USAGE, true, &der::bits(&[0b0000_0110], 1)), // keyCertSign, cRLSign
            der::extension(BASIC_CONSTRAINTS, true, &constraints),
        ];
        Self { subject, from, days: CA_DAYS, extensions }
    }

    fn leaf(subject: &'static str, from: UnixTime, sgx: Option<Vec<u8>>) -> Self {
        let mut extensions = vec![
            der::extension(KEY_USAGE, true, &der::bits(&[0b1100_0000], 6)), // digitalSignature, nonRepudiation
            der::extension(BASIC_CONSTRAINTS, true, &der::sequence(&[])),
        ];
        extensions.extend(sgx.map(|value| der::extension(&SGX, false, &value)));
        Self { subject, from, days: LEAF_DAYS, extensions }
    }

    fn sign(self, issuer: &str, subject_key: &Key, issuer_key: &Key) -> Vec<u8> {
        let until = UnixTime(self.from.0 + self.days * DAY);
        let mut extensions = vec![
            authority_key_id(issuer_key),
            der::extension(SUBJECT_KEY_ID, false, &der::octets(&key_id(subject_key))),
        ];
        extensions.extend(self.extensions);
        let to_be_signed = der::sequence(&[
            der::context(0, &der::integer(&[2])), // version 3
            serial(subject_key),
            der::algorithm(),
            der::name(issuer),
            der::sequence(&[der::time(self.from), der::time(until)]),
            der::name(self.subject),
            der::public_key(subject_key.public()),
            der::context(3, &der::sequence(&extensions)),
        ]);
        signed(to_be_signed, issuer_key)
    }
}

fn signed(to_be_signed: Vec<u8>, key: &Key) -> Vec<u8> {
    let signature = der::bits(&key.sign_der(&to_be_signed), 0);
    der::sequence(&[to_be_signed, der::algorithm(), signature])
}

/// SHA-1 of the public key: RFC 5280's first method, a name and no proof.
fn key_id(key: &Key) -> Vec<u8> {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, key.public()).as_ref().to_vec()
}

/// Serial numbers are named by the key, so that they need not be kept.
fn serial(key: &Key) -> Vec<u8> {
    let mut id = key_id(key);
    id[0] = 0x40 | (id[0] & 0x3f); // positive, and never with a leading zero
    der::integer(&id)
}

fn authority_key_id(issuer: &Key) -> Vec<u8> {
    let value = der::sequence(&[der::context_primitive(0, &key_id(issuer))]);
    der::extension(AUTHORITY_KEY_ID, false, &value)
}

fn crl(issuer: &str, key: &Key, now: UnixTime, revoked: &[Vec<u8>]) -> Vec<u8> {
    let issued = UnixTime(now.0.saturating_sub(3_600));
    let entries: Vec<Vec<u8>> =
        revoked.iter().map(|serial| der::sequence(&[serial.clone(), der::time(issued)])).collect();
    let extensions = [der::extension(CRL_NUMBER, false, &der::integer(&[1])), authority_key_id(key)];
    let to_be_signed = der::sequence(&[
        der::integer(&[1]), // version 2
        der::algorithm(),
        der::name(issuer),
        der::time(issued),
        der::time(UnixTime(now.0 + CRL_DAYS * DAY)),
        if entries.is_empty() { Vec::new() } else { der::sequence(&entries) },
        der::context(0, &der::sequence(&extensions)),
    ]);
    signed(to_be_signed, key)
}

fn sgx_extension(ppid: &[u8; 16]) -> Vec<u8> {
    let id = |path: &[u8]| der::oid(&[&SGX, path].concat());
    let field = |path: &[u8], value: Vec<u8>| der::sequence(&[id(path), value]);
    let mut tcb: Vec<Vec<u8>> =
        (1..).zip(CPU_SVN).map(|(component, svn)| field(&[2, component], der::integer(&[svn]))).collect();
    tcb.push(field(&[2, 17], der::integer(&PCE_SVN.to_be_bytes())));
    tcb.push(field(&[2, 18], der::octets(&CPU_SVN)));
    let flag = |number: u8| field(&[7, number], der::boolean(true));
    der::sequence(&[
        field(&[1], der::octets(ppid)),
        field(&[2], der::sequence(&tcb)),
        field(&[3], der::octets(&PCE_ID)),
        field(&[4], der::octets(&FMSPC)),
        field(&[5], der::enumerated(1)), // scalable
        field(&[6], der::octets(b"SIMULATED HOST 0")),
        field(&[7], der::sequence(&[flag(1), flag(2), flag(3)])), // dynamic platform, cached keys, SMT: as in clouds
    ])
}

/// Certificates in PEM, each line of 64 characters and every line ended.
pub(crate) fn pem(certificates: &[&[u8]]) -> String {
    let mut out = String::new();
    for der in certificates {
        out.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in STANDARD.encode(der).as_bytes().chunks(64) {
            out.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            out.push('\n');
        }
        out.push_str("-----END CERTIFICATE-----\n");
    }
    out
}
