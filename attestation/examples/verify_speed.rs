//! How long a verification takes, cold: `cargo run --release -p cocoon-attestation --example verify_speed`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use cocoon_attestation::{Endorsements, Evidence, Exceptions, TrustAnchors, UnixTime, verify};
use common::Platform;
use common::vectors::Vectors;
use dcap_qvl::verify::QuoteVerifier;

const ROUNDS: usize = 1_000;

fn median_micros(mut work: impl FnMut()) -> u128 {
    let mut times: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn main() {
    let platform = Platform::new();
    let bytes = platform.bundle().encode();
    println!("medians of {ROUNDS}, in µs, on one core");
    let simulated = median_micros(|| drop(platform.trust(&bytes).expect("trusted")));
    println!("simulated bundle of {} bytes, decoded, verified and appraised: {simulated}", bytes.len());
    let quote = median_micros(|| drop(platform.bundle()));
    println!("simulated quote and collateral, made and signed: {quote}");
    let Some(vectors) = Vectors::find() else { return };
    let evidence = vectors.read("tdx/v4_cocoon_90c06f.bin");
    let collateral = vectors.read("intel-collateral/tdx_90c06f000000_2026-03-16_eval18.json");
    let at = UnixTime(1_774_995_607);
    let ours = median_micros(|| {
        let own = Endorsements::from_files(vec![collateral.clone()]).expect("one small file");
        let evidence = Evidence::detect(&evidence).expect("a quote");
        drop(verify(&evidence, &own, &TrustAnchors::hardware(), &Exceptions::none(), at).expect("genuine"));
    });
    println!("real TDX v4 quote with its collateral as JSON: {ours}");
    let alone = median_micros(|| {
        let collateral = serde_json::from_slice(&collateral).expect("collateral");
        QuoteVerifier::new_prod().verify(&evidence, &collateral, at.0).map(drop).expect("genuine");
    });
    println!("the same by dcap-qvl alone, without the checks it lacks: {alone}");
}
