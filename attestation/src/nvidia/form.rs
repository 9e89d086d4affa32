//! The forms in which NVIDIA's evidence travels.
//!
//! - one device's SPDM report, binary or as hex text; its certificates come from the endorsements;
//! - the JSON of NVIDIA's attestation-sdk and nvtrust (`GpuEvidence::to_json`, `collect_gpu_evidence_remote`): a list of
//!   `{arch, certificate, evidence, nonce, …}`, or one such object;
//! - the request to NVIDIA's remote attestation service (`NRASAttestRequestV4`): `{nonce, arch, evidence_list: […]}`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::spdm::{MAGIC, MAX_REPORT};
use crate::{GpuRecord, Malformed, pem};

/// Most devices in one piece of evidence: a rack of 72 GPUs, and room.
pub const MAX_DEVICES: usize = 80;
/// The largest evidence in JSON, in bytes.
pub const MAX_JSON: usize = 2 * 1024 * 1024;
/// The largest chain of one device, in bytes of PEM.
const MAX_CHAIN: usize = 32 * 1024;

const WHAT: &str = "NVIDIA evidence";

/// Evidence of GPUs and switches. Nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub(super) devices: Vec<Device>,
}

/// One device's evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What the sender calls it, if it does: compared with the certificates.
    pub(super) architecture: Option<String>,
    pub(super) report: Vec<u8>,
    /// In DER, in any order. None: they are among the endorsements.
    pub(super) certificates: Vec<Vec<u8>>,
    /// The challenge that the sender says was answered.
    pub(super) nonce: Option<[u8; 32]>,
    pub(super) driver_version: Option<String>,
    pub(super) vbios_version: Option<String>,
}

impl Device {
    /// A device as a driver gives its parts: the architecture's name (empty if it is not known), the SPDM report, and the
    /// certificate chain in PEM.
    ///
    /// # Errors
    /// If the report is empty or longer than 16 KiB, or the chain is not PEM of at most 32 KiB.
    pub fn new(architecture: &str, report: &[u8], certificates: &[u8]) -> Result<Self, Malformed> {
        if report.is_empty() || report.len() > MAX_REPORT {
            let reason = format!("{} bytes, 1 to {MAX_REPORT}", report.len());
            return Err(Malformed::at(WHAT, 0, "report", reason));
        }
        if certificates.len() > MAX_CHAIN {
            let reason = format!("{} bytes, at most {MAX_CHAIN}", certificates.len());
            return Err(Malformed::at(WHAT, 0, "certificate", reason));
        }
        // The driver's buffer is a C string: zero bytes may follow.
        let end = certificates.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Ok(Self {
            architecture: Some(architecture.to_owned()).filter(|name| !name.is_empty()),
            certificates: pem::blocks(&certificates[..end])?,
            ..Self::raw(report)
        })
    }

    /// Its SPDM report.
    pub(crate) fn report(&self) -> &[u8] {
        &self.report
    }

    /// Its certificates in DER, as they came with the report.
    pub(crate) fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// A report whose certificates are among the endorsements.
    fn raw(report: &[u8]) -> Self {
        Self {
            architecture: None,
            report: report.to_vec(),
            certificates: Vec::new(),
            nonce: None,
            driver_version: None,
            vbios_version: None,
        }
    }
}

impl Evidence {
    /// Takes 1 to [`MAX_DEVICES`] devices.
    ///
    /// # Errors
    /// For none, or more.
    pub fn new(devices: Vec<Device>) -> Result<Self, Malformed> {
        if devices.is_empty() || devices.len() > MAX_DEVICES {
            return Err(Malformed::new(WHAT, format!("{} devices, 1 to {MAX_DEVICES}", devices.len())));
        }
        Ok(Self { devices })
    }

    /// The devices, in the order in which they were given.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Do the bytes look like any of these forms? JSON does only if it speaks of a GPU's certificate and evidence.
    pub(crate) fn looks_like(bytes: &[u8]) -> bool {
        let text = bytes.trim_ascii_start();
        let named = |name: &[u8]| bytes.windows(name.len()).take(MAX_JSON).any(|part| part == name);
        bytes.starts_with(&MAGIC)
            || is_hex(text)
            || (text.starts_with(b"[") || text.starts_with(b"{"))
                && (named(b"\"evidence\"") && named(b"\"certificate\"") || named(b"\"evidence_list\""))
    }

