//! Intel TDX and SGX: from a quote and Intel's collateral to what genuine hardware said.
//!
//! | file | what it judges |
//! | --- | --- |
//! | `quote`, `body` | the bytes: nothing is left unaccounted for |
//! | `chain`, `pck` | whose platform it is, and that its quoting enclave made the quote |
//! | `issuer`, `documents` | what Intel says: TCB info, QE identity, revocation |
//! | `platform`, `tcb`, `status` | how this platform stands by it, now |
//! | `attributes`, `enclave` | hard rules about the TD, the enclave, the quoting enclave |
//! | [`cache`] | what need not be verified twice, and why that is safe |
//!
//! A quote costs nine P-256 signatures: its own; QE report; PCK; PCK CA; both CRLs; TCB signer; TCB info; QE identity. With
//! a [`TdxCache`] that saw platform and collateral before, it costs one.

mod attributes;
mod body;
pub mod cache;
mod chain;
mod documents;
mod enclave;
mod ids;
mod issuer;
mod needs;
mod pck;
mod platform;
mod quote;
mod status;
mod tcb;

pub use body::{Body, EnclaveReport, Report};
pub use cache::TdxCache;
pub use needs::{EvaluationMark, IntelNeeds, IntelTee, evaluation_mark, intel_needs};
pub use pck::PckCa;
pub use quote::{INTEL_VENDOR, MAX_QUOTE, Quote};

use crate::check::{Checklist, Finding};
use crate::crypto::{self, Scheme, sha256};
use crate::verifier::Given;
use crate::{Platform, RefusalKind};
use ids::{Ids, NOT_THIS_HOST, SGX, TDX, finding};

/// All TDX checks, in the order in which they are shown.
pub(crate) const CHECKS: [&str; 20] = [
    TDX.format,
    TDX.header,
    TDX.signature,
    TDX.qe_report_data,
    TDX.root,
    TDX.collateral,
    TDX.validity,
    TDX.crl,
    TDX.chain,
    TDX.tcb_info,
    TDX.qe_identity,
    TDX.platform,
    "tdx.module",
    TDX.tcb,
    TDX.rollback,
    "tdx.debug",
    "tdx.attributes",
    "tdx.xfam",
    "tdx.service_td",
    "tdx.eventlog",
];

/// All SGX checks, in the order in which they are shown.
pub(crate) const SGX_CHECKS: [&str; 16] = [
    SGX.format,
    SGX.header,
    SGX.signature,
    SGX.qe_report_data,
    SGX.root,
    SGX.collateral,
    SGX.validity,
    SGX.crl,
    SGX.chain,
    SGX.tcb_info,
    SGX.qe_identity,
    SGX.platform,
    SGX.tcb,
    SGX.rollback,
    "sgx.debug",
    "sgx.attributes",
];

/// Makes all TDX checks but that of the event log. `simulated` is set as soon as the quote names a simulated root. What is
/// returned counts only if no check in `list` failed.
pub(crate) fn verify(
    bytes: &[u8],
    given: &Given<'_>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<(Body, Platform)> {
    let quote = format(bytes, &TDX, list)?;
    let Report::Td(body) = &quote.report else {
        header(&quote, &TDX, list);
        return None;
    };
    attributes::check(body, given, list);
    let platform = authenticate(&quote, &TDX, given, list, simulated)?;
    let Report::Td(body) = quote.report else { return None };
    Some((body, platform))
}

/// Makes all SGX checks, as [`verify`] does for TDX.
pub(crate) fn verify_sgx(
    bytes: &[u8],
    given: &Given<'_>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<(EnclaveReport, Platform)> {
    let quote = format(bytes, &SGX, list)?;
    let Report::Enclave(report) = &quote.report else {
        header(&quote, &SGX, list);
        return None;
    };
    enclave::check(report, list);
    let platform = authenticate(&quote, &SGX, given, list, simulated)?;
    let Report::Enclave(report) = quote.report else { return None };
    Some((report, platform))
}

