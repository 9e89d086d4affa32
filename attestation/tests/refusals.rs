//! Evidence that is signed as it should be but breaks one rule is refused by that rule.

mod common;

use cocoon_attestation::RefusalKind::{self, Malformed, Rejected, Signature, Unavailable};
use cocoon_attestation::{
    Bundle, Endorsement, Endorsements, Evidence, Exceptions, Refusal, Status, TrustAnchors, UnixTime,
    statement, verify,
};
use cocoon_simulated_tee::{Documents, Draft, Revoked};
use common::{NOW, Platform};

const DAY: u64 = 86_400;

fn refused(what: &str, result: Result<impl Sized, Refusal>, check: &str, kind: RefusalKind) {
    let refusal = result.err().unwrap_or_else(|| panic!("{what}: was accepted"));
    assert_eq!((refusal.check, refusal.kind), (check, kind), "{what}: {refusal}");
    assert!(refusal.failed().any(|id| id == check), "{what}: the check is listed as failed");
    for text in [&refusal.expected, &refusal.got, &refusal.likely, &refusal.remedy] {
        assert!(!text.is_empty(), "{what}: the refusal explains itself");
    }
}

/// A bundle whose collateral was changed before the issuer signed it.
fn with_documents(platform: &Platform, change: impl FnOnce(&mut Documents)) -> Bundle {
    let mut documents = platform.root.documents(NOW);
    change(&mut documents);
    Bundle {
        endorsements: vec![Endorsement::IntelCollateral(platform.root.endorse(&documents))],
        ..platform.bundle()
    }
}

fn replace(text: &mut String, from: &str, to: &str) {
    assert!(text.contains(from), "{from} stands in {text}");
    *text = text.replace(from, to);
}

fn verify_at(platform: &Platform, bundle: &Bundle, now: UnixTime) -> Result<(), Refusal> {
    let evidence = Evidence::Bundle(bundle.clone());
    verify(&evidence, &Endorsements::none(), &platform.anchors(), &Exceptions::none(), now).map(drop)
}

#[test]
fn a_td_that_the_host_can_enter_is_refused() {
    let platform = Platform::new();
    for (bit, check) in [
        (0, "tdx.debug"),
        (4, "tdx.debug"),
        (6, "tdx.debug"),
        (17, "tdx.attributes"),
        (28, "tdx.attributes"),
        (29, "tdx.attributes"),
        (40, "tdx.attributes"),
    ] {
        let bundle = platform.bundle_of_td(|td| td.attributes ^= 1 << bit);
        refused(&format!("attribute bit {bit}"), platform.verify(&bundle), check, Rejected);
    }
    let bundle = platform.bundle_of_td(|td| td.xfam |= 1 << 20);
    refused("unknown XFAM bit", platform.verify(&bundle), "tdx.xfam", Rejected);
}

#[test]
fn a_debug_td_is_told_from_a_forged_one() {
    let platform = Platform::new();
    let refusal = platform.verify(&platform.bundle_of_td(|td| td.attributes |= 1)).expect_err("debug");
    let status = |id: &str| refusal.checks.iter().find(|c| c.id == id).expect("listed").status;
    assert_eq!(status("tdx.signature"), Status::Pass);
    assert_eq!(status("tdx.chain"), Status::Pass);
    assert_eq!(status("tdx.debug"), Status::Fail);
    assert!(refusal.simulated, "and it is said to be simulated");
}

/// Turns a version 4 draft into version 5 with a body of `kind` and `size`.
fn version_5(draft: &mut Draft, kind: u16, size: usize) {
    draft.header[0] = 5;
    let tcb_svn: [u8; 16] = draft.body[..16].try_into().expect("sixteen bytes");
    let mut report = draft.body.clone();
    if size > 584 {
        report.extend(tcb_svn);
    }
    report.resize(size, 0);
    draft.body = kind.to_le_bytes().to_vec();
    draft.body.extend((size as u32).to_le_bytes());
    draft.body.extend(report);
}

