//! What the collateral must be, and what it says about the platform.

use std::collections::BTreeSet;

use dcap_qvl::QuoteClaims;

use crate::anchors::Anchor;
use crate::check::{Checklist, Finding};
use crate::collateral::{Collateral, Dates};
use crate::platform::{PlatformId, PlatformKind};
use crate::tdx::Quote;
use crate::verifier::Given;
use crate::{Endorsements, Platform, RefusalKind, UnixTime, pem};

const REFETCH: &str = "Fetch fresh collateral for this platform";

fn finding(kind: RefusalKind, expected: &str, got: impl Into<String>, likely: &str, remedy: &str) -> Finding {
    Finding { kind, expected: expected.into(), got: got.into(), likely: likely.into(), remedy: remedy.into() }
}

/// Finds the one collateral, and checks that its chains are the quote's and the anchor's.
pub(super) fn load(
    source: &Endorsements,
    quote: &Quote<'_>,
    anchor: Anchor<'_>,
    list: &mut Checklist,
) -> Option<Collateral> {
    let expected = "Intel's collateral for this platform, complete, its chains ending in the quote's root";
    let mut fail = |kind, got: String, likely: &str| {
        list.fail("tdx.collateral", finding(kind, expected, got, likely, REFETCH));
        None
    };
    let files: Vec<&[u8]> = source.intel().collect();
    let [json] = files[..] else {
        let got = format!("{} endorsements by Intel", files.len());
        return fail(RefusalKind::Unavailable, got, "The endorsements are missing, or cannot be told apart");
    };
    let mut collateral = match Collateral::parse(json, source.canonical()) {
        Ok(collateral) => collateral,
        Err(error) => {
            return fail(RefusalKind::Malformed, error, "The collateral was cut or changed on the way");
        }
    };
    if let Err(got) = chains(&mut collateral, quote, anchor) {
        return fail(
            RefusalKind::Signature,
            got.into(),
            "The collateral is another platform's, or was changed",
        );
    }
    list.pass("tdx.collateral", expected, "complete", "enough to verify offline");
    Some(collateral)
}

fn chains(collateral: &mut Collateral, quote: &Quote<'_>, anchor: Anchor<'_>) -> Result<(), &'static str> {
    if collateral.pck_crl_chain != quote.pck_chain[1..] {
        return Err("the PCK CRL's issuer chain is not the quote's");
    }
    let by_root = |chain: &[Vec<u8>]| matches!(chain, [_signer, root] if root == anchor.der);
    if !by_root(&collateral.tcb_info_chain) {
        return Err("the TCB info's issuer chain is not a signer and the quote's root");
    }
    if !by_root(&collateral.qe_identity_chain) {
        return Err("the QE identity's issuer chain is not a signer and the quote's root");
    }
    // Taken out, so that dcap-qvl uses the chain in the quote, which is the one that was looked at.
    if let Some(text) = collateral.raw.pck_certificate_chain.take()
        && pem::chain(text.as_bytes(), &["", "\n", "\n\0"]).as_ref() != Ok(&quote.pck_chain)
    {
        return Err("the PCK chain beside the quote is not the one in it");
    }
    Ok(())
}

/// TCB info and QE identity are in date. Certificates and CRLs follow once they are verified.
pub(super) fn validity(collateral: &Collateral, now: UnixTime, list: &mut Checklist) {
    let documents = [("TCB info", collateral.tcb_info_dates), ("QE identity", collateral.qe_identity_dates)];
    for (name, dates) in documents {
        if !dates.contain(now) {
            list.fail("tdx.validity", out_of_date(name, dates, now));
            return;
        }
    }
}

fn out_of_date(name: &str, dates: Dates, now: UnixTime) -> Finding {
    finding(
        RefusalKind::Unavailable,
        &format!("collateral in date at {now}"),
        format!("{name} valid from {} to {}", dates.issued, dates.next_update),
        "The collateral is older than Intel allows, or the clock is wrong",
        REFETCH,
    )
}