    /// Reads any of the forms.
    ///
    /// # Errors
    /// With the place at which reading failed.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let text = bytes.trim_ascii();
        if bytes.starts_with(&MAGIC) {
            return raw(bytes);
        }
        if !is_hex(text) {
            return json(bytes);
        }
        raw(&from_hex(text).map_err(|e| Malformed::new(WHAT, format!("not hex: {e}")))?)
    }

    /// A bundle's records.
    pub(crate) fn of_records(records: &[Vec<u8>]) -> Result<Self, Malformed> {
        let device = |record: &Vec<u8>| {
            let GpuRecord { architecture, report, certificates } = GpuRecord::decode(record)?;
            Device::new(&architecture, &report, &certificates)
        };
        Self::new(records.iter().map(device).collect::<Result<_, _>>()?)
    }
}

fn raw(report: &[u8]) -> Result<Evidence, Malformed> {
    if report.len() > MAX_REPORT {
        return Err(Malformed::at(
            WHAT,
            0,
            "report",
            format!("{} bytes, at most {MAX_REPORT}", report.len()),
        ));
    }
    Evidence::new(vec![Device::raw(report)])
}

/// Hex of either case, with or without `0x`, in one line or several. What is too long is cut: it is too long after it, too.
fn from_hex(text: &[u8]) -> Result<Vec<u8>, hex::FromHexError> {
    let text = text.strip_prefix(b"0x").unwrap_or(text);
    let digits = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace());
    hex::decode(digits.take(2 * MAX_REPORT + 2).collect::<Vec<u8>>())
}

/// Hex of a report's first two bytes.
fn is_hex(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"0x").unwrap_or(text);
    text.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"11e0"))
}

/// What NVIDIA's tools write. Fields that they do not write are refused: nothing would say what they mean.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    arch: Option<String>,
    certificate: String,
    evidence: String,
    nonce: Option<String>,
    driver_version: Option<String>,
    vbios_version: Option<String>,
    version: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    nonce: String,
    arch: Option<String>,
    #[serde(rename = "claims_version")]
    _claims_version: Option<String>,
    evidence_list: Vec<Entry>,
}

fn json(bytes: &[u8]) -> Result<Evidence, Malformed> {
    if bytes.len() > MAX_JSON {
        return Err(Malformed::at(WHAT, 0, "length", format!("{} bytes, at most {MAX_JSON}", bytes.len())));
    }
    let not_json = |error: serde_json::Error| Malformed::new(WHAT, format!("not NVIDIA's JSON: {error}"));
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(not_json)?;
    let entries: Vec<Entry> = if value.is_array() {
        serde_json::from_slice(bytes).map_err(not_json)?
    } else if value.get("evidence_list").is_some() {
        let request: Request = serde_json::from_slice(bytes).map_err(not_json)?;
        let inherit = |entry: Entry| Entry {
            nonce: entry.nonce.or_else(|| Some(request.nonce.clone())),
            arch: entry.arch.or_else(|| request.arch.clone()),
            ..entry
        };
        request.evidence_list.into_iter().map(inherit).collect()
    } else {
        vec![serde_json::from_slice(bytes).map_err(not_json)?]
    };
    if entries.len() > MAX_DEVICES {
        return Err(Malformed::new(WHAT, format!("{} devices, 1 to {MAX_DEVICES}", entries.len())));
    }
    Evidence::new(entries.into_iter().map(Entry::device).collect::<Result<_, _>>()?)
}

impl Entry {
    fn device(self) -> Result<Device, Malformed> {
        if self.version.as_deref().is_some_and(|version| version != "1.0") {
            return Err(Malformed::new(WHAT, format!("version {:?}, this verifier knows 1.0", self.version)));
        }
        let decode = |field, text: &str| {
            STANDARD.decode(text).map_err(|e| Malformed::new(WHAT, format!("{field} is not base64: {e}")))
        };
        let mut report = decode("evidence", &self.evidence)?;
        if is_hex(&report) {
            report = from_hex(report.trim_ascii())
                .map_err(|e| Malformed::new(WHAT, format!("evidence is not hex: {e}")))?;
        }
        let certificates = decode("certificate", &self.certificate)?;
        let mut device = Device::new(self.arch.as_deref().unwrap_or_default(), &report, &certificates)?;
        device.nonce = self.nonce.as_deref().map(nonce).transpose()?;
        device.driver_version = self.driver_version;
        device.vbios_version = self.vbios_version;
        Ok(device)
    }
}

fn nonce(text: &str) -> Result<[u8; 32], Malformed> {
    let mut nonce = [0; 32];
    hex::decode_to_slice(text.trim_start_matches("0x"), &mut nonce)
        .map_err(|e| Malformed::new(WHAT, format!("nonce {text:?} is not 64 hex digits: {e}")))?;
    Ok(nonce)
}