#[test]
fn all_three_bodies_of_version_5_are_read_and_no_service_td_is_accepted() {
    let platform = Platform::new();
    for (kind, size) in [(2, 584), (3, 648), (4, 885)] {
        let bundle = platform.bundle_with_draft(|draft| version_5(draft, kind, size));
        platform.verify(&bundle).unwrap_or_else(|refusal| panic!("body type {kind}: {refusal}"));
    }
    // MRSERVICETD; in 1.5ex also the initial and the current service TD.
    for (kind, size, at) in [(3, 648, 600), (3, 648, 647), (4, 885, 600), (4, 885, 729), (4, 885, 884)] {
        let bundle = platform.bundle_with_draft(|draft| {
            version_5(draft, kind, size);
            draft.body[6 + at] = 1;
        });
        refused(&format!("body type {kind} at {at}"), platform.verify(&bundle), "tdx.service_td", Rejected);
    }
    let bundle = platform.bundle_with_draft(|draft| version_5(draft, 3, 584));
    refused("a body of another size", platform.verify(&bundle), "tdx.format", Malformed);
}

#[test]
fn a_quote_that_is_not_tdx_by_intel_is_refused() {
    let platform = Platform::new();
    for (what, at) in [("key type", 2), ("vendor", 12), ("vendor's end", 27)] {
        let bundle = platform.bundle_with_draft(|draft| draft.header[at] ^= 1);
        refused(what, platform.verify(&bundle), "tdx.header", Rejected);
    }
    let bundle = platform.bundle_with_draft(|draft| draft.header[5] ^= 1);
    refused("TEE type", platform.verify(&bundle), "tdx.format", Malformed);
}

#[test]
fn a_forged_quoting_enclave_is_refused() {
    let platform = Platform::new();
    // Signed by the genuine PCK, as a flaw like CVE-2026-22696 would have accepted.
    for (what, at) in
        [("MRSIGNER", 128), ("ISVPRODID", 256), ("ISVSVN", 258), ("MISCSELECT", 16), ("debug", 48)]
    {
        let bundle = platform.bundle_with_draft(|draft| match what {
            "ISVSVN" => draft.qe_report[at] = 0,
            "debug" => draft.qe_report[at] |= 2,
            _ => draft.qe_report[at] ^= 1,
        });
        refused(what, platform.verify(&bundle), "tdx.qe_identity", Rejected);
    }
    let other = Platform::new();
    let forged = with_documents(&platform, |documents| {
        replace(&mut documents.qe_identity, "\"isvprodid\":2", "\"isvprodid\":3");
    });
    refused("identity of another QE", platform.verify(&forged), "tdx.qe_identity", Rejected);
    let bundle = Bundle { quote: other.bundle().quote, ..platform.bundle() };
    refused("a platform under another root", platform.verify(&bundle), "tdx.root", Signature);
}

#[test]
fn documents_that_the_issuer_did_not_sign_are_refused() {
    let platform = Platform::new();
    for (field, check) in [("\\\"isvprodid\\\":2", "tdx.qe_identity"), ("\\\"pcesvn\\\":11", "tdx.tcb_info")]
    {
        let mut bundle = platform.bundle();
        let mut text = String::from_utf8(common::collateral_of(&bundle).to_vec()).expect("JSON");
        let changed = field.replace("11", "10").replace(":2", ":1");
        replace(&mut text, field, &changed);
        bundle.endorsements[0] = Endorsement::IntelCollateral(text.into_bytes());
        refused(field, platform.verify(&bundle), check, Signature);
    }
}

#[test]
fn all_64_bytes_of_the_qe_report_data_count() {
    let platform = Platform::new();
    for at in 320..384 {
        let bundle = platform.bundle_with_draft(|draft| draft.qe_report[at] ^= 0x10);
        refused(&format!("byte {at}"), platform.verify(&bundle), "tdx.qe_report_data", Signature);
    }
}

#[test]
fn a_quote_with_anything_left_over_is_refused() {
    let platform = Platform::new();
    let lengthened = |tail: &[u8]| {
        let mut bundle = platform.bundle();
        bundle.quote.extend_from_slice(tail);
        bundle
    };
    platform.verify(&lengthened(&[0; 70])).expect("zero padding is allowed");
    refused("garbage", platform.verify(&lengthened(&[0, 0, 1])), "tdx.format", Malformed);
    refused("too much padding", platform.verify(&lengthened(&[0; 16 * 1024])), "tdx.format", Malformed);
}

