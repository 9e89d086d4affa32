//! How a genuine platform stands by what its issuer says, now: the part of a verification that is never kept.

use std::sync::Arc;

use super::body::{EnclaveReport, Report};
use super::cache::Family;
use super::chain::PckChain;
use super::documents::{Dates, Verdict};
use super::ids::{Ids, NOT_THIS_HOST, REFETCH, finding};
use super::issuer::{Vouched, not_on_list, wanted};
use super::quote::{self, Quote};
use super::status::TcbStatus;
use super::{enclave, tcb};
use crate::RefusalKind::{Malformed, Rejected, Signature, Unavailable};
use crate::anchors::Anchor;
use crate::check::Checklist;
use crate::collateral::Collateral;
use crate::platform::{PlatformId, PlatformKind};
use crate::verifier::Given;
use crate::x509::Crl;
use crate::{Platform, UnixTime};

/// Judges a platform whose chain ends in `anchor`. What is returned counts only if no check in `list` failed.
pub(super) fn judge(
    quote: &Quote<'_>,
    chain: &PckChain,
    anchor: Anchor<'_>,
    ids: &Ids,
    given: &Given<'_>,
    list: &mut Checklist,
) -> Option<Platform> {
    let vouched = vouched(chain, ids, given, list)?;
    beside(chain, &vouched, ids, list);
    not_revoked(chain, &vouched, ids, list);
    let good_until = validity(chain, &vouched, ids, given.now, list);
    of_this_kind(&vouched, ids, list);
    same_platform(chain, &vouched, ids, list);
    rollback(&vouched, anchor, ids, given, list);
    let qe = quoting_enclave(quote, &vouched, ids, list);
    let standing = standing(quote, chain, &vouched, ids, list);
    let (verdict, statuses) = tcb::converge(&standing?, &qe?);
    tolerated(&statuses, &verdict.advisories, ids, given, list);
    if !list.failed()
        && let Some(cache) = given.cache
    {
        for (family, number) in families(&vouched, anchor, ids) {
            cache.raise_mark(family, number);
        }
    }
    Some(Platform {
        kind: if ids.tee_type == quote::SGX { PlatformKind::Sgx } else { PlatformKind::Tdx },
        simulated: anchor.simulated,
        product: "",
        tcb_status: verdict.status.name().to_owned(),
        advisories: verdict.advisories,
        evaluation_number: Some(evaluation_number(&vouched)),
        ids: vec![PlatformId::ppid(&chain.facts.ppid)],
        good_until,
    })
}

/// The one collateral, all of its signatures verified, now or before.
fn vouched(chain: &PckChain, ids: &Ids, given: &Given<'_>, list: &mut Checklist) -> Option<Arc<Vouched>> {
    let mut fail = |kind, got: String, likely: &str| {
        list.fail(ids.collateral, finding(kind, wanted::COLLATERAL, got, likely, REFETCH));
    };
    let mut files = given.endorsements.intel();
    let (Some(json), None) = (files.next(), files.next()) else {
        let got = format!("{} endorsements by Intel", given.endorsements.intel().count());
        fail(Unavailable, got, "The endorsements are missing, or cannot be told apart");
        return None;
    };
    let canonical = given.endorsements.canonical();
    if let Some(known) = given.cache.and_then(|cache| cache.vouched(json, canonical, chain)) {
        return Some(known);
    }
    let collateral = match Collateral::parse(json, canonical) {
        Ok(collateral) => collateral,
        Err(error) => {
            fail(Malformed, error.to_string(), "The collateral was cut or changed on the way");
            return None;
        }
    };
    let vouched = Arc::new(Vouched::verify(collateral, chain, ids, list)?);
    if let Some(cache) = given.cache {
        cache.keep_vouched(json, canonical, chain, &vouched);
    }
    Some(vouched)
}

/// The collateral's authorities are the quote's, and so is the chain beside the quote, if there is one.
fn beside(chain: &PckChain, vouched: &Vouched, ids: &Ids, list: &mut Checklist) {
    let same_authorities = vouched.authorities == chain.certificates[1..];
    let same_chain = vouched.pck_chain.as_ref().is_none_or(|beside| *beside == chain.certificates);
    list.require(same_authorities && same_chain, ids.collateral, "enough to verify offline", || {
        let got = match (same_authorities, same_chain) {
            (false, _) => "the PCK CRL's issuer chain is not the quote's",
            (true, false) => "the PCK chain beside the quote is not the one in it",
            (true, true) => "complete",
        };
        let likely = "The collateral is another platform's, or was changed";
        finding(Signature, wanted::COLLATERAL, got, likely, REFETCH)
    });
}

