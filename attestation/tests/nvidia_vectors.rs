//! Real NVIDIA evidence gets the verdict it must get, and every changed byte of it is refused.

mod common;

use cocoon_attestation::nvidia::{Evidence as Devices, nvidia_needs, ocsp_request};
use cocoon_attestation::{
    Endorsements, Evidence, Exceptions, Genuine, Refusal, Status, TrustAnchors, UnixTime, Verifier,
};
use common::mutate;
use common::vectors::Vectors;

/// A time at which the RIMs' signers were in date.
const RIM_TIME: u64 = 1_700_000_000;
const NONE: [usize; 0] = [];
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
fn no_other_rim_that_was_gathered_fits_the_device() {
    let Some(vectors) = Vectors::find() else { return };
    let (report, chain) = (vectors.read(REPORT), vectors.read(CHAIN));
    let mut fitting = Vec::new();
    for name in vectors.names("nvidia").into_iter().filter(|name| name.contains("rim_")) {
        match verify(&report, vec![chain.clone(), vectors.read(&name)], RIM_TIME) {
            Ok(_) => fitting.push(name),
            Err(refusal) => {
                let by_version = refusal.check.starts_with("gpu.rim.") && refusal.got.contains("none for");
                let forged = refusal.got.contains("signature does not hold") && name.contains("mismatch");
                let board = refusal.check == "gpu.measurements" && name.contains("test_no_gpu");
                assert!(by_version || forged || board, "{name}: {refusal}");
            }
        }
    }
    assert_eq!(fitting, [VBIOS_RIM]);
}

#[test]
fn a_rim_is_refused_once_its_signers_are_out_of_date() {
    let Some(vectors) = Vectors::find() else { return };
    let files = || vec![vectors.read(CHAIN), vectors.read(VBIOS_RIM)];
    let refusal =
        verify(&vectors.read(REPORT), files(), 1_785_000_000).expect_err("its signer ended in 2025");
    assert_eq!(
        (refusal.check, refusal.kind),
        ("gpu.rim.vbios", cocoon_attestation::RefusalKind::Unavailable)
    );
}

#[test]
fn a_whole_folder_of_rims_may_be_handed_over() {
    let Some(vectors) = Vectors::find() else { return };
    // Two of them are for the device's version, and only the later one for its board.
    let rims = vectors
        .names("nvidia")
        .into_iter()
        .rev()
        .filter(|name| name.ends_with(".swidtag") && !name.contains("Driver"));
    let files = rims.map(|name| vectors.read(&name)).chain([vectors.read(CHAIN)]).collect();
    let genuine = verify(&vectors.read(REPORT), files, RIM_TIME).expect("its own RIM is among them");
    assert_eq!(status(&genuine, "gpu.rim.vbios"), Status::Pass);
}

#[test]
fn a_report_must_answer_the_callers_challenge() {
    let Some(vectors) = Vectors::find() else { return };
    let (report, chain) = (vectors.read(REPORT), vectors.read(CHAIN));
    let mut nonce = [0; 32];
    hex::decode_to_slice(&report[8..72], &mut nonce).expect("hex");
    let genuine = verify_for(&report, vec![chain.clone()], RIM_TIME, Some(nonce)).expect("it is the nonce");
    assert_eq!(status(&genuine, "gpu.nonce"), Status::Pass);
    nonce[0] ^= 1;
    let refusal = verify_for(&report, vec![chain], RIM_TIME, Some(nonce)).expect_err("another nonce");
    assert_eq!(refusal.check, "gpu.nonce");
}