/// Other verifiers demand 32 bytes. Whatever its length, it is hashed into the report that the PCK signs.
#[test]
fn authentication_data_may_have_any_length_that_was_signed() {
    let platform = Platform::new();
    let with = |length: usize, signed: usize| {
        platform.bundle_with_draft(|draft| {
            draft.qe_auth_data = vec![7; length];
            let bound = sha256(&[&platform.key.public()[..], &vec![7; signed]].concat());
            draft.qe_report[320..352].copy_from_slice(&bound);
        })
    };
    for length in [0, 1, 31, 33, 4000] {
        platform.verify(&with(length, length)).unwrap_or_else(|refusal| panic!("{length}: {refusal}"));
        let other = with(length, length + 1);
        refused(&format!("{length} bytes"), platform.verify(&other), "tdx.qe_report_data", Signature);
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 is 32 bytes")
}

#[test]
fn collateral_of_another_platform_is_refused() {
    let platform = Platform::new();
    let pceid =
        with_documents(&platform, |d| replace(&mut d.tcb_info, "\"pceId\":\"0000\"", "\"pceId\":\"0001\""));
    refused("PCEID", platform.verify(&pceid), "tdx.platform", Rejected);
    let fmspc = with_documents(&platform, |d| replace(&mut d.tcb_info, "53494d544458", "53494d544459"));
    refused("FMSPC", platform.verify(&fmspc), "tdx.platform", Rejected);
    let sgx = with_documents(&platform, |d| replace(&mut d.tcb_info, "\"id\":\"TDX\"", "\"id\":\"SGX\""));
    refused("SGX's TCB info", platform.verify(&sgx), "tdx.tcb_info", Rejected);
    let other = Platform::new();
    let bundle = Bundle { endorsements: other.bundle().endorsements, ..platform.bundle() };
    refused("another root's", platform.verify(&bundle), "tdx.collateral", Signature);
}

#[test]
fn a_tcb_status_is_tolerated_only_by_its_name_and_revoked_never() {
    let platform = Platform::new();
    let platform_level = |status: &str| {
        with_documents(&platform, |d| {
            let (levels, new) = ("\"pcesvn\":11", format!("\"tcbStatus\":\"{status}\""));
            let at = d.tcb_info.find(levels).expect("the platform's level");
            let tail = d.tcb_info.split_off(at);
            d.tcb_info.push_str(&tail.replace("\"tcbStatus\":\"UpToDate\"", &new));
        })
    };
    let qe_level =
        |status: &str| with_documents(&platform, |d| replace(&mut d.qe_identity, "UpToDate", status));
    let verify_with = |bundle: &Bundle, names: &str| {
        let exceptions: Exceptions = names.parse().expect("known names");
        let evidence = Evidence::Bundle(bundle.clone());
        verify(&evidence, &Endorsements::none(), &platform.anchors(), &exceptions, NOW)
    };
    for status in ["OutOfDate", "SWHardeningNeeded", "ConfigurationNeeded"] {
        let bundle = platform_level(status);
        refused(status, verify_with(&bundle, ""), "tdx.tcb", Rejected);
        refused(status, verify_with(&bundle, "tcb:TDRelaunchAdvised"), "tdx.tcb", Rejected);
        verify_with(&bundle, &format!("tcb:{status}")).unwrap_or_else(|refusal| panic!("{refusal}"));
        let expired = format!("tcb:{status}@2026-01-01");
        refused(status, verify_with(&bundle, &expired), "tdx.tcb", Rejected);
    }
    // dcap-qvl alone calls the last of these UpToDate.
    for status in ["OutOfDate", "ConfigurationNeeded"] {
        refused(status, verify_with(&qe_level(status), ""), "tdx.tcb", Rejected);
    }
    for bundle in [platform_level("Revoked"), qe_level("Revoked")] {
        refused("Revoked", verify_with(&bundle, "tcb:OutOfDate"), "tdx.tcb", Rejected);
    }
}

#[test]
fn a_revoked_platform_is_refused() {
    let platform = Platform::new();
    let documents = platform.root.documents_revoking(Revoked::Platform, NOW);
    let bundle = Bundle {
        endorsements: vec![Endorsement::IntelCollateral(platform.root.endorse(&documents))],
        ..platform.bundle()
    };
    refused("revoked PCK", platform.verify(&bundle), "tdx.crl", Rejected);
}

#[test]
fn revocation_lists_must_be_there_and_be_the_right_ones() {
    let platform = Platform::new();
    let no_root = with_documents(&platform, |d| d.root_ca_crl.clear());
    refused("no root CRL", platform.verify(&no_root), "tdx.crl", Unavailable);
    let no_pck = with_documents(&platform, |d| d.pck_crl.clear());
    refused("no PCK CRL", platform.verify(&no_pck), "tdx.crl", Unavailable);
    let twice = with_documents(&platform, |d| d.root_ca_crl = d.pck_crl.clone());
    refused("PCK CRL in the root's place", platform.verify(&twice), "tdx.crl", Signature);
    let root_twice = with_documents(&platform, |d| d.pck_crl = d.root_ca_crl.clone());
    refused("root CRL in the PCK's place", platform.verify(&root_twice), "tdx.crl", Signature);
    let others = Platform::new().root.documents(NOW);
    let foreign = with_documents(&platform, |d| d.pck_crl = others.pck_crl.clone());
    refused("another CA's PCK CRL", platform.verify(&foreign), "tdx.crl", Signature);
}

#[test]
fn everything_must_be_in_date() {
    let platform = Platform::new();
    let bundle = platform.bundle();
    verify_at(&platform, &bundle, UnixTime(NOW.0 + 29 * DAY)).expect("collateral holds for 30 days");
    for (what, now) in [("expired", NOW.0 + 31 * DAY), ("not yet", NOW.0 - DAY / 2)] {
        refused(what, verify_at(&platform, &bundle, UnixTime(now)), "tdx.validity", Unavailable);
    }
    let later = UnixTime(NOW.0 + 2 * DAY);
    let future_crl = with_documents(&platform, |d| d.pck_crl = platform.root.documents(later).pck_crl);
    refused("a CRL of the future", platform.verify(&future_crl), "tdx.validity", Unavailable);
    let earlier = UnixTime(NOW.0 - 31 * DAY);
    for which in ["root", "PCK"] {
        let old_crl = with_documents(&platform, |d| match which {
            "root" => d.root_ca_crl = platform.root.documents(earlier).root_ca_crl,
            _ => d.pck_crl = platform.root.documents(earlier).pck_crl,
        });
        refused(&format!("an old {which} CRL"), platform.verify(&old_crl), "tdx.validity", Unavailable);
    }
    let in_8_years = UnixTime(NOW.0 + 8 * 365 * DAY);
    let bundle = Bundle {
        endorsements: vec![Endorsement::IntelCollateral(platform.root.collateral(in_8_years))],
        ..bundle
    };
    refused("an old PCK", verify_at(&platform, &bundle, in_8_years), "tdx.validity", Unavailable);
}

#[test]
fn older_collateral_than_seen_before_is_refused() {
    let platform = Platform::new();
    let evidence = Evidence::Bundle(platform.bundle());
    for (floor, accepted) in [(0, true), (1, true), (2, false)] {
        let anchors = platform.anchors().with_evaluation_floor(floor);
        let result = verify(&evidence, &Endorsements::none(), &anchors, &Exceptions::none(), NOW);
        assert_eq!(result.is_ok(), accepted, "floor {floor}");
        if !accepted {
            refused("rollback", result, "tdx.rollback", Rejected);
        }
    }
}

#[test]
fn without_exactly_one_collateral_nothing_is_genuine() {
    let platform = Platform::new();
    let bundle = platform.bundle();
    let none = Bundle { endorsements: vec![], ..bundle.clone() };
    refused("none", platform.verify(&none), "tdx.collateral", Unavailable);
    let two = Bundle { endorsements: vec![bundle.endorsements[0].clone(); 2], ..bundle.clone() };
    refused("two", platform.verify(&two), "tdx.collateral", Unavailable);
    let spaced = [b" ", common::collateral_of(&bundle)].concat();
    let loose = Bundle { endorsements: vec![Endorsement::IntelCollateral(spaced.clone())], ..bundle.clone() };
    refused("another form of the same JSON", platform.verify(&loose), "tdx.collateral", Malformed);
    // The caller's own file may be in any form, and is used in the bundle's place.
    let own = Endorsements::from_files(vec![spaced]).expect("one small file");
    let evidence = Evidence::Bundle(none);
    verify(&evidence, &own, &platform.anchors(), &Exceptions::none(), NOW).expect("the caller brought it");
}

/// dcap-qvl prefers a chain beside the quote to the one in it.
#[test]
fn a_pck_chain_beside_the_quote_must_be_the_one_in_it() {
    let platform = Platform::new();
    let bundle = platform.bundle();
    let chain_of = |bundle: &Bundle| {
        let quote = cocoon_attestation::tdx::Quote::parse(&bundle.quote).expect("a quote");
        String::from_utf8(quote.pck_chain_text.to_vec()).expect("PEM is text")
    };
    let with_chain = |chain: String| {
        let mut collateral: serde_json::Value =
            serde_json::from_slice(common::collateral_of(&bundle)).expect("collateral");
        collateral["pck_certificate_chain"] = chain.into();
        let own =
            Endorsements::from_files(vec![collateral.to_string().into_bytes()]).expect("one small file");
        let evidence = Evidence::Bundle(bundle.clone());
        verify(&evidence, &own, &platform.anchors(), &Exceptions::none(), NOW)
    };
    with_chain(chain_of(&bundle)).expect("the same chain");
    let others = chain_of(&Platform::new().bundle());
    refused("another chain", with_chain(others), "tdx.collateral", Signature);
    refused("no chain", with_chain(String::new()), "tdx.collateral", Malformed);
}

#[test]
fn a_simulated_platform_is_nothing_to_a_production_verifier() {
    let platform = Platform::new();
    let evidence = Evidence::Bundle(platform.bundle());
    let hardware = TrustAnchors::hardware();
    let result = verify(&evidence, &Endorsements::none(), &hardware, &Exceptions::none(), NOW);
    refused("simulated", result, "tdx.root", Signature);
    let other = Platform::new();
    refused("another network's root", other.verify(&platform.bundle()), "tdx.root", Signature);
    assert!(platform.verify(&platform.bundle()).expect("its own network").simulated());
}

#[test]
fn a_key_or_claim_that_the_td_did_not_bind_is_refused() {
    let platform = Platform::new();
    let mut swapped = common::statement();
    swapped.keys.seal[0] ^= 1;
    let bundle = Bundle { statement: swapped.encode(), ..platform.bundle() };
    refused("a gateway's own key", platform.verify(&bundle), "binding.report_data", Signature);
}

#[test]
fn a_bound_statement_in_another_encoding_is_refused() {
    let platform = Platform::new();
    let good = common::statement().encode();
    let mut long_head = good.clone();
    assert_eq!(long_head[1..3], [0x00, 0x01], "key 0, version 1");
    long_head.splice(2..3, [0x18, 0x01]); // 1 in two bytes
    for (what, bytes) in [("a longer form", long_head), ("a byte more", [&good[..], &[0]].concat())] {
        let quote = platform.root.sign_quote(&platform.draft(&bytes), &platform.key);
        let bundle = Bundle { statement: bytes.clone(), quote, ..platform.bundle() };
        assert_eq!(statement::report_data(&bytes), platform_report_data(&bundle));
        refused(what, platform.verify(&bundle), "binding.report_data", Malformed);
    }
}

fn platform_report_data(bundle: &Bundle) -> [u8; 64] {
    *cocoon_attestation::tdx::Quote::parse(&bundle.quote).expect("a quote").report.report_data()
}

#[test]
fn what_cannot_be_judged_is_not_accepted() {
    let platform = Platform::new();
    let log = Bundle { event_log: Some(vec![1]), ..platform.bundle() };
    refused("not an event log", platform.verify(&log), "tdx.eventlog", Malformed);
    let gpu = Bundle { gpu: vec![vec![1]], ..platform.bundle() };
    refused("GPU evidence", platform.verify(&gpu), "gpu.format", Malformed);
    let mut claims = common::statement();
    claims.gpu_evidence.push([1; 32]);
    refused("a claimed GPU", platform.verify(&platform.bundle_of(&claims)), "binding.gpu", Rejected);
    for (what, bytes) in [("other JSON", &b"[{}]"[..]), ("nothing", b""), ("rubbish", b"rubbish")] {
        refused(what, Evidence::detect(bytes), "evidence.form", Malformed);
    }
}