/// Intel SGX PCK Certificate and CRL Profile Specification, "PCK CRL". The authorities were looked for on the root's list.
fn not_revoked(chain: &PckChain, vouched: &Vouched, ids: &Ids, list: &mut Checklist) {
    let crl = Crl::parse(&vouched.pck_crl).expect("read when its signature was verified");
    if crl.lists(&chain.serial) {
        list.fail(ids.crl, not_on_list(Rejected, "the PCK is revoked".into()));
    } else {
        list.pass(ids.crl, wanted::CRL, "holds", "nothing is revoked");
    }
}

/// Everything is in date. Gives back when the first of it runs out.
fn validity(chain: &PckChain, vouched: &Vouched, ids: &Ids, now: UnixTime, list: &mut Checklist) -> UnixTime {
    let names = ["PCK", "PCK CA", "root"];
    let all = || names.into_iter().zip(chain.dates).chain(vouched.dates.iter().copied());
    let bad: Vec<String> = all()
        .filter(|(_, dates)| !dates.contain(now))
        .map(|(name, Dates { from, until })| format!("{name} valid from {from} to {until}"))
        .collect();
    let latest = all().map(|(_, dates)| dates.from).max().unwrap_or(now);
    let first_end = all().map(|(_, dates)| dates.until).min().unwrap_or(now);
    let why = "documents, CRLs and certificates are all in date";
    list.require(bad.is_empty(), ids.validity, why, || {
        let got = if bad.is_empty() { format!("from {latest} to {first_end}") } else { bad.join("; ") };
        let likely = "The collateral is older than Intel allows, or the clock is wrong";
        finding(Unavailable, format!("everything in date at {now}"), got, likely, REFETCH)
    });
    first_end
}

/// Ids and versions (Intel PCS API v4, "Get TDX TCB Info", "Get SGX TCB Info").
fn of_this_kind(vouched: &Vouched, ids: &Ids, list: &mut Checklist) {
    let info = &vouched.tcb_info;
    let id = info.id.as_deref();
    let right = match ids.tee_type {
        quote::SGX => (info.version == 2 && id.is_none()) || (info.version >= 2 && id == Some("SGX")),
        _ => id == Some("TDX") && info.version == 3 && info.levels.iter().all(|level| level.tdx.is_some()),
    };
    let known = right && info.version <= 3 && info.tcb_type == 0;
    list.require(known, ids.tcb_info, "the TCB levels are the issuer's", || {
        finding(
            Rejected,
            wanted::TCB_INFO,
            format!("{} version {}, TCB type {}", id.unwrap_or("no id"), info.version, info.tcb_type),
            "The collateral is for another kind of quote, or of a version this verifier does not know",
            REFETCH,
        )
    });
}

/// Step 1 of the algorithm: FMSPC and PCEID.
fn same_platform(chain: &PckChain, vouched: &Vouched, ids: &Ids, list: &mut Checklist) {
    let (pck, info) = (&chain.facts, &vouched.tcb_info);
    let same = pck.fmspc == info.fmspc && pck.pce_id == info.pce_id;
    let text =
        |fmspc: &[u8], pce_id: &[u8]| format!("FMSPC {}, PCEID {}", hex::encode(fmspc), hex::encode(pce_id));
    list.require(same, ids.platform, "the TCB info is about this platform", || {
        finding(
            Rejected,
            text(&pck.fmspc, &pck.pce_id),
            text(&info.fmspc, &info.pce_id),
            "The collateral is another platform's",
            REFETCH,
        )
    });
}

/// The QE identity is of this kind of quote, and the quoting enclave meets it.
fn quoting_enclave(quote: &Quote<'_>, vouched: &Vouched, ids: &Ids, list: &mut Checklist) -> Option<Verdict> {
    let identity = &vouched.qe_identity;
    let (id, versions): (_, &[u32]) = match ids.tee_type {
        quote::SGX => ("QE", &[2]),
        _ => ("TD_QE", &[2, 3]),
    };
    let result = if identity.id == id && versions.contains(&identity.version) {
        enclave::quoting(&EnclaveReport::parse(quote.qe_report), identity)
    } else {
        Err(format!("the identity of {} in version {}", identity.id, identity.version))
    };
    let got = match &result {
        Ok(_) => "met".to_owned(),
        Err(reason) => reason.clone(),
    };
    list.require(result.is_ok(), ids.qe_identity, "the quoting enclave is genuine", || {
        finding(
            Rejected,
            wanted::QE_IDENTITY,
            got,
            "The quoting enclave is not the one the issuer published",
            NOT_THIS_HOST,
        )
    });
    result.ok()
}