#[test]
fn what_a_device_needs_is_named() {
    let Some(vectors) = Vectors::find() else { return };
    let needs = |evidence: &str, chain: &[&str]| {
        let files = chain.iter().map(|name| vectors.read(name));
        let endorsements = Endorsements::from_files(files).expect("certificates");
        match Evidence::detect(&vectors.read(evidence)).expect("GPU evidence") {
            Evidence::Nvidia(devices) => nvidia_needs(&devices, &endorsements),
            other => panic!("{other:?}"),
        }
    };
    let hopper = needs("nvidia/nvtrust_hopperAttestationReport.txt", &["nvidia/nvtrust_hopperCertChain.txt"]);
    assert_eq!(hopper[0].rims, ["NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_1010_0200_882_96009F0001"]);
    assert_eq!(hopper[0].ocsp_requests.len(), 3, "boot ROM, provisioner, family");
    let switch = needs("nvidia/sdk_switchAttestationReport.txt", &["nvidia/sdk_switchCertChain.txt"]);
    assert_eq!(switch[0].rims, ["NV_SWITCH_BIOS_5612_0002_890_9610550001"]);
    assert_eq!(needs("nvidia/ppcie_gpu_evidence.json", &[]).len(), 8);
    assert!(ocsp_request(b"", b"").is_err());
    assert!(Devices::new(vec![]).is_err());
}

/// Flips one walking bit of every byte; says at which bytes the evidence is still accepted.
fn accepted(original: &[u8], verify: impl Fn(&[u8]) -> bool + Sync) -> Vec<usize> {
    assert!(verify(original), "the original is accepted");
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let part = |worker: usize| {
        let mut changed = original.to_vec();
        let mut found = Vec::new();
        for at in (worker..original.len()).step_by(workers) {
            changed[at] ^= 1 << (at % 8);
            if verify(&changed) {
                found.push(at);
            }
            changed[at] = original[at];
        }
        found
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || part(worker))).collect();
        let mut all: Vec<usize> =
            threads.into_iter().flat_map(|thread| thread.join().expect("no byte panics")).collect();
        all.sort_unstable();
        all
    })
}

#[test]
fn no_changed_byte_of_a_report_is_accepted() {
    let Some(vectors) = Vectors::find() else { return };
    for (report, chain) in [
        (REPORT, CHAIN),
        ("nvidia/nvtrust_hopperAttestationReport.txt", "nvidia/nvtrust_hopperCertChain.txt"),
        ("nvidia/trustee_hopper_coco_report1.txt", "nvidia/trustee_hopper_coco_certs1.txt"),
        ("nvidia/sdk_switchAttestationReport.txt", "nvidia/sdk_switchCertChain.txt"),
    ] {
        let report = hex::decode(vectors.read(report).trim_ascii()).expect("hex");
        let chain = vectors.read(chain);
        assert_eq!(accepted(&report, |changed| verify(changed, vec![chain.clone()], RIM_TIME).is_ok()), NONE);
        for length in 0..report.len() {
            assert!(verify(&report[..length], vec![], RIM_TIME).is_err(), "cut to {length}");
        }
    }
}

