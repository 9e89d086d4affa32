//! Which collateral a quote needs.

use super::pck::{PckCa, PckFacts};
use super::quote::{self, Quote};
use crate::Malformed;
use crate::x509::Certificate;

/// What to ask Intel's PCS, or a cache of it, for. From an unverified quote: it says what to fetch, and proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntelNeeds {
    /// Family of the platform: `fmspc` of "Get TCB Info".
    pub fmspc: [u8; 6],
    /// Issuer of the PCK: `ca` of "Get PCK Cert CRL".
    pub ca: PckCa,
    /// `tdx` or `sgx`: whose TCB info and QE identity.
    pub tee: IntelTee,
}

/// Intel's kinds of TEE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntelTee {
    /// Enclaves.
    Sgx,
    /// Trust domains.
    Tdx,
}

impl IntelTee {
    /// `sgx` or `tdx`: the first part of the path in Intel's PCS API v4.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sgx => "sgx",
            Self::Tdx => "tdx",
        }
    }
}

/// Reads from a quote which collateral verifies it.
///
/// # Errors
/// If it is not a TDX or SGX quote with a PCK chain by one of Intel's two PCK authorities.
pub fn intel_needs(quote: &[u8]) -> Result<IntelNeeds, Malformed> {
    let quote = Quote::parse(quote)?;
    let missing =
        |reason: String| Malformed { what: "Intel quote", offset: None, field: "PCK chain", reason };
    let chain = quote.pck_chain()?;
    let leaf = Certificate::parse(chain.first().ok_or_else(|| missing("empty".into()))?)?;
    let issuer = leaf.issuer_common_name();
    Ok(IntelNeeds {
        fmspc: PckFacts::parse(&leaf)?.fmspc,
        ca: PckCa::of_name(&issuer).ok_or_else(|| {
            missing(format!("{issuer:?} is neither Intel's processor CA nor its platform CA"))
        })?,
        tee: if quote.tee_type == quote::SGX { IntelTee::Sgx } else { IntelTee::Tdx },
    })
}
