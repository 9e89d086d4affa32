//! What NVIDIA's evidence costs, against its signature verifications alone, in the same run and taking turns:
//! `cargo run --release -p cocoon-attestation --example gpu_speed`.

#[path = "../tests/common/vectors.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with tests, which use other parts")]
mod vectors;

use std::time::Instant;

use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Endorsements, Evidence, Exceptions, TrustAnchors, UnixTime, Verifier};
use vectors::Vectors;

const ROUNDS: usize = 400;
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

/// One signature, taken out of real evidence.
struct Signed {
    algorithm: &'static dyn VerificationAlgorithm,
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Signed {
    fn verify(&self) {
        let key = UnparsedPublicKey::new(self.algorithm, &self.key);
        key.verify(&self.message, &self.signature).expect("it is genuine");
    }
}

/// The length of the DER element that begins here, its head included, and of the head.
fn element(der: &[u8]) -> (usize, usize) {
    match der[1] {
        0x81 => (3 + usize::from(der[2]), 3),
        0x82 => (4 + usize::from(u16::from_be_bytes([der[2], der[3]])), 4),
        short => (2 + usize::from(short), 2),
    }
}

/// The P-384 point in a certificate: the bit string of 97 bytes.
fn key(certificate: &[u8]) -> Vec<u8> {
    let at = certificate.windows(3).position(|part| part == [3, 0x62, 0]).expect("a key");
    certificate[at + 3..at + 100].to_vec()
}

/// Each certificate's signature by the next one, the root's own left out.
fn links(chain: &[Vec<u8>]) -> Vec<Signed> {
    let link = |pair: &[Vec<u8>]| {
        let inside = &pair[0][element(&pair[0]).1..];
        let (signed, rest) = inside.split_at(element(inside).0);
        let bits = &rest[element(rest).0..];
        let signature = bits[element(bits).1 + 1..].to_vec();
        Signed { algorithm: &ECDSA_P384_SHA384_ASN1, key: key(&pair[1]), message: signed.to_vec(), signature }
    };
    chain.windows(2).map(link).collect()
}

fn report_signature(report: &[u8], leaf: &[u8]) -> Signed {
    let (message, signature) = report.split_at(report.len() - 96);
    Signed {
        algorithm: &ECDSA_P384_SHA384_FIXED,
        key: key(leaf),
        message: message.to_vec(),
        signature: signature.to_vec(),
    }
}

fn decoded(text: &str) -> Vec<u8> {
    STANDARD.decode(text.replace(['\n', '\r'], "")).expect("base64")
}

fn certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    let text = std::str::from_utf8(pem).expect("text");
    text.split("-----").skip(2).step_by(4).map(decoded).collect()
}

fn rim_certificates(rim: &[u8]) -> Vec<Vec<u8>> {
    let text = std::str::from_utf8(rim).expect("text");
    let parts = text.split("<ds:X509Certificate>").skip(1);
    parts.map(|part| decoded(part.split('<').next().expect("a part"))).collect()
}

fn main() {
    let Some(vectors) = Vectors::find() else { return };
    let report =
        hex::decode(vectors.read("nvidia/sdk_hopperAttestationReport.txt").trim_ascii()).expect("hex");
    let chain = vectors.read("nvidia/sdk_hopperCertChain.txt");
    let rim = vectors.read("nvidia/vbiosrim_1010_0200_882_96005E0001_PROD.swidtag");
    let eight = vectors.read("nvidia/ppcie_gpu_evidence.json");

    let of_the_report = [report_signature(&report, &certificates(&chain)[0])];
    let of_the_chain = links(&certificates(&chain));
    let of_the_rim = links(&rim_certificates(&rim));
    let signatures = |lists: &[&[Signed]]| lists.iter().copied().flatten().for_each(Signed::verify);

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
        &mut || signatures(&[&of_the_report, &of_the_chain]),
        &mut || verify(&report, &[&chain, &rim]),
        &mut || signatures(&[&of_the_report, &of_the_chain, &of_the_rim, &of_the_rim[..1]]),
        &mut || verify(&eight, &[]),
        // Report, firmware and boot ROM are each device's own; provisioner and family are shared.
        &mut || {
            for _ in 0..8 {
                signatures(&[&of_the_report, &of_the_chain[..2]]);
            }
            signatures(&[&of_the_chain[2..]]);
        },
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
