//! How long a TDX verification takes beside dcap-qvl, in the same run and taking turns:
//! `cargo run --release -p cocoon-attestation --example verify_speed`.
//!
//! Both get the same bytes: a quote, and collateral as JSON. *Cold* is the first sight of a platform, *hot* any later one.
//! The floor is nine (one) P-256 signatures over 600 bytes, by the primitive that the verifier uses.
//!
//! What remains above the floor, by `perf` on real evidence: cold, of 45 µs a fifth is reading JSON, the rest SHA-256 of the
//! longer texts, base64, hex and certificates, a few µs each, and what the checklist says; hot, of 12 µs most is the
//! checklist's text and copies of the input, and one look through the CRL.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use cocoon_attestation::tdx::{Quote, TdxCache};
use cocoon_attestation::{
    Endorsements, Evidence, Exceptions, TrustAnchors, UnixTime, Verifier, canonical_collateral,
};
use common::Platform;
use common::vectors::Vectors;
use dcap_qvl::verify::QuoteVerifier;

const ROUNDS: usize = 800;

/// Evidence with what is needed to verify it.
struct Case {
    name: &'static str,
    quote: Vec<u8>,
    collateral: Vec<u8>,
    root: Vec<u8>,
    anchors: TrustAnchors,
    at: UnixTime,
}

impl Case {
    fn simulated() -> Self {
        let platform = Platform::new();
        let bundle = platform.bundle();
        Self {
            name: "simulated TDX v4",
            collateral: common::collateral_of(&bundle).to_vec(),
            quote: bundle.quote,
            root: platform.root.root_der().to_vec(),
            anchors: platform.anchors(),
            at: common::NOW,
        }
    }

    fn real(vectors: &Vectors, name: &'static str, quote: &str, collateral: &str, at: u64) -> Self {
        Self {
            name,
            quote: vectors.read(quote),
            collateral: vectors.read(collateral),
            root: include_bytes!("../roots/intel-sgx-root-ca.der").to_vec(),
            anchors: TrustAnchors::hardware(),
            at: UnixTime(at),
        }
    }

    fn ours(&self, cache: Option<&TdxCache>) {
        let endorsements = Endorsements::from_files([self.collateral.clone()]).expect("one small file");
        let exceptions = Exceptions::none();
        let verifier = Verifier::new(&self.anchors, &exceptions, self.at);
        let verifier = match cache {
            Some(cache) => verifier.with_cache(cache),
            None => verifier,
        };
        let evidence = Evidence::detect(&self.quote).expect("a quote");
        black_box(verifier.verify(&evidence, &endorsements).expect("genuine"));
    }

    fn peer(&self) {
        let collateral = serde_json::from_slice(&self.collateral).expect("collateral");
        let verifier = QuoteVerifier::new(self.root.clone());
        black_box(verifier.verify(&self.quote, &collateral, self.at.0).expect("genuine"));
    }
}

/// One signature over 600 bytes, verified as the verifier does.
struct Floor {
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Floor {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let message = vec![7; 600];
        let signature = pair.sign(&random, &message).expect("signed").as_ref().to_vec();
        Self { key: pair.public_key().as_ref().to_vec(), message, signature }
    }

    fn verify(&self, times: usize) {
        for _ in 0..times {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.key);
            key.verify(black_box(&self.message), &self.signature).expect("holds");
        }
    }
}

/// Medians in µs of works that take turns.
fn medians<const N: usize>(works: [&dyn Fn(); N]) -> [f64; N] {
    let mut times = [(); N].map(|()| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for (work, times) in works.iter().zip(&mut times) {
            let start = Instant::now();
            work();
            times.push(start.elapsed().as_nanos() as f64 / 1_000.0);
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    })
}

fn report(case: &Case) {
    let (floor, cache) = (Floor::new(), TdxCache::new());
    case.ours(Some(&cache));
    let [cold, peer, hot, nine, one, parse, json] = medians([
        &|| case.ours(None),
        &|| case.peer(),
        &|| case.ours(Some(&cache)),
        &|| floor.verify(9),
        &|| floor.verify(1),
        &|| drop(black_box(Quote::parse(black_box(&case.quote)).expect("a quote"))),
        &|| drop(black_box(canonical_collateral(black_box(&case.collateral)).expect("collateral"))),
    ]);
    println!("{}", case.name);
    println!("  dcap-qvl                         {peer:7.1} µs");
    println!(
        "  cold   {:.2} of dcap-qvl           {cold:7.1} µs  (floor, 9 signatures: {nine:.1})",
        cold / peer
    );
    println!("  hot    {:.2} of dcap-qvl           {hot:7.1} µs  (floor, 1 signature: {one:.1})", hot / peer);
    println!("  quote taken apart                {parse:7.2} µs");
    println!("  collateral, read and written     {json:7.1} µs");
}

fn main() {
    println!("medians of {ROUNDS} rounds, taking turns, on one core");
    report(&Case::simulated());
    let Some(vectors) = Vectors::find() else { return };
    report(&Case::real(
        &vectors,
        "real TDX v4",
        "tdx/v4_cocoon_90c06f.bin",
        "intel-collateral/tdx_90c06f000000_2026-03-16_eval18.json",
        1_774_995_607,
    ));
    report(&Case::real(
        &vectors,
        "real TDX v5, body 1.5ex",
        "tdx/v5_td15ex_b0c06f.bin",
        "intel-collateral/tdx_b0c06f000000_2026-10-08_eval20.json",
        1_792_714_008,
    ));
}
