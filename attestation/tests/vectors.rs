//! Real platforms' evidence gets the verdict it must get.

mod common;

use cocoon_attestation::{IntelTee, PckCa, TrustAnchors, intel_needs};
use common::vectors::{Vectors, verify_real};

/// What refuses each case, so that a refusal for a wrong reason is seen. Cases that are not here must be genuine.
const REFUSED_BY: [(&str, &str); 20] = [
    ("tdx-outdated-automata", "tdx.tcb"),
    ("tdx-debug", "tdx.debug"),
    ("tdx-azure-sept-ve", "tdx.tcb"),
    ("tdx-no-level-tappd", "tdx.tcb"),
    ("tdx-no-level-spr-e4", "tdx.format"),
    ("tdx-no-level-td15", "tdx.tcb"),
    ("tdx-expired-collateral", "tdx.validity"),
    ("neg-tdx-ak-flip", "tdx.signature"),
    ("neg-tdx-akt3", "tdx.header"),
    ("neg-tdx-authlen-huge", "tdx.format"),
    ("neg-tdx-debugbit-set", "tdx.signature"),
    ("neg-tdx-mrtd-flip", "tdx.signature"),
    ("neg-tdx-reportdata-flip", "tdx.signature"),
    ("neg-tdx-rtmr3-flip", "tdx.signature"),
    ("neg-tdx-sig-flip", "tdx.signature"),
    ("neg-tdx-trailing100", "tdx.format"),
    ("neg-tdx-trunc", "tdx.format"),
    ("neg-collateral-no-root-crl", "tdx.crl"),
    ("neg-collateral-rollback-tcbinfo", "tdx.validity"),
    ("neg-collateral-tcb-status-edited", "tdx.tcb_info"),
];

#[test]
fn every_tdx_case_gets_its_verdict() {
    let Some(vectors) = Vectors::find() else { return };
    let development = common::Platform::new().anchors();
    let mut wrong = Vec::new();
    for case in vectors.cases() {
        let text = |key: &str| case[key].as_str().expect("text").to_owned();
        let endorsements = case["endorsements"].as_array().cloned().unwrap_or_default();
        if text("kind") != "tdx" {
            continue;
        }
        if endorsements.len() != 1 {
            println!("SKIPPED {}: event logs are not judged yet", text("id"));
            continue;
        }
        let allow: Vec<&str> =
            case["allow"].as_array().into_iter().flatten().filter_map(|name| name.as_str()).collect();
        let collateral = vectors.read(endorsements[0].as_str().expect("a file name"));
        let at = case["at"].as_u64().expect("seconds");
        let evidence = vectors.read(&text("evidence"));
        let result = verify_real(&evidence, &collateral, &TrustAnchors::hardware(), at, &allow);
        let on_a_development_network = verify_real(&evidence, &collateral, &development, at, &allow);
        assert_eq!(
            on_a_development_network.as_ref().err(),
            result.as_ref().err(),
            "another root changes nothing"
        );
        assert!(on_a_development_network.is_ok_and(|genuine| !genuine.simulated()) || result.is_err());
        let got = match &result {
            Ok(genuine) => {
                assert!(!genuine.simulated(), "Intel's root is never simulated");
                None
            }
            Err(refusal) => {
                println!("{}: {refusal}", text("id"));
                Some(refusal.check)
            }
        };
        let because = REFUSED_BY.iter().find(|(id, _)| *id == text("id")).map(|(_, check)| *check);
        if got != because || got.is_none() != (text("expect") == "genuine") {
            wrong.push(format!("{}: got {got:?}, expected {because:?}", text("id")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_a_real_quote_needs_is_what_its_case_brings() {
    let Some(vectors) = Vectors::find() else { return };
    let mut seen = 0;
    for case in vectors.cases() {
        if case["kind"] != "tdx" || case["id"].as_str().is_none_or(|id| id.starts_with("neg-")) {
            continue;
        }
        let evidence = vectors.read(case["evidence"].as_str().expect("a file name"));
        let Ok(needs) = intel_needs(&evidence) else {
            assert_eq!(case["id"], "tdx-no-level-spr-e4", "the one with text behind the quote");
            continue;
        };
        let collateral = case["endorsements"][0].as_str().expect("a file name");
        assert!(collateral.contains(&format!("tdx_{}", hex::encode(needs.fmspc))), "{collateral}: {needs:?}");
        assert_eq!((needs.tee, needs.ca), (IntelTee::Tdx, PckCa::Platform));
        seen += 1;
    }
    assert!(seen > 5);
}
