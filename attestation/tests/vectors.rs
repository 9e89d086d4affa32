//! Real platforms' evidence gets the verdict it must get.

mod common;

use cocoon_attestation::{
    Endorsements, Evidence, Exceptions, Genuine, IntelTee, PckCa, Refusal, TrustAnchors, UnixTime,
    intel_needs, verify,
};
use common::vectors::Vectors;

/// What refuses each case, and what else is wrong with it, so that a refusal for a wrong reason is seen. Cases that are
/// not here are held to their verdict alone.
const REFUSED_BY: [(&str, &[&str]); 37] = [
    ("tdx-outdated-automata", &["tdx.tcb"]),
    ("tdx-debug", &["tdx.debug"]),
    ("tdx-azure-sept-ve", &["tdx.tcb", "tdx.attributes"]),
    ("tdx-no-level-tappd", &["tdx.tcb"]),
    ("tdx-no-level-spr-e4", &["tdx.format"]),
    ("tdx-no-level-td15", &["tdx.tcb"]),
    ("tdx-expired-collateral", &["tdx.validity"]),
    ("neg-tdx-ak-flip", &["tdx.signature", "tdx.qe_report_data"]),
    ("neg-tdx-akt3", &["tdx.header", "tdx.signature"]),
    ("neg-tdx-authlen-huge", &["tdx.format"]),
    ("neg-tdx-debugbit-set", &["tdx.signature", "tdx.debug"]),
    ("neg-tdx-mrtd-flip", &["tdx.signature"]),
    ("neg-tdx-reportdata-flip", &["tdx.signature"]),
    ("neg-tdx-rtmr3-flip", &["tdx.signature"]),
    ("neg-tdx-sig-flip", &["tdx.signature"]),
    ("neg-tdx-trailing100", &["tdx.format"]),
    ("neg-tdx-trunc", &["tdx.format"]),
    ("neg-collateral-no-root-crl", &["tdx.crl"]),
    ("neg-collateral-rollback-tcbinfo", &["tdx.validity"]),
    ("neg-collateral-tcb-status-edited", &["tdx.tcb_info"]),
    ("log-gcp-swapped", &["tdx.eventlog"]),
    ("snp-milan-denied", &["snp.milan"]),
    ("snp-milan-v2-alias", &["snp.platform_info"]),
    ("snp-debug-policy", &["snp.debug"]),
    ("snp-vlek-vmpl1", &["snp.vmpl"]),
    ("snp-bad-vcek-legacy", &["snp.signature", "snp.chain", "snp.chip", "snp.tcb"]),
    ("snp-vcek-too-early", &["snp.validity"]),
    ("neg-snp-measurement", &["snp.signature"]),
    ("neg-snp-policy-debug", &["snp.signature", "snp.debug"]),
    ("neg-snp-reportdata", &["snp.signature"]),
    ("neg-snp-sigalgo", &["snp.signature"]),
    ("neg-snp-tcb-reserved", &["snp.format", "snp.signature"]),
    ("gpu-hopper-rim-forged", &["gpu.rim.driver"]),
    ("gpu-hopper-badsig", &["gpu.signature", "gpu.fwid"]),
    ("neg-gpu-meas0", &["gpu.signature"]),
    ("neg-gpu-nonce", &["gpu.signature"]),
    ("neg-gpu-reclen", &["gpu.format"]),
];

/// A case of the list, read.
struct Case {
    id: String,
    genuine: bool,
    evidence: Vec<u8>,
    files: Vec<Vec<u8>>,
    at: UnixTime,
    exceptions: Exceptions,
    /// Single checks and what must come out of them.
    checks: Vec<(String, String)>,
}

impl Case {
    fn read(vectors: &Vectors, case: &serde_json::Value) -> Self {
        let text = |key: &str| case[key].as_str().expect("text").to_owned();
        let list = |key: &str| -> Vec<String> {
            let values = case[key].as_array().into_iter().flatten();
            values.map(|value| value.as_str().expect("text").to_owned()).collect()
        };
        let checks = case["checks"].as_object().into_iter().flatten();
        Self {
            id: text("id"),
            genuine: text("expect") == "genuine",
            evidence: vectors.read(&text("evidence")),
            files: list("endorsements").iter().map(|name| vectors.read(name)).collect(),
            at: UnixTime(case["at"].as_u64().expect("seconds")),
            exceptions: Exceptions::parse(list("allow").iter().map(String::as_str)).expect("known names"),
            checks: checks
                .map(|(id, status)| (id.clone(), status.as_str().expect("text").to_owned()))
                .collect(),
        }
    }

    fn verify(&self, anchors: &TrustAnchors) -> Result<Genuine, Refusal> {
        let endorsements = Endorsements::from_files(self.files.clone()).expect("files of known forms");
        verify(&Evidence::detect(&self.evidence)?, &endorsements, anchors, &self.exceptions, self.at)
    }

    /// What is wrong with the verdict that came out.
    fn fault(&self, result: &Result<Genuine, Refusal>) -> Option<String> {
        let because = REFUSED_BY.iter().find(|(id, _)| *id == self.id).map(|(_, checks)| *checks);
        let (checks, failed) = match result {
            Ok(genuine) => (genuine.checks(), Vec::new()),
            Err(refusal) => (&refusal.checks[..], refusal.failed().collect()),
        };
        for (id, expected) in &self.checks {
            let check = checks.iter().find(|check| check.id == id).expect("a check of this name");
            if format!("{:?}", check.status).to_lowercase() != *expected {
                return Some(format!("{}: {id} is {:?}, must be {expected}", self.id, check.status));
            }
        }
        let right = result.is_ok() == self.genuine && because.is_none_or(|checks| checks == failed);
        (!right).then(|| format!("{}: failed {failed:?}, expected {because:?}", self.id))
    }
}

#[test]
fn every_case_gets_its_verdict() {
    let Some(vectors) = Vectors::find() else { return };
    let development = common::Platform::new().anchors();
    let (mut wrong, mut known) = (Vec::new(), 0);
    for case in vectors.cases() {
        let case = Case::read(&vectors, &case);
        known += usize::from(REFUSED_BY.iter().any(|(id, _)| *id == case.id));
        let result = case.verify(&TrustAnchors::hardware());
        if let Err(refusal) = &result {
            println!("{}: {refusal}", case.id);
        }
        let elsewhere = case.verify(&development);
        assert_eq!(elsewhere.as_ref().err(), result.as_ref().err(), "another root changes nothing");
        for genuine in [&result, &elsewhere].into_iter().flatten() {
            assert!(!genuine.simulated(), "{}: a hardware vendor's root is never simulated", case.id);
        }
        wrong.extend(case.fault(&result));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(known, REFUSED_BY.len(), "every line of the table has its case");
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
