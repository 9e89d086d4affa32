//! TDX v4 quotes; v5 and SGX quotes by drafts that tests change.

use cocoon_attestation::{Measurements, tdx};
use ring::digest::{SHA256, digest};

use crate::keys::AttestationKey;
use crate::pki::{self, SimulatedRoot};

/// Security versions of the simulated TDX module: ISVSVN 5 of major version 1.
pub(crate) const TEE_TCB_SVN: [u8; 16] = [5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// The quoting enclave's product and version.
pub(crate) const QE_PRODUCT: u16 = 2;
pub(crate) const QE_SVN: u16 = 4;
/// INIT, MODE64BIT.
pub(crate) const QE_ATTRIBUTES: [u8; 16] = [0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// SEPT_VE_DISABLE.
const HONEST_ATTRIBUTES: u64 = 1 << 28;
/// x87, SSE, AVX, AVX-512, PKRU, AMX.
const HONEST_XFAM: u64 = 0x602e7;
/// Authentication data as Intel's own enclave writes it: 0, 1, 2 …
const AUTH_DATA: usize = 32;

/// ASCII, padded with zeros.
pub(crate) fn label<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

pub(crate) fn module_signer() -> [u8; 48] {
    label("SIMULATED TDX MODULE SIGNER")
}

pub(crate) fn qe_signer() -> [u8; 32] {
    label("SIMULATED QE SIGNER")
}

/// What the TDX module knows about a TD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Td {
    /// TD attributes; honest ones have SEPT_VE_DISABLE only.
    pub attributes: u64,
    /// Extended features.
    pub xfam: u64,
    /// Registers.
    pub registers: Measurements,
}

impl Td {
    /// A TD launched as it should be.
    pub fn new(registers: Measurements) -> Self {
        Self { attributes: HONEST_ATTRIBUTES, xfam: HONEST_XFAM, registers }
    }

    fn report(&self, report_data: &[u8; 64]) -> Vec<u8> {
        let r = &self.registers;
        let mut out = TEE_TCB_SVN.to_vec();
        out.extend(label::<48>("SIMULATED TDX MODULE"));
        out.extend(module_signer());
        out.extend([0; 8]); // SEAM attributes
        out.extend(self.attributes.to_le_bytes());
        out.extend(self.xfam.to_le_bytes());
        for register in [&r.mrtd, &r.mrconfigid, &r.mrowner, &r.mrownerconfig].into_iter().chain(&r.rtmr) {
            out.extend(register);
        }
        out.extend(report_data);
        out
    }
}

/// A quote before it is signed. An honest one comes from [`Draft::honest`]; a test changes one thing in it, and what is
/// signed then is a genuine signature over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The 48-byte header.
    pub header: Vec<u8>,
    /// The TD report.
    pub body: Vec<u8>,
    /// The quoting enclave's report, 384 bytes.
    pub qe_report: Vec<u8>,
    /// What is hashed with the attestation key into the QE report.
    pub qe_auth_data: Vec<u8>,
}

impl Draft {
    /// What an honest platform writes for this TD.
    pub fn honest(td: &Td, report_data: &[u8; 64], key: &AttestationKey) -> Self {
        let qe_auth_data: Vec<u8> = (0..).take(AUTH_DATA).collect();
        let bound = digest(&SHA256, &[&key.public()[..], &qe_auth_data].concat());
        Self {
            header: header(),
            body: td.report(report_data),
            qe_report: qe_report(bound.as_ref()),
            qe_auth_data,
        }
    }
}

fn header() -> Vec<u8> {
    let mut out = Vec::with_capacity(48);
    out.extend(4_u16.to_le_bytes()); // version
    out.extend(2_u16.to_le_bytes()); // ECDSA P-256
    out.extend(0x81_u32.to_le_bytes()); // TDX
    out.extend([0; 4]); // QE and PCE SVN, unused in version 4
    out.extend(tdx::INTEL_VENDOR);
    out.extend(label::<20>("SIMULATED QE"));
    out
}

fn qe_report(bound: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(384);
    out.extend(pki::CPU_SVN);
    out.extend([0; 4 + 28]); // MISCSELECT, reserved
    out.extend(QE_ATTRIBUTES);
    out.extend(label::<32>("SIMULATED QE"));
    out.extend([0; 32]);
    out.extend(qe_signer());
    out.extend([0; 96]);
    out.extend(QE_PRODUCT.to_le_bytes());
    out.extend(QE_SVN.to_le_bytes());
    out.extend([0; 60]);
    out.extend(bound);
    out.resize(384, 0);
    out
}

impl SimulatedRoot {
    /// Signs a draft: the attestation key over header and body, the PCK over the QE report. Version 3 has the parts of the
    /// QE's certification without a wrapping.
    pub fn sign_quote(&self, draft: &Draft, key: &AttestationKey) -> Vec<u8> {
        let pki = &self.0;
        let chain = pki::pem(&[&pki.pck.certificate, &pki.pck_ca.certificate, &pki.root.certificate]);
        let mut qe = draft.qe_report.clone();
        qe.extend(pki.pck.key.sign_raw(&draft.qe_report));
        qe.extend(
            u16::try_from(draft.qe_auth_data.len()).expect("a test's auth data is small").to_le_bytes(),
        );
        qe.extend(&draft.qe_auth_data);
        qe.extend(certification(5, chain.as_bytes()));
        let mut quote = [&draft.header[..], &draft.body].concat();
        let mut data = key.0.sign_raw(&quote).to_vec();
        data.extend(key.public());
        if draft.header.first() == Some(&3) {
            data.extend(qe);
        } else {
            data.extend(certification(6, &qe));
        }
        quote.extend(length(&data));
        quote.extend(data);
        quote
    }
}

fn certification(kind: u16, content: &[u8]) -> Vec<u8> {
    let mut out = kind.to_le_bytes().to_vec();
    out.extend(length(content));
    out.extend(content);
    out
}

fn length(content: &[u8]) -> [u8; 4] {
    u32::try_from(content.len()).expect("a quote is a few KiB").to_le_bytes()
}
