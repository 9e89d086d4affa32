//! What is handed to the verifier.

use crate::check::{Checklist, Finding};
use crate::{Bundle, Malformed, Refusal, RefusalKind};

/// Evidence in one of the forms it travels in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A bundle: statement, quote and endorsements.
    Bundle(Bundle),
    /// A TDX quote alone: genuine or not, but without a statement it is never trusted.
    TdxQuote(Vec<u8>),
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
            [3..=5, 0, _, 0, 0, 0, 0, 0, ..] => Err(unsupported("an SGX quote")),
            [2 | 3 | 5, 0, 0, 0, ..] if bytes.len() == 1184 => Err(unsupported("an SEV-SNP report")),
            [0x11, 0xe0, ..] => Err(unsupported("an NVIDIA SPDM report")),
            [b'{' | b'[', ..] => Err(unsupported("JSON evidence")),
            _ => Err(malformed(&Malformed::new("evidence", "neither a bundle nor a TDX quote"))),
        }
    }

    pub(crate) fn quote(&self) -> &[u8] {
        match self {
            Self::Bundle(bundle) => &bundle.quote,
            Self::TdxQuote(quote) => quote,
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

/// Collateral the caller has at hand. When given, it is used in place of what the bundle carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endorsements {
    pub(crate) files: Vec<Vec<u8>>,
}

/// Most endorsement files.
const MAX_FILES: usize = crate::bundle::MAX_RECORDS;
/// The largest endorsement file, in bytes.
const MAX_FILE: usize = 1024 * 1024;

impl Endorsements {
    /// None: use what the bundle carries.
    pub fn none() -> Self {
        Self::default()
    }

    /// Files in any order: Intel's collateral as JSON, with the field names of Intel's PCS.
    ///
    /// # Errors
    /// If there are more than 16 files, or one is larger than 1 MiB.
    pub fn from_files(files: Vec<Vec<u8>>) -> Result<Self, Malformed> {
        if files.len() > MAX_FILES || files.iter().any(|f| f.len() > MAX_FILE) {
            return Err(Malformed::new("endorsements", "at most 16 files of at most 1 MiB"));
        }
        Ok(Self { files })
    }
}
