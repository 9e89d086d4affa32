//! The TDX quote, byte by byte: nothing in it is left unaccounted for.
//!
//! | part | bytes | content |
//! | --- | --- | --- |
//! | header | 48 | version, key type, TEE type, QE/PCE SVN, QE vendor, user data |
//! | body descriptor | 6 | version 5 only: body type u16, size u32 |
//! | body | 584, 648, 885 | TD report 1.0, 1.5, 1.5ex |
//! | length | 4 | of the rest up to the padding |
//! | signature, attestation key | 64, 64 | ECDSA P-256 over header to body |
//! | certification type, length | 2, 4 | 6: QE report certification data |
//! | QE report, its signature | 384, 64 | by the PCK |
//! | authentication data | 2 + n | hashed into the QE report |
//! | certification type, length | 2, 4 | 5: PCK chain in PEM |
//! | padding | any | zero |

use crate::{Malformed, Measurements, pem};

/// The largest quote, padding included, in bytes.
pub const MAX_QUOTE: usize = 16 * 1024;
/// Intel's QE vendor id.
pub const INTEL_VENDOR: [u8; 16] =
    [0x93, 0x9A, 0x72, 0x33, 0xF7, 0x9C, 0x4C, 0xA9, 0x94, 0x0A, 0x0D, 0xB3, 0x95, 0x7F, 0x06, 0x07];

const HEADER: usize = 48;
const TD_REPORT_10: usize = 584;
const TD_REPORT_15: usize = 648;
const TD_REPORT_15_EX: usize = 885;
const QE_REPORT: usize = 384;
/// Every quoting enclave seen uses 32 bytes, and DCAP's own verifier demands them.
const QE_AUTH_DATA: usize = 32;
const QE_CERTIFICATION: u16 = 6;
const PCK_CHAIN: u16 = 5;
/// How the PCK chain in a quote may end.
const CHAIN_ENDINGS: [&str; 2] = ["\n", "\n\0"];

/// A TDX quote taken apart. Nothing in it is believed yet.
pub struct Quote<'a> {
    /// 4 or 5.
    pub version: u16,
    /// 2 is ECDSA P-256.
    pub attestation_key_type: u16,
    /// 0x81 is TDX.
    pub tee_type: u32,
    /// Who wrote the quoting enclave.
    pub vendor: [u8; 16],
    /// Header to body: what the quote's signature covers.
    pub signed: &'a [u8],
    /// What the quote says about the TD.
    pub body: Body,
    /// ECDSA signature (r ‖ s) over `signed`.
    pub signature: &'a [u8],
    /// Public attestation key (x ‖ y).
    pub attestation_key: &'a [u8],
    /// Report of the quoting enclave, signed by the PCK.
    pub qe_report: &'a [u8],
    /// Data hashed with the attestation key into the QE report.
    pub qe_auth_data: &'a [u8],
    /// PCK chain as it stands in the quote.
    pub pck_chain_text: &'a [u8],
    /// PCK chain: leaf, intermediate, root, in DER.
    pub pck_chain: Vec<Vec<u8>>,
}

/// A TD report of any version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Security versions of the TDX module.
    pub tee_tcb_svn: [u8; 16],
    /// Measurement of the TDX module.
    pub mr_seam: [u8; 48],
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
}

