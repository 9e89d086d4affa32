//! The quote, byte by byte: nothing in it is left unaccounted for (Intel TDX DCAP Quoting Library API, A.3 for versions 4
//! and 5; Intel SGX ECDSA Quote Library Reference, A.4 for version 3).
//!
//! | part | bytes | content |
//! | --- | --- | --- |
//! | header | 48 | version, key type, TEE type, QE/PCE SVN, QE vendor, user data |
//! | body descriptor | 6 | version 5 only: body type u16, size u32 |
//! | body | 384, 584, 648, 885 | enclave report, TD report 1.0, 1.5, 1.5ex |
//! | length | 4 | of the rest up to the padding |
//! | signature, attestation key | 64, 64 | ECDSA P-256 over header to body |
//! | certification type, length | 2, 4 | not in version 3. 6: QE report certification data |
//! | QE report, its signature | 384, 64 | by the PCK |
//! | authentication data | 2 + n | hashed into the QE report |
//! | certification type, length | 2, 4 | 5: PCK chain in PEM |
//! | padding | any | zero |

use super::body::{
    Body, ENCLAVE_REPORT, EnclaveReport, Report, TD_REPORT_10, TD_REPORT_15, TD_REPORT_15_EX, array, u16_at,
};
use crate::{Malformed, pem};

/// The largest quote, padding included, in bytes.
pub const MAX_QUOTE: usize = 16 * 1024;
/// Intel's QE vendor id.
pub const INTEL_VENDOR: [u8; 16] =
    [0x93, 0x9A, 0x72, 0x33, 0xF7, 0x9C, 0x4C, 0xA9, 0x94, 0x0A, 0x0D, 0xB3, 0x95, 0x7F, 0x06, 0x07];

const WHAT: &str = "Intel quote";
const HEADER: usize = 48;
/// TEE type of SGX, in the header.
pub(super) const SGX: u32 = 0;
/// TEE type of TDX.
pub(super) const TDX: u32 = 0x81;
const QE_CERTIFICATION: u16 = 6;
const PCK_CHAIN: u16 = 5;
/// How the PCK chain in a quote may end.
pub(super) const CHAIN_ENDINGS: [&str; 3] = ["", "\n", "\n\0"];

/// An SGX or TDX quote taken apart, in place. Nothing in it is believed yet.
#[derive(Debug)]
pub struct Quote<'a> {
    /// 3, 4 or 5.
    pub version: u16,
    /// 2 is ECDSA P-256.
    pub attestation_key_type: u16,
    /// 0 is SGX, 0x81 is TDX.
    pub tee_type: u32,
    /// Who wrote the quoting enclave.
    pub vendor: [u8; 16],
    /// Header to body: what the quote's signature covers.
    pub signed: &'a [u8],
    /// What the quote says about the TD or enclave.
    pub report: Report,
    /// ECDSA signature (r ‖ s) over `signed`.
    pub signature: &'a [u8],
    /// Everything after that signature: who may make it.
    pub certified: &'a [u8],
    /// Public attestation key (x ‖ y).
    pub attestation_key: &'a [u8],
    /// Report of the quoting enclave, signed by the PCK.
    pub qe_report: &'a [u8],
    /// That signature (r ‖ s).
    pub qe_report_signature: &'a [u8],
    /// Data hashed with the attestation key into the QE report.
    pub qe_auth_data: &'a [u8],
    /// PCK chain as it stands in the quote, in PEM: see [`Quote::pck_chain`].
    pub pck_chain_text: &'a [u8],
}

