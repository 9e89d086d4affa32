//! The JSON in which Confidential Containers' az-snp-vtpm and az-tdx-vtpm attesters send Azure's evidence.
//!
//! | field | since version 1 | before |
//! | --- | --- | --- |
//! | `version` | 1 or 2 (2 differs in what the guest asked for, not in form) | absent |
//! | `tpm_quote` (before, of SNP: `quote`) | `signature`, `message`, `pcrs` in hex | arrays of bytes |
//! | `hcl_report` (before, of SNP: `report`) | base64url | array of bytes |
//! | `vcek`, of SNP | base64url of DER | PEM |
//! | `td_quote`, of TDX | base64url | array of bytes |
//!
//! In a bundle there is one form: version 1, its fields in this order, as [`canonical_azure`] gives it.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value, json};

use super::tpm::PCRS;
use crate::{Endorsement, Malformed};

/// The largest evidence, in bytes of JSON.
pub(crate) const MAX_JSON: usize = 256 * 1024;

const WHAT: &str = "Azure evidence";
/// serde's writers pad, others do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What runs below the paravisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Snp,
    Tdx,
}

/// Evidence taken apart. Nothing in it is believed yet.
#[derive(Debug)]
pub(crate) struct AzureEvidence {
    /// RSASSA signature over `message`.
    pub(crate) signature: Vec<u8>,
    /// TPMS_ATTEST.
    pub(crate) message: Vec<u8>,
    /// SHA-256 registers 0 to 23.
    pub(crate) pcrs: [[u8; 32]; PCRS],
    pub(crate) hcl_report: Vec<u8>,
    pub(crate) hardware: Hardware,
}

/// What the vendor's part of the evidence is.
#[derive(Debug)]
pub(crate) enum Hardware {
    /// Certificates, of which one is the VCEK; the report is in the HCL report.
    Snp(Vec<Endorsement>),
    /// The TD quote.
    Tdx(Vec<u8>),
}

/// By the one field that only TDX has: decides which checks are shown, and must be right for evidence to be read.
pub(crate) fn kind(json: &[u8]) -> Kind {
    const NAME: &[u8] = b"\"td_quote\"";
    if json.windows(NAME.len()).any(|window| window == NAME) { Kind::Tdx } else { Kind::Snp }
}

/// The one form that a bundle carries.
///
/// # Errors
/// If it is none of the forms that are known.
pub fn canonical_azure(json: &[u8]) -> Result<Vec<u8>, Malformed> {
    AzureEvidence::parse(json, kind(json)).map(|evidence| evidence.encode())
}

impl AzureEvidence {
    /// Reads any of the forms; no field may be left over.
    pub(crate) fn parse(json: &[u8], kind: Kind) -> Result<Self, Malformed> {
        if json.len() > MAX_JSON {
            return Err(Malformed::new(WHAT, format!("{} bytes, at most {MAX_JSON}", json.len())));
        }
        let value = serde_json::from_slice(json)
            .map_err(|error| Malformed::new(WHAT, format!("not JSON: {error}")))?;
        let mut fields = Fields::of(value, "evidence")?;
        let form = match fields.0.remove("version") {
            None => Form::Old,
            Some(version) if version == 1 || version == 2 => Form::New,
            Some(other) => return Err(Malformed::new(WHAT, format!("version {other}, must be 1 or 2"))),
        };
        let old_snp = form == Form::Old && kind == Kind::Snp;
        let (quote, report) = if old_snp { ("quote", "report") } else { ("tpm_quote", "hcl_report") };
        let mut tpm = Fields::of(fields.take(quote)?, quote)?;
        let evidence = Self {
            signature: form.hex(&tpm.take("signature")?, "signature")?,
            message: form.hex(&tpm.take("message")?, "message")?,
            pcrs: pcrs(&tpm.take("pcrs")?, form)?,
            hcl_report: form.base64(&fields.take(report)?, report)?,
            hardware: match kind {
                Kind::Snp => Hardware::Snp(vcek(&fields.take("vcek")?, form)?),
                Kind::Tdx => Hardware::Tdx(form.base64(&fields.take("td_quote")?, "td_quote")?),
            },
        };
        tpm.end()?;
        fields.end()?;
        Ok(evidence)
    }

