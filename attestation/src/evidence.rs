//! What is handed to the verifier.

use crate::azure;
use crate::check::{Checklist, Finding};
use crate::ratls::{RaTlsCertificate, RaTlsEvidence};
use crate::{Bundle, Malformed, Refusal, RefusalKind, Tee, nvidia};

/// Evidence in one of the forms it travels in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// A bundle: statement, quote and endorsements.
    Bundle(Bundle),
    /// A TDX quote alone: genuine or not, but without a statement it is never trusted.
    TdxQuote(Vec<u8>),
    /// An SGX quote alone: it has no statement either.
    SgxQuote(Vec<u8>),
    /// An SEV-SNP report alone: as a quote alone, never trusted.
    SnpReport(Vec<u8>),
    /// Azure's vTPM evidence as JSON alone.
    AzureVtpm(Vec<u8>),
    /// A TLS certificate with evidence in it, and that evidence.
    RaTls(Box<RaTlsCertificate>, Box<Evidence>),
    /// Reports of NVIDIA GPUs and switches by themselves: genuine or not, but never trusted without a statement.
    Nvidia(nvidia::Evidence),
}

/// A CPU's evidence in any of its wrappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cpu<'a> {
    Tdx(&'a [u8]),
    Sgx(&'a [u8]),
    Snp(&'a [u8]),
    Azure(&'a [u8], azure::Kind),
}

impl Cpu<'_> {
    /// The checks that are made on it, in their order.
    pub(crate) fn checks(self) -> &'static [&'static str] {
        match self {
            Self::Tdx(_) => &crate::tdx::CHECKS,
            Self::Sgx(_) => &crate::tdx::SGX_CHECKS,
            Self::Snp(_) => &crate::snp::CHECKS,
            Self::Azure(_, azure::Kind::Snp) => &azure::SNP_CHECKS,
            Self::Azure(_, azure::Kind::Tdx) => &azure::TDX_CHECKS,
        }
    }

    /// The word in the verdict.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tdx(_) => "tdx",
            Self::Sgx(_) => "sgx",
            Self::Snp(_) => "snp",
            Self::Azure(_, azure::Kind::Snp) => "azure-snp",
            Self::Azure(_, azure::Kind::Tdx) => "azure-tdx",
        }
    }
}

/// The largest raw quote, in bytes.
const MAX_RAW: usize = crate::tdx::MAX_QUOTE;

impl Evidence {
    /// Recognises the form by its first bytes and parses a bundle. Quotes and reports may also stand there as hex text, of
    /// either case, with or without `0x`, in one line or several.
    ///
    /// # Errors
    /// `Malformed` for bytes of no known form.
    pub fn detect(bytes: &[u8]) -> Result<Self, Refusal> {
        if let Some(binary) = quote_in_hex(bytes) {
            return Self::of_form(&binary);
        }
        Self::of_form(bytes)
    }

    fn of_form(bytes: &[u8]) -> Result<Self, Refusal> {
        let bytes = if bytes.trim_ascii_start().starts_with(b"{") { bytes.trim_ascii_start() } else { bytes };
        match bytes {
            // A CBOR map of 3 to 6 entries.
            [0xa3..=0xa6, ..] => Bundle::decode(bytes).map(Self::Bundle).map_err(|e| malformed(&e)),
            // Versions that are not known are told so by the check of the form.
            [0..=15, 0, 0, 0, ..] if bytes.len() == crate::snp::REPORT => Ok(Self::SnpReport(bytes.to_vec())),
            [4 | 5, 0, _, 0, 0x81, 0, 0, 0, ..] if bytes.len() <= MAX_RAW => {
                Ok(Self::TdxQuote(bytes.to_vec()))
            }
            [3..=5, 0, _, 0, 0, 0, 0, 0, ..] if bytes.len() <= MAX_RAW => Ok(Self::SgxQuote(bytes.to_vec())),
            [0x30, 0x82 | 0x83, ..] => ratls(bytes),
            _ if bytes.starts_with(b"-----BEGIN CERTIFICATE-----") => ratls(bytes),
            _ if nvidia::Evidence::looks_like(bytes) => {
                nvidia::Evidence::parse(bytes).map(Self::Nvidia).map_err(|e| malformed(&e))
            }
            [b'{', ..] if is_azure(bytes) => Ok(Self::AzureVtpm(bytes.to_vec())),
            _ => Err(malformed(&Malformed::at("evidence", 0, "form", "not of any form that is known here"))),
        }
    }