/// What dcap-qvl verified, held against the rules it leaves to others.
pub(super) fn appraise(
    claims: &QuoteClaims,
    collateral: &Collateral,
    anchor: Anchor<'_>,
    given: &Given<'_>,
    list: &mut Checklist,
) -> Platform {
    all_dates(claims, given.now, list);
    same_platform(claims, collateral, list);
    tcb_status(claims, given, list);
    rollback(claims, given.anchors.evaluation_floor(), list);
    Platform {
        kind: PlatformKind::Tdx,
        simulated: anchor.simulated,
        product: "",
        tcb_status: claims.tcb.status.to_string(),
        advisories: claims.tcb.advisory_ids.clone(),
        evaluation_number: Some(claims.tcb.eval_data_number),
        ids: vec![PlatformId::ppid(&claims.platform.pck.ppid)],
        good_until: UnixTime(claims.earliest_expiration_date),
    }
}

fn all_dates(claims: &QuoteClaims, now: UnixTime, list: &mut Checklist) {
    let dates = Dates {
        issued: UnixTime(claims.latest_issue_date),
        next_update: UnixTime(claims.earliest_expiration_date),
    };
    if dates.contain(now) {
        let got = format!("from {} to {}", dates.issued, dates.next_update);
        let expected = format!("collateral in date at {now}");
        list.pass("tdx.validity", expected, got, "documents, CRLs and certificates are all in date");
    } else {
        list.fail("tdx.validity", out_of_date("a document, CRL or certificate", dates, now));
    }
}

/// FMSPC (again, after dcap-qvl) and PCEID, which dcap-qvl does not compare.
fn same_platform(claims: &QuoteClaims, collateral: &Collateral, list: &mut Checklist) {
    let pck = &claims.platform.pck;
    let of_tcb_info = (hex::decode(&collateral.tcb_info.fmspc), hex::decode(&collateral.tcb_info.pce_id));
    let same = of_tcb_info == (Ok(pck.fmspc.to_vec()), Ok(pck.pce_id.clone()));
    list.require(same, "tdx.platform", "the TCB info is about this platform", || {
        finding(
            RefusalKind::Rejected,
            &format!("FMSPC {}, PCEID {}", hex::encode(pck.fmspc), hex::encode(&pck.pce_id)),
            format!("FMSPC {}, PCEID {}", collateral.tcb_info.fmspc, collateral.tcb_info.pce_id),
            "The collateral is another platform's",
            REFETCH,
        )
    });
}

/// Every status counts by itself: the converged one, the current one of a TD 1.5, and the QE's.
fn tcb_status(claims: &QuoteClaims, given: &Given<'_>, list: &mut Checklist) {
    let current = claims.platform.current_tcb_level.as_ref().map(|level| level.tcb_status);
    let statuses: BTreeSet<String> = [Some(claims.tcb.status), current, Some(claims.qe.tcb_level.tcb_status)]
        .into_iter()
        .flatten()
        .map(|status| status.to_string())
        .collect();
    let tolerated = statuses.iter().all(|status| given.exceptions.tolerates_tcb(status, given.now));
    let worst: Vec<&str> = statuses.iter().map(String::as_str).filter(|s| *s != "UpToDate").collect();
    let got = match worst.as_slice() {
        [] => "UpToDate".to_owned(),
        worst => format!("{} (advisories: {})", worst.join(", "), claims.tcb.advisory_ids.join(", ")),
    };
    let why = if worst.is_empty() { "no known weakness" } else { "tolerated by a named exception" };
    list.require(tolerated, "tdx.tcb", why, || {
        finding(
            RefusalKind::Rejected,
            "UpToDate, or a status named as an exception in force",
            got,
            "The platform's firmware, TDX module or quoting enclave has known weaknesses",
            "Its operator must update it; who accepts the risk names the status, as in tcb:OutOfDate",
        )
    });
}

fn rollback(claims: &QuoteClaims, floor: u32, list: &mut Checklist) {
    let got = claims.tcb.eval_data_number;
    list.require(got >= floor, "tdx.rollback", "not older than collateral seen before", || {
        finding(
            RefusalKind::Rejected,
            &format!("tcbEvaluationDataNumber {floor} or higher"),
            got.to_string(),
            "Genuine but older collateral is shown, which may hide a known weakness",
            REFETCH,
        )
    });
}
