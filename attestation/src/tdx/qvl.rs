//! dcap-qvl, and what its errors mean in the words of the checks.

use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteClaims, QuotePolicy};

use crate::anchors::Anchor;
use crate::check::{Checklist, Finding};
use crate::collateral::Collateral;
use crate::{RefusalKind, UnixTime};

/// Runs dcap-qvl with debug and service TDs refused, and files its verdict under the checks.
pub(super) fn verify(
    quote: &[u8],
    collateral: &Collateral,
    anchor: Anchor<'_>,
    now: UnixTime,
    list: &mut Checklist,
) -> Option<QuoteClaims> {
    let verifier = QuoteVerifier::new(anchor.der.to_vec());
    let claims_only = QuotePolicy::claims_only(now.0);
    match verifier.verify_with_policy(quote, &collateral.raw, now.0, &claims_only) {
        Ok(claims) => {
            pass(&VERIFIED, list);
            Some(claims)
        }
        Err(error) => {
            file(&format!("{error:#}"), list);
            None
        }
    }
}

/// Checks that rest on dcap-qvl alone, with what they mean.
const VERIFIED: [(&str, &str, &str); 4] = [
    ("tdx.crl", "root and PCK CRLs signed by their issuers, nothing revoked", "nothing is revoked"),
    ("tdx.chain", "PCK chain to the root, QE report signed by the PCK", "the platform's key is genuine"),
    ("tdx.tcb_info", "TCB info signed by the root's signer", "the TCB levels are the issuer's"),
    (
        "tdx.qe_identity",
        "QE identity signed by the root's signer and met by the QE",
        "the quoting enclave is genuine",
    ),
];

fn pass(checks: &[(&str, &str, &str)], list: &mut Checklist) {
    for (id, expected, why) in checks {
        list.pass(id, *expected, "holds", *why);
    }
}

/// An error of dcap-qvl: part of its text, the check it belongs to, whose fault it is, and how many of [`VERIFIED`] were
/// passed before it could be raised. First match counts.
struct Meaning(&'static str, &'static str, RefusalKind, usize);

const MEANINGS: [Meaning; 33] = {
    use RefusalKind::{Malformed, Rejected, Signature, Unavailable};
    [
        Meaning("CrlExpired", "tdx.crl", Unavailable, 0),
        Meaning("Failed to parse root CA CRL", "tdx.crl", Signature, 0),
        Meaning("Failed to parse PCK CRL", "tdx.crl", Malformed, 0),
        Meaning("CertRevoked", "tdx.crl", Rejected, 0),
        Meaning("UnknownRevocationStatus", "tdx.crl", Unavailable, 0),
        Meaning("Crl", "tdx.crl", Signature, 0),
        Meaning("CertExpired", "tdx.validity", Unavailable, 0),
        Meaning("CertNotValidYet", "tdx.validity", Unavailable, 0),
        Meaning("expired", "tdx.validity", Unavailable, 0),
        Meaning("Failed to decode quote", "tdx.format", Malformed, 0),
        Meaning("Failed to verify certificate chain", "tdx.chain", Signature, 0),
        Meaning("Signature is invalid for tcb_info", "tdx.tcb_info", Signature, 0),
        Meaning("TCB Info signer", "tdx.tcb_info", Signature, 0),
        Meaning("TCB Info leaf", "tdx.tcb_info", Malformed, 0),
        Meaning("Signature is invalid for qe_identity", "tdx.qe_identity", Signature, 0),
        Meaning("QE Identity signer", "tdx.qe_identity", Signature, 0),
        Meaning("QeIdentity", "tdx.qe_identity", Malformed, 0),
        Meaning("Unsupported QE Identity", "tdx.qe_identity", Rejected, 0),
        Meaning("PCK certificate", "tdx.chain", Malformed, 0),
        Meaning("Signature is invalid for qe_report", "tdx.chain", Signature, 0),
        Meaning("QE report hash mismatch", "tdx.qe_report_data", Signature, 3),
        Meaning("QE ", "tdx.qe_identity", Rejected, 3),
        Meaning("ISV enclave report signature", "tdx.signature", Signature, 4),
        Meaning("Fmspc mismatch", "tdx.platform", Rejected, 4),
        Meaning("Debug mode is enabled", "tdx.debug", Rejected, 4),
        Meaning("TD profiling is enabled", "tdx.debug", Rejected, 4),
        Meaning("Invalid MR service TD", "tdx.service_td", Rejected, 4),
        Meaning("TD attributes", "tdx.attributes", Rejected, 4),
        Meaning("is enabled", "tdx.attributes", Rejected, 4),
        Meaning("SEPT_VE_DISABLE", "tdx.attributes", Rejected, 4),
        Meaning("TCB", "tdx.tcb", Rejected, 4),
        Meaning("TDX", "tdx.tcb", Rejected, 4),
        Meaning("tdxModule", "tdx.tcb", Rejected, 4),
    ]
};

fn file(error: &str, list: &mut Checklist) {
    // Whatever is not recognised is filed under the chain: refused all the same.
    let unknown = Meaning("", "tdx.chain", RefusalKind::Signature, 0);
    let Meaning(_, id, kind, passed) = MEANINGS.iter().find(|m| error.contains(m.0)).unwrap_or(&unknown);
    pass(&VERIFIED[..*passed], list);
    if list.failures().any(|failed| failed == *id) {
        return; // our own check said the same, with more detail
    }
    let (expected, likely, remedy) = advice(id);
    let (expected, likely, remedy) = (expected.to_owned(), likely.to_owned(), remedy.to_owned());
    list.fail(id, Finding { kind: *kind, expected, got: error.to_owned(), likely, remedy });
}

/// What a check wants, what its failure likely means, and what to do.
fn advice(id: &str) -> (&'static str, &'static str, &'static str) {
    const REFETCH: &str = "Fetch fresh collateral for this platform";
    const NOT_THIS_HOST: &str = "Fetch the evidence again; if it repeats, do not use this host";
    match id {
        "tdx.crl" => (
            VERIFIED[0].1,
            "A revocation list is missing, forged or out of date, or this platform was revoked",
            "Fetch fresh collateral; if a certificate is revoked, do not use this host",
        ),
        "tdx.validity" => {
            ("certificates in date", "A certificate is out of date, or the clock is wrong", REFETCH)
        }
        "tdx.tcb_info" => (VERIFIED[2].1, "The TCB info was changed, or is not the issuer's", REFETCH),
        "tdx.qe_identity" => (
            VERIFIED[3].1,
            "The quoting enclave is not the one the issuer published, or the identity was changed",
            "Fetch fresh collateral; if it repeats, do not use this host",
        ),
        "tdx.tcb" => (
            "a TCB level that the platform, its TDX module and its quoting enclave meet",
            "Firmware or TDX module is older than any supported one, was revoked, or is newer than the collateral",
            "Fetch fresh collateral; if it repeats, its operator must update the platform",
        ),
        "tdx.platform" => ("the FMSPC of the PCK", "The collateral is another platform's", REFETCH),
        _ => (VERIFIED[1].1, "The evidence is forged or was changed", NOT_THIS_HOST),
    }
}