    /// The form of a bundle.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let text = |value: String| json!(value).to_string();
        let pcrs: Vec<String> = self.pcrs.iter().map(hex::encode).collect();
        let (name, hardware) = match &self.hardware {
            Hardware::Snp(certificates) => ("vcek", certificates.iter().find_map(der).unwrap_or_default()),
            Hardware::Tdx(quote) => ("td_quote", &quote[..]),
        };
        format!(
            "{{\"version\":1,\"tpm_quote\":{{\"signature\":{},\"message\":{},\"pcrs\":{}}},\"hcl_report\":{},\"{name}\":{}}}",
            text(hex::encode(&self.signature)),
            text(hex::encode(&self.message)),
            json!(pcrs),
            text(BASE64.encode(&self.hcl_report)),
            text(BASE64.encode(hardware)),
        )
        .into_bytes()
    }
}

fn der(item: &Endorsement) -> Option<&[u8]> {
    match item {
        Endorsement::Certificate(der) => Some(der),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Old,
    New,
}

impl Form {
    fn hex(self, value: &Value, field: &'static str) -> Result<Vec<u8>, Malformed> {
        match (self, value) {
            (Self::Old, value) => array(value, field),
            (Self::New, Value::String(text)) => {
                hex::decode(text).map_err(|error| wrong(field, error.to_string()))
            }
            _ => Err(wrong(field, "not hex")),
        }
    }

    fn base64(self, value: &Value, field: &'static str) -> Result<Vec<u8>, Malformed> {
        match (self, value) {
            (Self::Old, value) => array(value, field),
            (Self::New, Value::String(text)) => {
                BASE64.decode(text).map_err(|error| wrong(field, error.to_string()))
            }
            _ => Err(wrong(field, "not base64url")),
        }
    }
}

fn array(value: &Value, field: &'static str) -> Result<Vec<u8>, Malformed> {
    let byte = |item: &Value| item.as_u64().and_then(|number| u8::try_from(number).ok());
    let items = value.as_array().ok_or_else(|| wrong(field, "not an array of bytes"))?;
    items.iter().map(byte).collect::<Option<_>>().ok_or_else(|| wrong(field, "not an array of bytes"))
}

fn pcrs(value: &Value, form: Form) -> Result<[[u8; 32]; PCRS], Malformed> {
    let items = value.as_array().ok_or_else(|| wrong("pcrs", "not an array"))?;
    let mut all = [[0; 32]; PCRS];
    if items.len() != PCRS {
        return Err(wrong("pcrs", format!("{} registers, must be {PCRS}", items.len())));
    }
    for (item, register) in items.iter().zip(&mut all) {
        *register = form.hex(item, "pcrs")?.try_into().map_err(|bytes: Vec<u8>| {
            wrong("pcrs", format!("a register of {} bytes, must be 32", bytes.len()))
        })?;
    }
    Ok(all)
}

fn vcek(value: &Value, form: Form) -> Result<Vec<Endorsement>, Malformed> {
    let file = match (form, value) {
        (Form::Old, Value::String(pem)) => pem.as_bytes().to_vec(),
        (Form::Old, _) => return Err(wrong("vcek", "not PEM")),
        (Form::New, value) => form.base64(value, "vcek")?,
    };
    let items = Endorsement::sort(&file).map_err(|error| wrong("vcek", error.to_string()))?;
    if items.iter().any(|item| der(item).is_none()) {
        return Err(wrong("vcek", "not a certificate"));
    }
    Ok(items)
}

fn wrong(field: &'static str, reason: impl Into<String>) -> Malformed {
    Malformed { what: WHAT, offset: None, field, reason: reason.into() }
}

/// A JSON object whose fields are taken one by one.
struct Fields(Map<String, Value>);

impl Fields {
    fn of(value: Value, field: &'static str) -> Result<Self, Malformed> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(wrong(field, "not an object")),
        }
    }

    fn take(&mut self, field: &'static str) -> Result<Value, Malformed> {
        self.0.remove(field).ok_or_else(|| wrong(field, "missing"))
    }

    fn end(self) -> Result<(), Malformed> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => {
                Err(Malformed::new(WHAT, format!("a field {:?} that is not known", name.escape_debug())))
            }
        }
    }
}
