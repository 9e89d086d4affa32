//! What is handed to the verifier.

use crate::check::{Checklist, Finding};
use crate::{Bundle, Malformed, Refusal, RefusalKind};

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
}

/// A CPU's evidence in any of its wrappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cpu<'a> {
    Tdx(&'a [u8]),
    Sgx(&'a [u8]),
}

impl Cpu<'_> {
    /// The checks that are made on it, in their order.
    pub(crate) fn checks(self) -> &'static [&'static str] {
        match self {
            Self::Tdx(_) => &crate::tdx::CHECKS,
            Self::Sgx(_) => &crate::tdx::SGX_CHECKS,
        }
    }

    /// The word in the verdict.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tdx(_) => "tdx",
            Self::Sgx(_) => "sgx",
        }
    }
}

/// The largest raw quote, in bytes.
const MAX_RAW: usize = crate::tdx::MAX_QUOTE;

impl Evidence {
    /// Recognises the form by its first bytes and parses a bundle.
    ///
    /// # Errors
    /// `Malformed` for unknown bytes, `Unavailable` for evidence of a platform this verifier does not know yet.
    pub fn detect(bytes: &[u8]) -> Result<Self, Refusal> {
        match bytes {
            // A CBOR map of 3 to 6 entries.
            [0xa3..=0xa6, ..] => Bundle::decode(bytes).map(Self::Bundle).map_err(|e| malformed(&e)),
            [4 | 5, 0, _, 0, 0x81, 0, 0, 0, ..] if bytes.len() <= MAX_RAW => {
                Ok(Self::TdxQuote(bytes.to_vec()))
            }
            [2 | 3 | 5, 0, 0, 0, ..] if bytes.len() == 1184 => Err(unsupported("an SEV-SNP report")),
            [3..=5, 0, _, 0, 0, 0, 0, 0, ..] if bytes.len() <= MAX_RAW => Ok(Self::SgxQuote(bytes.to_vec())),
            [0x11, 0xe0, ..] => Err(unsupported("an NVIDIA SPDM report")),
            [b'{' | b'[', ..] => Err(unsupported("JSON evidence")),
            _ => Err(malformed(&Malformed::new("evidence", "neither a bundle nor a TDX quote"))),
        }
    }

    pub(crate) fn bundle(&self) -> Option<&Bundle> {
        match self {
            Self::Bundle(bundle) => Some(bundle),
            Self::TdxQuote(_) | Self::SgxQuote(_) => None,
        }
    }

    pub(crate) fn cpu(&self) -> Cpu<'_> {
        match self {
            Self::Bundle(bundle) => Cpu::Tdx(&bundle.quote),
            Self::TdxQuote(quote) => Cpu::Tdx(quote),
            Self::SgxQuote(quote) => Cpu::Sgx(quote),
        }
    }
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
        "an evidence bundle or a TDX quote",
        error.to_string(),
        "The bytes were cut, changed on the way, or are something else",
        "Fetch the evidence again, from the guest's host if a gateway sent it",
    )
}

fn unsupported(what: &str) -> Refusal {
    refusal(
        RefusalKind::Unavailable,
        "an evidence bundle or a TDX quote",
        format!("{what}, not yet supported"),
        "This verifier cannot judge this platform, so it does not accept it",
        "Use a version that supports this platform",
    )
}