#[test]
fn no_changed_byte_of_a_chain_is_accepted() {
    let Some(vectors) = Vectors::find() else { return };
    let report = vectors.read(REPORT);
    let pem = vectors.read(CHAIN);
    let Ok(all) = Endorsements::from_files(vec![pem]) else { panic!("a chain") };
    let certificates: Vec<Vec<u8>> = all
        .items()
        .iter()
        .map(|item| match item {
            cocoon_attestation::Endorsement::Certificate(der) => der.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    for at in 0..certificates.len() {
        let with = |changed: &[u8]| {
            let mut files = certificates.clone();
            files[at] = changed.to_vec();
            let Ok(endorsements) = Endorsements::from_files(files) else { return false };
            let (anchors, none) = (TrustAnchors::hardware(), Exceptions::none());
            let evidence = Evidence::detect(&report).expect("a report");
            Verifier::new(&anchors, &none, UnixTime(RIM_TIME)).verify(&evidence, &endorsements).is_ok()
        };
        assert_eq!(accepted(&certificates[at], with), NONE, "certificate {at}");
    }
}

/// What canonicalisation does not cover means nothing: white space within tags, around base64 and after the root.
#[test]
fn no_changed_byte_of_a_rim_is_accepted_unless_it_is_white_space_outside_what_is_signed() {
    let Some(vectors) = Vectors::find() else { return };
    let (report, chain, rim) = (vectors.read(REPORT), vectors.read(CHAIN), vectors.read(VBIOS_RIM));
    let with = |changed: &[u8]| {
        let Ok(endorsements) = Endorsements::from_files(vec![chain.clone(), changed.to_vec()]) else {
            return false;
        };
        let (anchors, none) = (TrustAnchors::hardware(), Exceptions::none());
        let evidence = Evidence::detect(&report).expect("a report");
        let genuine = Verifier::new(&anchors, &none, UnixTime(RIM_TIME)).verify(&evidence, &endorsements);
        genuine.is_ok_and(|genuine| status(&genuine, "gpu.rim.vbios") == Status::Pass)
    };
    assert_eq!(accepted(&rim, with), NONE);
    let key_info = rim.windows(12).position(|part| part == b"<ds:KeyInfo>").expect("it has one");
    for at in (0..rim.len()).filter(|at| rim[*at].is_ascii_whitespace()) {
        let mut changed = rim.clone();
        changed[at] = if rim[at] == b'\t' { b' ' } else { b'\t' };
        let last = rim[..at].iter().rposition(|byte| b"<>".contains(byte)).expect("a tag before");
        // In a tag white space is between attributes, or in a value, where each kind reads as a space (XML 1.0, 3.3.3).
        let means_nothing = rim[last] == b'<' || at > key_info;
        assert_eq!(with(&changed), means_nothing, "byte {at}");
    }
}

/// What means nothing: the case of hex, and the line end after the last certificate's PEM (in base64 here).
#[test]
fn no_changed_byte_of_an_evidence_json_is_accepted_unless_it_means_nothing() {
    let Some(vectors) = Vectors::find() else { return };
    let json = vectors.read("nvidia/sdk_hopper_evidence.json");
    let place = |text: &[u8]| json.windows(text.len()).position(|part| part == text).expect("it is there");
    let nonce = place(b"\"nonce\"");
    let last_of_pem = place(b"\"evidence\"") - 16..place(b"\"evidence\"");
    let accepted = accepted(&json, |changed| verify(changed, vec![], RIM_TIME).is_ok());
    let meaningful: Vec<usize> = accepted
        .into_iter()
        .filter(|at| {
            let hex_case = *at > nonce && json[*at].is_ascii_alphabetic() && at % 8 == 5;
            !hex_case && !last_of_pem.contains(at)
        })
        .collect();
    assert_eq!(meaningful, NONE);
}

/// Damage of all kinds never panics, and never takes long.
#[test]
fn damaged_evidence_and_endorsements_never_panic() {
    const ROUNDS: usize = 3_000;
    let Some(vectors) = Vectors::find() else { return };
    let report = hex::decode(vectors.read(REPORT).trim_ascii()).expect("hex");
    let (chain, rim) = (vectors.read(CHAIN), vectors.read(VBIOS_RIM));
    let json = vectors.read("nvidia/sdk_hopper_evidence.json");
    let mut random = mutate::Random(0x4e56_4944);
    let start = std::time::Instant::now();
    for _ in 0..ROUNDS {
        let _ = verify(&mutate::mutate(&json, &mut random), vec![], RIM_TIME);
        let damaged = mutate::mutate(&report, &mut random);
        if let Ok(genuine) = verify(&damaged, vec![chain.clone()], RIM_TIME) {
            assert!(damaged == report || damaged == [&report[..], &[0]].concat(), "{genuine:?}");
        }
        let endorsements = Endorsements::from_files(vec![chain.clone(), mutate::mutate(&rim, &mut random)]);
        let Ok(endorsements) = endorsements else { continue };
        let (anchors, none) = (TrustAnchors::hardware(), Exceptions::none());
        let evidence = Evidence::detect(&report).expect("a report");
        let _ = Verifier::new(&anchors, &none, UnixTime(RIM_TIME)).verify(&evidence, &endorsements);
    }
    let each = start.elapsed() / u32::try_from(ROUNDS).expect("few");
    assert!(each.as_millis() < 100, "{each:?} for three verifications");
}