impl<'a> Quote<'a> {
    /// Takes a quote of version 4 or 5 apart.
    ///
    /// # Errors
    /// If a length is not exact, a part is of another kind, or bytes other than zero follow.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_QUOTE {
            return Err(malformed(format!("{} bytes, at most {MAX_QUOTE}", bytes.len())));
        }
        let mut reader = Reader(bytes);
        let header = reader.take(HEADER, "header")?;
        let version = u16_at(header, 0);
        let body = body(version, &mut reader)?;
        let signed = &bytes[..bytes.len() - reader.0.len()];
        let mut data = reader.counted_u32("signature data")?;
        if reader.0.iter().any(|byte| *byte != 0) {
            return Err(malformed(format!("{} trailing bytes that are not all zero", reader.0.len())));
        }
        let (signature, attestation_key) = (data.take(64, "signature")?, data.take(64, "attestation key")?);
        let mut qe = data.certification(QE_CERTIFICATION, "QE certification")?;
        data.end("signature data")?;
        let (qe_report, _signature) = (qe.take(QE_REPORT, "QE report")?, qe.take(64, "QE report signature")?);
        let qe_auth_data = qe.counted_u16("QE authentication data")?;
        if qe_auth_data.len() != QE_AUTH_DATA {
            let got = qe_auth_data.len();
            return Err(malformed(format!("QE authentication data of {got} bytes, must be {QE_AUTH_DATA}")));
        }
        let pck_chain_text = qe.certification(PCK_CHAIN, "PCK chain")?.0;
        qe.end("QE certification")?;
        Ok(Self {
            version,
            attestation_key_type: u16_at(header, 2),
            tee_type: u32::from_le_bytes(array(&header[4..8])),
            vendor: array(&header[12..28]),
            signed,
            body,
            signature,
            attestation_key,
            qe_report,
            qe_auth_data,
            pck_chain_text,
            pck_chain: pem::chain(pck_chain_text, &CHAIN_ENDINGS).map_err(malformed)?,
        })
    }
}

fn body(version: u16, reader: &mut Reader<'_>) -> Result<Body, Malformed> {
    let size = match version {
        4 => TD_REPORT_10,
        5 => {
            let descriptor = reader.take(6, "body descriptor")?;
            let size = match u16_at(descriptor, 0) {
                2 => TD_REPORT_10,
                3 => TD_REPORT_15,
                4 => TD_REPORT_15_EX,
                other => return Err(malformed(format!("body type {other} is not a TD report"))),
            };
            let stated = u32::from_le_bytes(array(&descriptor[2..6]));
            if stated as usize != size {
                return Err(malformed(format!("body of {stated} bytes, must be {size}")));
            }
            size
        }
        other => return Err(malformed(format!("version {other}, must be 4 or 5"))),
    };
    Ok(td_report(reader.take(size, "TD report")?))
}

/// Fields by their offset in the TD report; `bytes` is one of the three sizes.
fn td_report(bytes: &[u8]) -> Body {
    let register = |at: usize| array::<48>(&bytes[at..at + 48]);
    Body {
        tee_tcb_svn: array(&bytes[0..16]),
        mr_seam: register(16),
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

/// MRSERVICETD stands at 600..648. In 1.5ex follow vmid (1), td_id (32), dev_info (48), then the initial service TD's hash
/// and attributes (48 + 8), the initial TCB (16 + 16 + 12), and the current service TD's hash and attributes (48 + 8).
fn service_td(bytes: &[u8]) -> Vec<u8> {
    match bytes.len() {
        TD_REPORT_15 => bytes[600..648].to_vec(),
        TD_REPORT_15_EX => [&bytes[600..648], &bytes[729..785], &bytes[829..885]].concat(),
        _ => Vec::new(),
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| malformed(format!("{what} of {length} bytes, {} left", self.0.len())))?;
        self.0 = rest;
        Ok(taken)
    }

    fn counted_u16(&mut self, what: &str) -> Result<&'a [u8], Malformed> {
        let length = u16_at(self.take(2, what)?, 0);
        self.take(length.into(), what)
    }

    fn counted_u32(&mut self, what: &str) -> Result<Reader<'a>, Malformed> {
        let length = u32::from_le_bytes(array(self.take(4, what)?));
        let length = usize::try_from(length).map_err(|_| malformed(format!("{what} of {length} bytes")))?;
        self.take(length, what).map(Reader)
    }

    fn certification(&mut self, kind: u16, what: &str) -> Result<Reader<'a>, Malformed> {
        let got = u16_at(self.take(2, what)?, 0);
        if got != kind {
            return Err(malformed(format!("{what} is of type {got}, must be {kind}")));
        }
        self.counted_u32(what)
    }

    fn end(&self, what: &str) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(malformed(format!("{left} bytes left over in {what}"))),
        }
    }
}

fn malformed(reason: impl Into<String>) -> Malformed {
    Malformed::new("TDX quote", reason)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller slices exactly N bytes")
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(&bytes[at..at + 2]))
}