/// Everything but the rules about what runs: who made the quote, on which platform, and how that stands.
fn authenticate(
    quote: &Quote<'_>,
    ids: &Ids,
    given: &Given<'_>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<Platform> {
    header(quote, ids, list);
    signature(quote, ids, list);
    qe_report_data(quote, ids, list);
    let (chain, anchor) = chain::establish(quote, ids, given, list, simulated)?;
    platform::judge(quote, &chain, anchor, ids, given, list)
}

fn malformed(got: String) -> Finding {
    finding(
        RefusalKind::Malformed,
        "a version of this kind of quote, exact lengths, nothing but zero after the end",
        got,
        "The quote was cut, padded or changed on the way",
        "Fetch the evidence again",
    )
}

/// Intel TDX DCAP Quoting Library API, A.3; Intel SGX ECDSA Quote Library Reference, A.4.
fn format<'a>(bytes: &'a [u8], ids: &Ids, list: &mut Checklist) -> Option<Quote<'a>> {
    match Quote::parse(bytes) {
        Ok(quote) => {
            let got = format!("version {}, {} bytes", quote.version, bytes.len());
            let expected = "exact lengths, nothing but zero after the end";
            list.pass(ids.format, expected, got, "every byte is accounted for");
            Some(quote)
        }
        Err(error) => {
            list.fail(ids.format, malformed(error.to_string()));
            None
        }
    }
}

/// Intel TDX DCAP Quoting Library API, A.3.1: TEE type, attestation key type, QE vendor id.
fn header(quote: &Quote<'_>, ids: &Ids, list: &mut Checklist) {
    let holds =
        quote.tee_type == ids.tee_type && quote.attestation_key_type == 2 && quote.vendor == INTEL_VENDOR;
    list.require(holds, ids.header, "a quote by Intel's quoting enclave", || {
        finding(
            RefusalKind::Rejected,
            format!("TEE type {:#x}, attestation key type 2 (ECDSA P-256), Intel's vendor id", ids.tee_type),
            format!(
                "TEE type {:#x}, attestation key type {}, vendor {}",
                quote.tee_type,
                quote.attestation_key_type,
                hex::encode(quote.vendor)
            ),
            &format!("This is not {}'s quote, or it was changed", ids.name),
            "Fetch the evidence again",
        )
    });
}

/// Intel TDX DCAP Quoting Library API, A.3.8: the attestation key's signature over header, descriptor and body. Made anew
/// for each quote.
fn signature(quote: &Quote<'_>, ids: &Ids, list: &mut Checklist) {
    let mut key = [4; 65]; // uncompressed point
    key[1..].copy_from_slice(quote.attestation_key);
    let holds = crypto::holds(Scheme::P256Fixed, &key, quote.signed, quote.signature);
    list.require(holds, ids.signature, "header and report are as they were signed", || {
        finding(
            RefusalKind::Signature,
            "an ECDSA P-256 signature over header and report",
            if holds { "holds" } else { "does not hold" },
            "The quote was changed after it was signed",
            NOT_THIS_HOST,
        )
    });
}

/// Intel TDX DCAP Quoting Library API, A.3.11: SHA-256 of attestation key and authentication data, then 32 zero bytes. The
/// authentication data may have any length: it is signed with the rest.
fn qe_report_data(quote: &Quote<'_>, ids: &Ids, list: &mut Checklist) {
    let mut expected = [0; 64];
    expected[..32].copy_from_slice(&sha256(&[quote.attestation_key, quote.qe_auth_data]));
    let got = &quote.qe_report[320..];
    list.require(expected == got, ids.qe_report_data, "the quoting enclave owns the attestation key", || {
        finding(
            RefusalKind::Signature,
            hex::encode(expected),
            hex::encode(got),
            "The attestation key is not the quoting enclave's",
            NOT_THIS_HOST,
        )
    });
}
