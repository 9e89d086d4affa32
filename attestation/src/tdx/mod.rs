//! Intel TDX: from a quote and Intel's collateral to what genuine hardware said.
//!
//! Structure, binding and the hard rules are ours. Chains, revocation, QE identity and TCB levels are dcap-qvl's, run
//! with the root that the quote's own chain names, if that root is an anchor. What dcap-qvl leaves open is closed here:
//! exact lengths, canonical PEM, all 64 bytes of the QE's report data, PCEID, statuses by name (the QE's own too), dates
//! of everything, the rollback mark, XFAM, service TDs in every body.

mod attributes;
mod collateral;
mod quote;
mod qvl;

pub use quote::{Body, INTEL_VENDOR, MAX_QUOTE, Quote};

use crate::anchors::{Anchor, INTEL_ROOT};
use crate::check::{Checklist, Finding};
use crate::crypto::{self, Scheme, sha256};
use crate::verifier::Given;
use crate::{Platform, RefusalKind, TrustAnchors};

/// All TDX checks, in the order in which they are shown.
pub(crate) const CHECKS: [&str; 19] = [
    "tdx.format",
    "tdx.header",
    "tdx.signature",
    "tdx.qe_report_data",
    "tdx.root",
    "tdx.collateral",
    "tdx.validity",
    "tdx.crl",
    "tdx.chain",
    "tdx.tcb_info",
    "tdx.qe_identity",
    "tdx.platform",
    "tdx.tcb",
    "tdx.rollback",
    "tdx.debug",
    "tdx.attributes",
    "tdx.xfam",
    "tdx.service_td",
    "tdx.eventlog",
];

/// Makes all TDX checks. `simulated` is set as soon as the quote names the simulated root. What is returned counts only
/// if no check in `list` failed.
pub(crate) fn verify(
    bytes: &[u8],
    given: &Given<'_>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<(Body, Platform)> {
    let quote = format(bytes, list)?;
    header(&quote, list);
    signature(&quote, list);
    qe_report_data(&quote, list);
    attributes::check(&quote.body, list);
    let anchor = root(&quote, given.anchors, list)?;
    *simulated = anchor.simulated;
    let collateral = collateral::load(given.endorsements, &quote, anchor, list)?;
    collateral::validity(&collateral, given.now, list);
    if list.failed() && !only_td_rules_failed(list) {
        return None; // dcap-qvl would fail for the same reason, less clearly
    }
    let claims = qvl::verify(bytes, &collateral, anchor, given.now, list)?;
    let platform = collateral::appraise(&claims, &collateral, anchor, given, list);
    Some((quote.body, platform))
}

/// Rules about the TD itself are judged after the platform, so that a genuine debug TD is told from a forged one.
fn only_td_rules_failed(list: &Checklist) -> bool {
    list.failures().all(|id| matches!(id, "tdx.debug" | "tdx.attributes" | "tdx.xfam" | "tdx.service_td"))
}

fn format<'a>(bytes: &'a [u8], list: &mut Checklist) -> Option<Quote<'a>> {
    let expected = "version 4 or 5, exact lengths, nothing but zero after the end";
    match Quote::parse(bytes) {
        Ok(quote) => {
            let got = format!("version {}, {} bytes", quote.version, bytes.len());
            list.pass("tdx.format", expected, got, "every byte is accounted for");
            Some(quote)
        }
        Err(error) => {
            list.fail(
                "tdx.format",
                Finding {
                    kind: RefusalKind::Malformed,
                    expected: expected.into(),
                    got: error.reason,
                    likely: "The quote was cut, padded or changed on the way".into(),
                    remedy: "Fetch the evidence again".into(),
                },
            );
            None
        }
    }
}

fn header(quote: &Quote<'_>, list: &mut Checklist) {
    let holds = quote.tee_type == 0x81 && quote.attestation_key_type == 2 && quote.vendor == INTEL_VENDOR;
    list.require(holds, "tdx.header", "a TDX quote by Intel's quoting enclave", || Finding {
        kind: RefusalKind::Rejected,
        expected: "TEE type 0x81, attestation key type 2 (ECDSA P-256), Intel's vendor id".into(),
        got: format!(
            "TEE type {:#x}, attestation key type {}, vendor {}",
            quote.tee_type,
            quote.attestation_key_type,
            hex::encode(quote.vendor)
        ),
        likely: "This is not a TDX quote, or it was changed".into(),
        remedy: "Fetch the evidence again".into(),
    });
}

fn signature(quote: &Quote<'_>, list: &mut Checklist) {
    let mut key = vec![4]; // uncompressed point
    key.extend_from_slice(quote.attestation_key);
    let holds = crypto::holds(Scheme::P256Fixed, &key, quote.signed, quote.signature);
    list.require(holds, "tdx.signature", "header and TD report are as they were signed", || Finding {
        kind: RefusalKind::Signature,
        expected: "an ECDSA P-256 signature over header and TD report".into(),
        got: if holds { "holds".into() } else { "does not hold".into() },
        likely: "The quote was changed after it was signed".into(),
        remedy: "Fetch the evidence again; if it repeats, do not use this host".into(),
    });
}

fn qe_report_data(quote: &Quote<'_>, list: &mut Checklist) {
    let mut expected = [0; 64];
    expected[..32].copy_from_slice(&sha256(&[quote.attestation_key, quote.qe_auth_data]));
    let got = &quote.qe_report[320..];
    list.require(
        expected == got,
        "tdx.qe_report_data",
        "the quoting enclave owns the attestation key",
        || Finding {
            kind: RefusalKind::Signature,
            expected: hex::encode(expected),
            got: hex::encode(got),
            likely: "The attestation key is not the quoting enclave's".into(),
            remedy: "Fetch the evidence again; if it repeats, do not use this host".into(),
        },
    );
}

fn root<'a>(quote: &Quote<'_>, anchors: &'a TrustAnchors, list: &mut Checklist) -> Option<Anchor<'a>> {
    let named = match quote.pck_chain.as_slice() {
        [_leaf, _intermediate, root] => anchors.find(INTEL_ROOT, root),
        _ => None,
    };
    let got = match &named {
        Some(anchor) if anchor.simulated => "the SIMULATED root of a development network".to_owned(),
        Some(_) => "Intel's root".to_owned(),
        None => other_root(quote),
    };
    let why = if named.is_some_and(|anchor| anchor.simulated) {
        "SIMULATED: no hardware protects this TD"
    } else {
        "Intel vouches for the platform"
    };
    list.require(named.is_some(), "tdx.root", why, || Finding {
        kind: RefusalKind::Signature,
        expected: "PCK, intermediate and a trusted root".into(),
        got,
        likely: "The evidence comes from a simulated platform, or from a forged one".into(),
        remedy: "On a development network, name its root file; elsewhere do not use this host".into(),
    });
    named
}

fn other_root(quote: &Quote<'_>) -> String {
    let last = quote.pck_chain.last().map(|der| hex::encode(sha256(&[der]))).unwrap_or_default();
    format!("{} certificates, the last with SHA-256 {last}", quote.pck_chain.len())
}
