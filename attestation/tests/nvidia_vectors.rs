//! Real NVIDIA evidence gets the verdict it must get, and every changed byte of it is refused.

#[path = "common/vectors.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "shared by several test crates, each of which uses its own part"
)]
mod vectors;

use std::path::Path;

use cocoon_attestation::nvidia::nvidia_needs;
use cocoon_attestation::{
    Endorsements, Evidence, Exceptions, Genuine, Refusal, Status, TrustAnchors, UnixTime, Verifier,
};
use vectors::Vectors;

/// What refuses each case, so that a refusal for a wrong reason is seen. Cases that are not here must be genuine.
const REFUSED_BY: [(&str, &str); 5] = [
    ("gpu-hopper-rim-forged", "gpu.rim.driver"),
    ("gpu-hopper-badsig", "gpu.signature"),
    ("neg-gpu-meas0", "gpu.signature"),
    ("neg-gpu-nonce", "gpu.signature"),
    ("neg-gpu-reclen", "gpu.format"),
];

/// A time at which the RIMs' signers were in date.
const RIM_TIME: u64 = 1_700_000_000;
const CHAIN: &str = "nvidia/sdk_hopperCertChain.txt";
const REPORT: &str = "nvidia/sdk_hopperAttestationReport.txt";
const VBIOS_RIM: &str = "nvidia/vbiosrim_1010_0200_882_96005E0001_PROD.swidtag";

fn verify(evidence: &[u8], files: Vec<Vec<u8>>, at: u64) -> Result<Genuine, Refusal> {
    verify_for(evidence, files, at, None)
}

fn verify_for(
    evidence: &[u8],
    files: Vec<Vec<u8>>,
    at: u64,
    nonce: Option<[u8; 32]>,
) -> Result<Genuine, Refusal> {
    let endorsements = Endorsements::from_files(files).expect("files of known forms");
    let (anchors, none) = (TrustAnchors::hardware(), Exceptions::none());
    let mut verifier = Verifier::new(&anchors, &none, UnixTime(at));
    if let Some(nonce) = nonce {
        verifier = verifier.with_nonce(nonce);
    }
    verifier.verify(&Evidence::detect(evidence)?, &endorsements)
}

fn status(genuine: &Genuine, id: &str) -> Status {
    genuine.checks().iter().find(|check| check.id == id).expect("a check of this name").status
}

#[test]
fn every_nvidia_case_gets_its_verdict() {
    let Some(vectors) = Vectors::find() else { return };
    let mut wrong = Vec::new();
    for case in vectors.cases().into_iter().filter(|case| case["kind"] == "nvidia") {
        let id = case["id"].as_str().expect("text").to_owned();
        let names = case["endorsements"].as_array().cloned().unwrap_or_default();
        let files = names.iter().map(|name| vectors.read(name.as_str().expect("a file name"))).collect();
        let evidence = vectors.read(case["evidence"].as_str().expect("a file name"));
        let result = verify(&evidence, files, case["at"].as_u64().expect("seconds"));
        let because = REFUSED_BY.iter().find(|(refused, _)| *refused == id).map(|(_, check)| *check);
        match &result {
            Ok(genuine) => {
                assert_eq!((genuine.platform().name(), genuine.simulated()), ("nvidia", false));
                let asked = case["checks"].as_object().cloned().unwrap_or_default();
                for (check, expected) in asked {
                    let got = format!("{:?}", status(genuine, &check)).to_lowercase();
                    assert_eq!(got, expected.as_str().expect("a status"), "{id} {check}");
                }
                for check in genuine.checks() {
                    println!("{id} {} {:?}: {} | {}", check.id, check.status, check.got, check.why);
                }
            }
            Err(refusal) => println!("{id}: {refusal}"),
        }
        let got = result.as_ref().err().map(|refusal| refusal.check);
        if got != because || got.is_none() != (case["expect"] == "genuine") {
            wrong.push(format!("{id}: got {got:?}, expected {because:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