    pub(crate) fn bundle(&self) -> Option<&Bundle> {
        match self {
            Self::Bundle(bundle) => Some(bundle),
            Self::TdxQuote(_)
            | Self::SgxQuote(_)
            | Self::SnpReport(_)
            | Self::AzureVtpm(_)
            | Self::RaTls(..)
            | Self::Nvidia(_) => None,
        }
    }

    /// GPUs by themselves have none.
    pub(crate) fn cpu(&self) -> Option<Cpu<'_>> {
        match self {
            Self::Bundle(bundle) => Some(match bundle.tee {
                Tee::Tdx => Cpu::Tdx(&bundle.quote),
                Tee::Snp => Cpu::Snp(&bundle.quote),
                Tee::Azure => Cpu::Azure(&bundle.quote, azure::kind(&bundle.quote)),
            }),
            Self::TdxQuote(quote) => Some(Cpu::Tdx(quote)),
            Self::SgxQuote(quote) => Some(Cpu::Sgx(quote)),
            Self::SnpReport(report) => Some(Cpu::Snp(report)),
            Self::AzureVtpm(json) => Some(Cpu::Azure(json, azure::kind(json))),
            // What is inside is verified by itself.
            Self::RaTls(..) | Self::Nvidia(_) => None,
        }
    }
}

/// A quote or an SNP report that is given as text. (GPU reports in hex are read where their other forms are.)
fn quote_in_hex(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = bytes.trim_ascii();
    let text = text.strip_prefix(b"0x").unwrap_or(text);
    // Their versions, in two bytes. No binary form begins with digits of ASCII.
    let versioned = matches!(text, [b'0', b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F', b'0', b'0', ..]);
    // Lines of one digit each are the longest that this much can be.
    if !versioned || text.len() > 4 * MAX_RAW {
        return None;
    }
    hex::decode(text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<u8>>()).ok()
}

/// A certificate, with what it carries detected in its turn.
fn ratls(bytes: &[u8]) -> Result<Evidence, Refusal> {
    let certificate = RaTlsCertificate::parse(bytes).map_err(|e| malformed(&e))?;
    let inner = match &certificate.evidence {
        RaTlsEvidence::Bundle(bundle) => Evidence::Bundle((**bundle).clone()),
        RaTlsEvidence::Quote { quote, .. } => match Evidence::detect(quote)? {
            inner @ (Evidence::TdxQuote(_) | Evidence::SgxQuote(_)) => inner,
            _ => {
                return Err(malformed(&Malformed::new(
                    "RA-TLS certificate",
                    "what it carries is not a quote",
                )));
            }
        },
        RaTlsEvidence::OtherCmw { encoding } => {
            return Err(refusal(
                RefusalKind::Unavailable,
                "a certificate with our bundle, or with a quote of a scheme that is known",
                format!("a conceptual message wrapper in {encoding} that is not our bundle"),
                "The certificate carries evidence of a kind that this verifier does not judge",
                "Use the verifier that its maker names",
            ));
        }
    };
    Ok(Evidence::RaTls(Box::new(certificate), Box::new(inner)))
}

/// Azure's JSON has an HCL report in one of its two names beside a TPM's quote. (Whitespace before it was cut off.)
fn is_azure(json: &[u8]) -> bool {
    let has = |name: &[u8]| json.windows(name.len()).any(|window| window == name);
    let named = has(b"\"tpm_quote\"") || (has(b"\"quote\"") && has(b"\"report\"") && has(b"\"vcek\""));
    json.len() <= azure::MAX_JSON && named
}

fn refusal(kind: RefusalKind, expected: &str, got: String, likely: &str, remedy: &str) -> Refusal {
    let mut list = Checklist::new(&["evidence.form"]);
    let (expected, likely, remedy) = (expected.to_owned(), likely.to_owned(), remedy.to_owned());
    list.fail("evidence.form", Finding { kind, expected, got, likely, remedy });
    list.outcome().expect_err("the only check failed")
}

fn malformed(error: &Malformed) -> Refusal {
    refusal(
        RefusalKind::Malformed,
        "a bundle, a TDX or SGX quote, an SNP report, Azure's vTPM evidence, GPU reports or an RA-TLS certificate",
        error.to_string(),
        "The bytes were cut, changed on the way, or are something else",
        "Fetch the evidence again, from the guest's host if a gateway sent it",
    )
}