/// Steps 2 to 4 of the algorithm; for TDX also whose module it is.
fn standing(
    quote: &Quote<'_>,
    chain: &PckChain,
    vouched: &Vouched,
    ids: &Ids,
    list: &mut Checklist,
) -> Option<tcb::Standing> {
    let (info, pck) = (&vouched.tcb_info, &chain.facts);
    let standing = match &quote.report {
        Report::Enclave(_) => tcb::of_enclave(info, pck),
        Report::Td(body) => {
            let module = tcb::module(info, body);
            let got = match &module {
                Ok(got) => (*got).to_owned(),
                Err(reason) => reason.clone(),
            };
            list.require(module.is_ok(), "tdx.module", "the TDX module is the issuer's", || {
                finding(
                    Rejected,
                    "a TDX module by the signer in the TCB info",
                    got,
                    "The TDX module is not the issuer's, or newer than the collateral",
                    REFETCH,
                )
            });
            tcb::of_td(info, pck, body)
        }
    };
    standing
        .map_err(|got| {
            let expected = "a TCB level that the platform meets";
            let likely =
                "Firmware or TDX module is older than any supported one, or newer than the collateral";
            let remedy = "Fetch fresh collateral; if it repeats, its operator must update the platform";
            list.fail(ids.tcb, finding(Rejected, expected, got, likely, remedy));
        })
        .ok()
}

/// Every status that counts is tolerated by name; `Revoked` has no name that could.
fn tolerated(
    statuses: &[TcbStatus],
    advisories: &[String],
    ids: &Ids,
    given: &Given<'_>,
    list: &mut Checklist,
) {
    let tolerated = statuses.iter().all(|status| given.exceptions.tolerates_tcb(status.name(), given.now));
    let worst: Vec<&str> = statuses
        .iter()
        .filter(|status| **status != TcbStatus::UpToDate)
        .map(|status| status.name())
        .collect();
    let why = if worst.is_empty() { "no known weakness" } else { "tolerated by a named exception" };
    list.require(tolerated, ids.tcb, why, || {
        let got = match &worst[..] {
            [] => "UpToDate".to_owned(),
            worst => format!("{} (advisories: {})", worst.join(", "), advisories.join(", ")),
        };
        finding(
            Rejected,
            "UpToDate, or a status named as an exception in force",
            got,
            "The platform's firmware, TDX module or quoting enclave has known weaknesses",
            "Its operator must update it; who accepts the risk names the status, as in tcb:OutOfDate",
        )
    });
}

/// The lower of the two documents' numbers.
pub(super) fn evaluation_number(vouched: &Vouched) -> u32 {
    vouched.tcb_info.evaluation_number.min(vouched.qe_identity.evaluation_number)
}

/// What the numbers of TCB info and QE identity are compared with, each with its own.
fn families(vouched: &Vouched, anchor: Anchor<'_>, ids: &Ids) -> [(Family, u32); 2] {
    let family = |of| Family { root: anchor.der.to_vec(), of };
    let qe = if ids.tee_type == quote::SGX { "QE" } else { "TD_QE" };
    [
        (family((ids.name, vouched.tcb_info.fmspc)), vouched.tcb_info.evaluation_number),
        (family((qe, [0; 6])), vouched.qe_identity.evaluation_number),
    ]
}

/// `tcbEvaluationDataNumber` (Intel PCS API v4): never below the caller's floor, nor below what the cache has seen.
fn rollback(vouched: &Vouched, anchor: Anchor<'_>, ids: &Ids, given: &Given<'_>, list: &mut Checklist) {
    let floor = given.anchors.evaluation_floor();
    let mut worst = (evaluation_number(vouched), floor);
    if let Some(cache) = given.cache {
        for (family, number) in families(vouched, anchor, ids) {
            let mark = cache.mark(&family);
            if number < mark && worst.0 >= worst.1 {
                worst = (number, mark);
            }
        }
    }
    let (got, floor) = worst;
    list.require(got >= floor, ids.rollback, "not older than collateral seen before", || {
        finding(
            Rejected,
            format!("tcbEvaluationDataNumber {floor} or higher"),
            got.to_string(),
            "Genuine but older collateral is shown, which may hide a known weakness",
            REFETCH,
        )
    });
}