impl<'a> Quote<'a> {
    /// Takes a quote of version 3 (SGX), 4 or 5 apart. The PCK chain is left as text.
    ///
    /// # Errors
    /// If a length is not exact, a part is of another kind, or bytes other than zero follow.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_QUOTE {
            let reason = format!("{} bytes, at most {MAX_QUOTE}", bytes.len());
            return Err(Malformed::at(WHAT, 0, "length", reason));
        }
        let mut reader = Reader { bytes, at: 0 };
        let header = reader.take(HEADER, "header")?;
        let (version, tee_type) = (u16_at(header, 0), u32::from_le_bytes(array(&header[4..8])));
        let report = report(version, tee_type, &mut reader)?;
        let signed = &bytes[..reader.at];
        let mut data = reader.counted_u32("signature data")?;
        reader.padding()?;
        let signature = data.take(64, "signature")?;
        let certified = data.bytes;
        let attestation_key = data.take(64, "attestation key")?;
        let mut qe = match version {
            3 => data,
            _ => {
                let qe = data.certification(QE_CERTIFICATION, "QE certification")?;
                data.end("signature data")?;
                qe
            }
        };
        let (qe_report, qe_report_signature) =
            (qe.take(ENCLAVE_REPORT, "QE report")?, qe.take(64, "QE report signature")?);
        let qe_auth_data = qe.counted_u16("QE authentication data")?;
        let pck_chain_text = qe.certification(PCK_CHAIN, "PCK chain")?.bytes;
        qe.end("QE certification")?;
        Ok(Self {
            version,
            attestation_key_type: u16_at(header, 2),
            tee_type,
            vendor: array(&header[12..28]),
            signed,
            report,
            signature,
            certified,
            attestation_key,
            qe_report,
            qe_report_signature,
            qe_auth_data,
            pck_chain_text,
        })
    }

    /// The certificates (DER) of the PCK chain: leaf, intermediate, root, if it is as it should be.
    ///
    /// # Errors
    /// If the text is not PEM in the one form Intel writes.
    pub fn pck_chain(&self) -> Result<Vec<Vec<u8>>, Malformed> {
        pem::chain(self.pck_chain_text, &CHAIN_ENDINGS).map_err(|reason| Malformed {
            what: WHAT,
            offset: None,
            field: "PCK chain",
            reason,
        })
    }
}

/// The body of one of the kinds that the version has (A.3.1: version 4 by the TEE type, version 5 by a descriptor).
fn report(version: u16, tee_type: u32, reader: &mut Reader<'_>) -> Result<Report, Malformed> {
    let wrong = |reader: &Reader<'_>, reason: String| reader.error("body", reason);
    let size = match (version, tee_type) {
        (3 | 4, SGX) => ENCLAVE_REPORT,
        (4, TDX) => TD_REPORT_10,
        (5, SGX | TDX) => {
            let descriptor = reader.take(6, "body descriptor")?;
            let size = match (u16_at(descriptor, 0), tee_type) {
                (1, SGX) => ENCLAVE_REPORT,
                (2, TDX) => TD_REPORT_10,
                (3, TDX) => TD_REPORT_15,
                (4, TDX) => TD_REPORT_15_EX,
                (other, _) => {
                    return Err(wrong(reader, format!("body type {other} with TEE type {tee_type:#x}")));
                }
            };
            let stated = u32::from_le_bytes(array(&descriptor[2..6]));
            if stated as usize != size {
                return Err(wrong(reader, format!("body of {stated} bytes, must be {size}")));
            }
            size
        }
        (3, _) => return Err(Malformed::at(WHAT, 4, "TEE type", format!("{tee_type:#x} in version 3"))),
        (4 | 5, _) => {
            return Err(Malformed::at(WHAT, 4, "TEE type", format!("{tee_type:#x}, must be 0 or 0x81")));
        }
        _ => return Err(Malformed::at(WHAT, 0, "version", format!("{version}, must be 3, 4 or 5"))),
    };
    let bytes = reader.take(size, "body")?;
    Ok(match tee_type {
        SGX => Report::Enclave(EnclaveReport::parse(bytes)),
        _ => Report::Td(Body::parse(bytes)),
    })
}

/// Bytes, and where they begin in the quote.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, field: &'static str, reason: String) -> Malformed {
        Malformed::at(WHAT, self.at, field, reason)
    }

    fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let Some((taken, rest)) = self.bytes.split_at_checked(length) else {
            return Err(self.error(field, format!("{length} bytes announced, {} left", self.bytes.len())));
        };
        (self.bytes, self.at) = (rest, self.at + length);
        Ok(taken)
    }

    fn counted_u16(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let length = u16_at(self.take(2, field)?, 0);
        self.take(length.into(), field)
    }

    fn counted_u32(&mut self, field: &'static str) -> Result<Self, Malformed> {
        let length = u32::from_le_bytes(array(self.take(4, field)?));
        let at = self.at;
        // On a platform of 16 bits, what does not fit is more than is left.
        let bytes = self.take(usize::try_from(length).unwrap_or(usize::MAX), field)?;
        Ok(Self { bytes, at })
    }

    fn certification(&mut self, kind: u16, field: &'static str) -> Result<Self, Malformed> {
        let got = u16_at(self.take(2, field)?, 0);
        if got != kind {
            return Err(self.error(field, format!("certification data of type {got}, must be {kind}")));
        }
        self.counted_u32(field)
    }

    fn end(&self, field: &'static str) -> Result<(), Malformed> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(self.error(field, format!("{left} bytes left over"))),
        }
    }

    fn padding(&self) -> Result<(), Malformed> {
        match self.bytes.iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(at) => {
                Err(Malformed::at(WHAT, self.at + at, "padding", "bytes after the quote that are not zero"))
            }
        }
    }
}
