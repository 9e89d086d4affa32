//! What a quote says: a TD report, or an enclave's.

use crate::Measurements;

/// Size of a TD report, version 1.0 (Intel TDX DCAP Quoting Library API, A.3.2).
pub(super) const TD_REPORT_10: usize = 584;
/// Size of a TD report, version 1.5.
pub(super) const TD_REPORT_15: usize = 648;
/// Size of a TD report, version 1.5 with the service TD's history (`sgx_report2_body_v1_5_ex_t`).
pub(super) const TD_REPORT_15_EX: usize = 885;
/// Size of an enclave's report (Intel SGX ECDSA Quote Library Reference, A.4).
pub(super) const ENCLAVE_REPORT: usize = 384;

/// What the quote's signature is about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one lives on the stack at a time; a box would cost more than the copy"
)]
pub enum Report {
    /// A TD report.
    Td(Body),
    /// An SGX enclave's report.
    Enclave(EnclaveReport),
}

impl Report {
    /// What the guest or enclave bound.
    pub fn report_data(&self) -> &[u8; 64] {
        match self {
            Self::Td(body) => &body.report_data,
            Self::Enclave(report) => &report.report_data,
        }
    }
}

/// A TD report of any version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Security versions of the TDX module when the TD started: ISVSVN, major version, then the processor's.
    pub tee_tcb_svn: [u8; 16],
    /// The same as they are now: a TDX module can be updated under a running TD. None in 1.0.
    pub tee_tcb_svn2: Option<[u8; 16]>,
    /// Measurement of the TDX module.
    pub mr_seam: [u8; 48],
    /// Who signed the TDX module; zero is Intel.
    pub mr_signer_seam: [u8; 48],
    /// Attributes of the TDX module.
    pub seam_attributes: [u8; 8],
    /// TD attributes, little endian.
    pub attributes: u64,
    /// Extended features the TD may use, little endian.
    pub xfam: u64,
    /// MRTD.
    pub mrtd: [u8; 48],
    /// MRCONFIGID.
    pub mrconfigid: [u8; 48],
    /// MROWNER.
    pub mrowner: [u8; 48],
    /// MROWNERCONFIG.
    pub mrownerconfig: [u8; 48],
    /// RTMR0 to RTMR3.
    pub rtmr: [[u8; 48]; 4],
    /// Report data: what the guest bound.
    pub report_data: [u8; 64],
    /// MRSERVICETD and, in 1.5ex, the service TD fields: all must be zero. Empty in 1.0.
    pub service_td: Vec<u8>,
}

impl Body {
    /// The registers that say what runs.
    pub fn registers(&self) -> Measurements {
        Measurements {
            mrtd: self.mrtd,
            rtmr: self.rtmr,
            mrconfigid: self.mrconfigid,
            mrowner: self.mrowner,
            mrownerconfig: self.mrownerconfig,
        }
    }

    /// Fields by their offset in the TD report; `bytes` is one of the three sizes.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let register = |at: usize| array::<48>(&bytes[at..at + 48]);
        Self {
            tee_tcb_svn: array(&bytes[0..16]),
            tee_tcb_svn2: (bytes.len() > TD_REPORT_10).then(|| array(&bytes[584..600])),
            mr_seam: register(16),
            mr_signer_seam: register(64),
            seam_attributes: array(&bytes[112..120]),
            attributes: u64::from_le_bytes(array(&bytes[120..128])),
            xfam: u64::from_le_bytes(array(&bytes[128..136])),
            mrtd: register(136),
            mrconfigid: register(184),
            mrowner: register(232),
            mrownerconfig: register(280),
            rtmr: [register(328), register(376), register(424), register(472)],
            report_data: array(&bytes[520..584]),
            service_td: service_td(bytes),
        }
    }
}

/// MRSERVICETD stands at 600..648. In 1.5ex follow vmid (1), td_id (32), dev_info (48), then the initial service TD's hash
/// and attributes (48 + 8), the initial TCB (16 + 16 + 12), and the current service TD's hash and attributes (48 + 8).
fn service_td(bytes: &[u8]) -> Vec<u8> {
    match bytes.len() {
        TD_REPORT_15 => bytes[600..648].to_vec(),
        TD_REPORT_15_EX => [&bytes[600..648], &bytes[729..785], &bytes[829..885]].concat(),
        _ => Vec::new(),
    }
}

/// An SGX enclave's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnclaveReport {
    /// Security versions of the processor.
    pub cpu_svn: [u8; 16],
    /// What the processor saves beside the registers, little endian.
    pub misc_select: [u8; 4],
    /// ISVEXTPRODID.
    pub isv_ext_prod_id: [u8; 16],
    /// Flags (8 bytes) and XFRM (8 bytes), little endian.
    pub attributes: [u8; 16],
    /// Measurement of the enclave.
    pub mr_enclave: [u8; 32],
    /// Who signed it.
    pub mr_signer: [u8; 32],
    /// CONFIGID.
    pub config_id: [u8; 64],
    /// ISVPRODID.
    pub isv_prod_id: u16,
    /// ISVSVN.
    pub isv_svn: u16,
    /// CONFIGSVN.
    pub config_svn: u16,
    /// ISVFAMILYID.
    pub isv_family_id: [u8; 16],
    /// What the enclave bound.
    pub report_data: [u8; 64],
    /// All bytes that must be zero are.
    pub(super) reserved_is_zero: bool,
}

impl EnclaveReport {
    /// Fields by their offset; `bytes` has 384.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let zero = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == 0);
        Self {
            cpu_svn: array(&bytes[0..16]),
            misc_select: array(&bytes[16..20]),
            isv_ext_prod_id: array(&bytes[32..48]),
            attributes: array(&bytes[48..64]),
            mr_enclave: array(&bytes[64..96]),
            mr_signer: array(&bytes[128..160]),
            config_id: array(&bytes[192..256]),
            isv_prod_id: u16_at(bytes, 256),
            isv_svn: u16_at(bytes, 258),
            config_svn: u16_at(bytes, 260),
            isv_family_id: array(&bytes[304..320]),
            report_data: array(&bytes[320..384]),
            reserved_is_zero: zero(20..32) && zero(96..128) && zero(160..192) && zero(262..304),
        }
    }

    /// The flags: bit 0 INIT, bit 1 DEBUG, and others.
    pub fn flags(&self) -> u64 {
        u64::from_le_bytes(array(&self.attributes[..8]))
    }
}

pub(super) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller slices exactly N bytes")
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(&bytes[at..at + 2]))
}
