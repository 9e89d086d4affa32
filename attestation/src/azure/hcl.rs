//! The paravisor's report, as it lies in the virtual TPM (NV index 0x01400001): a hardware report and the runtime data whose
//! hash the hardware signed.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4, 4, 4 | `HCLA`, version (1 or 2), length up to the end of the runtime data |
//! | 12 | 4, 4, 12 | request type (2), status (0), reserved |
//! | 32 | 1184 | hardware report: an SNP report, or a TDREPORT of 1024 bytes and zero |
//! | 1216 | 4, 4, 4 | length from here, version (1), report type (2 SNP, 4 TDX) |
//! | 1228 | 4, 4 | hash of the runtime data (1 SHA-256), its length |
//! | 1236 | | runtime data: JSON |
//! | | | zero, to the size of the NV index |
//!
//! (OpenHCL: `openhcl_attestation_protocol::igvm_attest::get`, `AttestReportHeader` and `IgvmAttestRequestData`.)

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::evidence::Kind;
use crate::Malformed;

const WHAT: &str = "HCL report";
const HARDWARE: usize = 32;
const REQUEST: usize = 1216;
const RUNTIME_DATA: usize = 1236;
/// Length of a TDREPORT.
pub(crate) const TD_REPORT: usize = 1024;
/// The largest NV index of a TPM is far below this.
const MAX_REPORT: usize = 16 * 1024;
/// The attestation key's name in the runtime data.
const ATTESTATION_KEY: &str = "HCLAkPub";
const MODULUS: usize = 256;
const EXPONENT: [u8; 3] = [1, 0, 1];

/// An HCL report taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HclReport<'a> {
    pub(crate) kind: Kind,
    /// An SNP report or a TDREPORT.
    pub(crate) hardware: &'a [u8],
    pub(crate) runtime_data: &'a [u8],
}

impl<'a> HclReport<'a> {
    /// Nobody signs the headers, so each of their fields must be as it can only be.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if !(RUNTIME_DATA..=MAX_REPORT).contains(&bytes.len()) {
            let reason = format!("{} bytes, must be {RUNTIME_DATA} to {MAX_REPORT}", bytes.len());
            return Err(Malformed::at(WHAT, 0, "length", reason));
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("inside, see above"));
        let must = |at: usize, field, allowed: &[u32]| match u32_at(at) {
            value if allowed.contains(&value) => Ok(value),
            value => Err(Malformed::at(WHAT, at, field, format!("{value:#x}, must be one of {allowed:x?}"))),
        };
        must(0, "signature", &[u32::from_le_bytes(*b"HCLA")])?;
        must(4, "version", &[1, 2])?;
        must(12, "request type", &[2])?;
        for at in [16, 20, 24, 28] {
            must(at, "status and reserved", &[0])?;
        }
        must(1220, "data version", &[1])?;
        let kind = if must(1224, "report type", &[2, 4])? == 2 { Kind::Snp } else { Kind::Tdx };
        must(1228, "hash type", &[1])?;
        let length = u32_at(1232);
        let end = RUNTIME_DATA.saturating_add(length as usize);
        let Some((_, tail)) = bytes.split_at_checked(end) else {
            return Err(Malformed::at(
                WHAT,
                1232,
                "runtime data",
                format!("{length} bytes, longer than the report"),
            ));
        };
        must(8, "report size", &[end as u32])?;
        must(REQUEST, "data size", &[(end - REQUEST) as u32])?;
        let hardware_end = HARDWARE + if kind == Kind::Snp { crate::snp::REPORT } else { TD_REPORT };
        for (at, zero) in [(hardware_end, &bytes[hardware_end..REQUEST]), (end, tail)] {
            if let Some(odd) = zero.iter().position(|byte| *byte != 0) {
                return Err(Malformed::at(WHAT, at + odd, "padding", "must be zero"));
            }
        }
        Ok(Self { kind, hardware: &bytes[HARDWARE..hardware_end], runtime_data: &bytes[RUNTIME_DATA..end] })
    }
}

/// What the paravisor says about the guest, in the runtime data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuntimeClaims {
    /// The virtual TPM's attestation key, as PKCS #1 RSAPublicKey.
    pub(crate) attestation_key: Vec<u8>,
    pub(crate) vm: VmConfiguration,
    /// What the guest had the hardware bind, 64 bytes; newer paravisors only.
    pub(crate) user_data: Option<[u8; 64]>,
}

/// How the virtual machine is set up, by the paravisor's word. Fields that newer ones add are passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VmConfiguration {
    /// Is there a console?
    pub console_enabled: Option<bool>,
    /// Is UEFI Secure Boot on?
    pub secure_boot: Option<bool>,
    /// Does the virtual TPM's state outlive the machine?
    pub tpm_persisted: Option<bool>,
    /// Azure's name of this machine.
    #[serde(rename = "vmUniqueId")]
    pub vm_unique_id: Option<String>,
}

#[derive(Deserialize)]
struct Json {
    keys: Vec<Jwk>,
    #[serde(rename = "vm-configuration", default)]
    vm: VmConfiguration,
    #[serde(rename = "user-data")]
    user_data: Option<String>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    e: Option<String>,
    n: Option<String>,
}

impl RuntimeClaims {
    /// Reads runtime data, once its hash was found in what the hardware signed.
    pub(crate) fn parse(runtime_data: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "runtime data";
        let json: Json = serde_json::from_slice(runtime_data)
            .map_err(|error| Malformed::new(WHAT, format!("not the paravisor's JSON: {error}")))?;
        let mut named = json.keys.iter().filter(|key| key.kid == ATTESTATION_KEY);
        let (Some(key), None) = (named.next(), named.next()) else {
            return Err(Malformed::new(WHAT, format!("not exactly one key {ATTESTATION_KEY}")));
        };
        let number = |text: &Option<String>| {
            URL_SAFE_NO_PAD.decode(text.as_deref().unwrap_or_default()).unwrap_or_default()
        };
        let (modulus, exponent) = (number(&key.n), number(&key.e));
        let sane = modulus.len() == MODULUS && modulus[0] & 0x80 != 0 && exponent == EXPONENT;
        if key.kty != "RSA" || !sane {
            return Err(Malformed::new(
                WHAT,
                format!("{ATTESTATION_KEY} is not RSA of 2048 bits with exponent 65537"),
            ));
        }
        let user_data = match json.user_data {
            None => None,
            Some(text) => {
                let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
                Some(bytes.ok_or_else(|| Malformed::new(WHAT, "user-data is not 64 bytes in hex"))?)
            }
        };
        Ok(Self { attestation_key: pkcs1(&modulus), vm: json.vm, user_data })
    }
}

/// RSAPublicKey (RFC 8017, A.1.1) of 256 bytes of modulus, whose highest bit is set, and exponent 65537.
fn pkcs1(modulus: &[u8]) -> Vec<u8> {
    const HEAD: [u8; 9] = [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0];
    [&HEAD[..], modulus, &[0x02, 3], &EXPONENT].concat()
}
