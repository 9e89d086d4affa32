//! What NVIDIA's evidence costs, against its signature verifications alone, in the same run and taking turns:
//! `cargo run --release -p cocoon-attestation --example gpu_speed`.

#[path = "../tests/common/vectors.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with tests, which use other parts")]
mod vectors;

use std::time::Instant;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use cocoon_attestation::{Endorsements, Evidence, Exceptions, TrustAnchors, UnixTime, Verifier};
use vectors::Vectors;

const ROUNDS: usize = 400;
/// Signatures over a report and its chain: report, firmware, boot ROM, provisioner, family. The root is pinned.
const REPORT_AND_CHAIN: usize = 5;
/// Signatures over a RIM: the document, its signer, and two authorities. The root is pinned.
const RIM: usize = 4;
/// When the RIM's signer was in date.
const AT: UnixTime = UnixTime(1_700_000_000);

/// Medians of several kinds of work, in µs, each done in turn.
fn medians<const N: usize>(mut work: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..ROUNDS {
        for (work, times) in work.iter_mut().zip(&mut times) {
            let start = Instant::now();
            work();
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    times.map(|mut times| {
        times.sort_unstable_by(f64::total_cmp);
        times[ROUNDS / 2]
    })
}

fn main() {
    let Some(vectors) = Vectors::find() else { return };
    let report =
        hex::decode(vectors.read("nvidia/sdk_hopperAttestationReport.txt").trim_ascii()).expect("hex");
    let chain = vectors.read("nvidia/sdk_hopperCertChain.txt");
    let rim = vectors.read("nvidia/vbiosrim_1010_0200_882_96005E0001_PROD.swidtag");
    let eight = vectors.read("nvidia/ppcie_gpu_evidence.json");

    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &random).expect("a key");
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, pkcs8.as_ref()).expect("a key");
    // As long as a certificate; hashing a report's 4 KiB adds 6 µs to one of five.
    let message = &report[..700];
    let signature = key.sign(&random, message).expect("a signature");
    let public = UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, key.public_key().as_ref().to_vec());
    let signatures = |count: usize| {
        for _ in 0..count {
            public.verify(message, signature.as_ref()).expect("it holds");
        }
    };

    let (anchors, none) = (TrustAnchors::hardware(), Exceptions::none());
    let verifier = Verifier::new(&anchors, &none, AT);
    let verify = |evidence: &[u8], files: &[&[u8]]| {
        let endorsements = Endorsements::from_files(files.iter().map(|file| file.to_vec())).expect("files");
        drop(
            verifier.verify(&Evidence::detect(evidence).expect("evidence"), &endorsements).expect("genuine"),
        );
    };
    let [ours, floor, with_rim, rim_floor, all_eight, eight_floor] = medians([
        &mut || verify(&report, &[&chain]),
        &mut || signatures(REPORT_AND_CHAIN),
        &mut || verify(&report, &[&chain, &rim]),
        &mut || signatures(REPORT_AND_CHAIN + RIM),
        &mut || verify(&eight, &[]),
        // Each device has its own provisioner's work; provisioner and family are shared.
        &mut || signatures(8 * 3 + 2),
    ]);
    println!("medians of {ROUNDS}, in µs, on one core; floor: the signature verifications alone");
    println!("report and chain:          {ours:7.0}  floor {floor:7.0}  ratio {:.2}", ours / floor);
    println!(
        "report, chain and RIM:     {with_rim:7.0}  floor {rim_floor:7.0}  ratio {:.2}",
        with_rim / rim_floor
    );
    println!("the RIM alone:             {:7.0}  floor {:7.0}", with_rim - ours, rim_floor - floor);
    println!(
        "eight GPUs in JSON:        {all_eight:7.0}  floor {eight_floor:7.0}  ratio {:.2}",
        all_eight / eight_floor
    );
    let [parse] = medians([&mut || {
        for _ in 0..100 {
            cocoon_attestation::nvidia::measurement_count(std::hint::black_box(&report)).expect("a report");
        }
    }]);
    println!("parsing a report:          {:7.2}", parse / 100.0);
}
