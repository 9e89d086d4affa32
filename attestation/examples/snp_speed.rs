//! How long an SNP report takes, against `sev` and against its signatures alone, in turns:
//! `cargo run --release -p cocoon-attestation --example snp_speed`.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/kit/mod.rs"]
mod kit;

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey, VerificationAlgorithm,
};
use cocoon_attestation::snp::{KeyKind, Product, Report};
use cocoon_attestation::{Endorsement, Endorsements, Evidence, Exceptions, TrustAnchors, UnixTime, verify};
use common::vectors::Vectors;
use sev::certs::snp::{Certificate, Chain, Verifiable};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

const ROUNDS: usize = 400;
/// The targets of the project: of sev's time, and for parsing in µs.
const MAX_RATIO: f64 = 0.2;
const MAX_PARSE: f64 = 2.0;

/// Medians in µs, the works taking turns.
fn medians<const N: usize>(mut works: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for (work, times) in works.iter_mut().zip(&mut times) {
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

/// Bytes of one report, of its VEK's certificate, and of AMD's two certificates over it.
struct Case {
    name: String,
    report: Vec<u8>,
    vek: Vec<u8>,
    ask: Vec<u8>,
    ark: Vec<u8>,
    anchors: TrustAnchors,
    simulated: bool,
}

impl Case {
    fn real(vectors: &Vectors, product: &str) -> Self {
        let pinned = |kind: &str| {
            let path = format!("{}/roots/amd/{product}-{kind}.der", env!("CARGO_MANIFEST_DIR"));
            std::fs::read(path).expect("a pinned certificate")
        };
        let file = vectors.read(&format!("snp/ms_{product}_vcek.pem"));
        let Ok([Endorsement::Certificate(vek)]) =
            Endorsement::sort(&file).map(|all| <[_; 1]>::try_from(all).expect("one"))
        else {
            panic!("one certificate")
        };
        Self {
            name: format!("real {product}"),
            report: vectors.read(&format!("snp/ms_{product}_report.bin")),
            vek,
            ask: pinned("ask"),
            ark: pinned("ark"),
            anchors: TrustAnchors::hardware(),
            simulated: false,
        }
    }

    fn simulated() -> Self {
        let (report, endorsements, anchors) = kit::amd::Guest::new(Product::Genoa, KeyKind::Vcek, 5).issue();
        let [Endorsement::Certificate(ark), Endorsement::Certificate(vek), Endorsement::Certificate(ask)] =
            endorsements.items()
        else {
            panic!("three certificates")
        };
        let (ark, vek, ask) = (ark.clone(), vek.clone(), ask.clone());
        Self { name: "simulated, RSA-2048".into(), report, vek, ask, ark, anchors, simulated: true }
    }

    /// From bytes to a verdict, nothing kept.
    fn ours(&self) {
        let mut files = vec![self.vek.clone()];
        if self.simulated {
            files.extend([self.ask.clone(), self.ark.clone()]);
        }
        let endorsements = Endorsements::from_files(files).expect("certificates");
        let evidence = Evidence::detect(&self.report).expect("a report");
        let now = UnixTime(kit::amd::NOW);
        black_box(
            verify(&evidence, &endorsements, &self.anchors, &Exceptions::none(), now).expect("genuine"),
        );
    }

    /// The same by sev, which makes none of the other checks.
    fn sev(&self) {
        let chain = Chain::from_der(&self.ark, &self.ask, &self.vek).expect("certificates");
        let report = AttestationReport::from_bytes(&self.report[..]).expect("a report");
        (&chain, &report).verify().expect("signed");
    }

    /// What [`floor`] verifies.
    fn signatures(&self) -> Vec<Signature> {
        let rsa = |issuer: &[u8], certificate: &[u8]| {
            let (message, signature) = signed_parts(certificate);
            Signature { algorithm: &RSA_PSS_2048_8192_SHA384, key: key_of(issuer), message, signature }
        };
        let reversed = |at: usize| self.report[at..at + 48].iter().rev().copied().collect::<Vec<u8>>();
        let report = Signature {
            algorithm: &ECDSA_P384_SHA384_FIXED,
            key: key_of(&self.vek),
            message: self.report[..0x2a0].to_vec(),
            signature: [reversed(0x2a0), reversed(0x2a0 + 72)].concat(),
        };
        let mut all = vec![rsa(&self.ask, &self.vek), report];
        if self.simulated {
            all.push(rsa(&self.ark, &self.ask)); // AMD's own is pinned
        }
        all
    }
}

struct Signature {
    algorithm: &'static dyn VerificationAlgorithm,
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

/// Nothing but the signatures.
fn floor(signatures: &[Signature]) {
    for Signature { algorithm, key, message, signature } in signatures {
        UnparsedPublicKey::new(*algorithm, key).verify(message, signature).expect("it holds");
    }
}

/// The public key's bits: found by sev's reader, so that nothing here is judged by our own.
fn key_of(der: &[u8]) -> Vec<u8> {
    Certificate::from_der(der).expect("a certificate").public_key_sec1().to_vec()
}

/// What is signed, and the signature, of a certificate whose parts all have lengths of two bytes.
fn signed_parts(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let length = usize::from(u16::from_be_bytes([der[6], der[7]])) + 4;
    let tbs = &der[4..4 + length];
    let signature = der.len() - 4 - length;
    let bits = if signature > 512 { 512 } else { 256 };
    (tbs.to_vec(), der[der.len() - bits..].to_vec())
}

fn main() {
    println!("medians of {ROUNDS} in µs, taking turns, on one core");
    let mut cases = vec![Case::simulated()];
    if let Some(vectors) = Vectors::find() {
        cases.extend(["genoa", "turin"].map(|product| Case::real(&vectors, product)));
    }
    let mut good = true;
    for case in &cases {
        let signatures = case.signatures();
        let [ours, sev, floor, parse] =
            medians([&mut || case.ours(), &mut || case.sev(), &mut || floor(&signatures), &mut || {
                for _ in 0..100 {
                    black_box(Report::parse(black_box(&case.report)).expect("a report"));
                }
            }]);
        let (of_sev, of_floor, parse) = (ours / sev, ours / floor, parse / 100.0);
        println!(
            "{}: ours {ours:.0}, sev {sev:.0}, signatures alone {floor:.0}; {of_sev:.3} of sev, {of_floor:.2} of the floor; parsing {parse:.2}",
            case.name
        );
        good &= of_sev <= MAX_RATIO && parse < MAX_PARSE;
    }
    assert!(good, "slower than {MAX_RATIO} of sev, or parsing takes {MAX_PARSE} µs");
}
