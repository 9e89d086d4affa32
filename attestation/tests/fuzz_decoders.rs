//! Every decoder of peer bytes, fed with rubbish and with damaged good input: an answer, never a panic, and one encoding
//! for what is accepted.
//!
//! `COCOON_FUZZ_ITERATIONS` sets the budget, `COCOON_FUZZ_SEED` another start.

mod common;

use std::time::{Duration, Instant};

use cocoon_attestation::statement::{Beacon, Freshness, Keys, MAX_TLS_KEY, ModelIdentity, SEAL_KEY};
use cocoon_attestation::tdx::Quote;
use cocoon_attestation::{
    Bundle, Endorsement, Evidence, Exceptions, Policy, Statement, Tee, UnixTime, canonical_collateral,
};
use common::mutate::{Random, mutate};
use common::{Platform, policy, statement};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// The longest that one input may take: generous, since other tests run beside it.
const PATIENCE: Duration = Duration::from_secs(5);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Inputs for each test.
fn cases() -> u32 {
    u32::try_from(number("COCOON_FUZZ_ITERATIONS", 20_000)).unwrap_or(u32::MAX)
}

fn seed() -> u64 {
    let seed = number("COCOON_FUZZ_SEED", 0x0c0c_00dc_0de5_eed5).max(1); // xorshift stands still at zero
    println!("seed {seed}, {} inputs", cases());
    seed
}

/// The same cases in every run from one seed.
fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let seed: Vec<u8> = seed().to_le_bytes().repeat(4);
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

fn decode_all(bytes: &[u8]) {
    let start = Instant::now();
    if let Ok(statement) = Statement::decode(bytes) {
        assert_eq!(statement.encode(), bytes, "accepted, but not canonical");
    }
    if let Ok(bundle) = Bundle::decode(bytes) {
        assert_eq!(Bundle::decode(&bundle.encode()), Ok(bundle));
    }
    let _ = Quote::parse(bytes);
    let _ = Evidence::detect(bytes);
    let _ = cocoon_attestation::intel_needs(bytes);
    if let Ok(canonical) = canonical_collateral(bytes) {
        assert_eq!(canonical_collateral(&canonical).as_ref(), Ok(&canonical), "canonical is not final");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Policy::from_toml(text);
        let _ = text.parse::<Exceptions>();
        let _ = UnixTime::from_rfc3339(text);
    }
    let took = start.elapsed();
    assert!(took < PATIENCE, "{} bytes took {took:?}", bytes.len());
}

#[test]
fn rubbish_gets_an_answer() {
    runner(cases() / 5)
        .run(&vec(any::<u8>(), 0..2_048), |bytes| {
            decode_all(&bytes);
            for prefix in
                [&[0xa3][..], &[0xa9, 0], &[4, 0, 2, 0, 0x81, 0, 0, 0], &[5, 0, 2, 0, 0x81, 0, 0, 0], b"{"]
            {
                decode_all(&[prefix, &bytes].concat());
            }
            Ok(())
        })
        .expect("no decoder panics");
}

#[test]
fn damaged_input_gets_an_answer() {
    let platform = Platform::new();
    let bundle = platform.bundle();
    let inputs = [
        bundle.encode(),
        bundle.statement.clone(),
        bundle.quote.clone(),
        common::collateral_of(&bundle).to_vec(),
        policy().to_toml().into_bytes(),
    ];
    let mut random = Random(seed());
    for round in 0..cases() {
        let input = &inputs[round as usize % inputs.len()];
        let damaged = mutate(input, &mut random);
        decode_all(&damaged);
        assert!(platform.trust(&damaged).is_err() || damaged == *input, "round {round}");
    }
}

#[test]
fn a_few_bytes_cannot_claim_much_memory() {
    // Arrays, maps and strings that announce 2^64 - 1 entries, and nesting as deep as the limit on size allows.
    for head in [0x5b, 0x7b, 0x9b, 0xbb] {
        decode_all(&[&[0xa9, 0x00, head][..], &[0xff; 8]].concat());
        decode_all(&[&[0xa3, 0x65][..], b"quote", &[0x82, 0x60, head], &[0xff; 8]].concat());
    }
    decode_all(&vec![0x81; 1024 * 1024]);
    decode_all(&vec![0xa1; 1024 * 1024]);
    decode_all(&vec![b'['; 1024 * 1024]);
    decode_all(&vec![0; 1024 * 1024 + 1]);
}

fn any_statement() -> impl Strategy<Value = Statement> {
    let model =
        ("[a-z0-9 é]{1,20}", any::<[u8; 32]>()).prop_map(|(name, weights)| ModelIdentity { name, weights });
    let freshness = (any::<u32>(), any::<[u8; 32]>(), any::<Option<[u8; 32]>>(), any::<u64>()).prop_map(
        |(seqno, root_hash, nonce, serial)| Freshness { beacon: Beacon { seqno, root_hash }, nonce, serial },
    );
    let keys = (
        vec(any::<u8>(), SEAL_KEY),
        any::<[u8; 32]>(),
        proptest::option::of(vec(any::<u8>(), 1..=MAX_TLS_KEY)),
    )
        .prop_map(|(seal, receipt, tls)| Keys { seal, receipt, tls });
    let lists = (vec(any::<[u8; 32]>(), 0..64), vec(any::<[u8; 32]>(), 0..16));
    (any::<i32>(), keys, vec(model, 0..16), any::<[u8; 32]>(), any::<[u8; 32]>(), lists, freshness).prop_map(
        |(network, keys, models, configuration, engine, (kernels, gpu_evidence), freshness)| Statement {
            network,
            keys,
            models,
            configuration,
            engine,
            kernels,
            gpu_evidence,
            freshness,
        },
    )
}

#[test]
fn every_statement_reads_back_as_it_was_written() {
    runner(500)
        .run(&any_statement(), |statement| {
            let bytes = statement.encode();
            prop_assert_eq!(Statement::decode(&bytes), Ok(statement));
            Ok(())
        })
        .expect("decode is the inverse of encode");
}

#[test]
fn every_bundle_reads_back_as_it_was_written() {
    let bytes = || vec(any::<u8>(), 0..300);
    let tee = prop_oneof![Just(Tee::Tdx), Just(Tee::Snp), Just(Tee::Azure)];
    let endorsement = prop_oneof![
        bytes().prop_map(Endorsement::IntelCollateral),
        bytes().prop_map(Endorsement::Certificate),
        bytes().prop_map(Endorsement::Crl),
        bytes().prop_map(Endorsement::Rim),
        bytes().prop_map(Endorsement::OcspResponse),
    ];
    let log = proptest::option::of(bytes());
    let parts = (bytes(), tee, bytes(), vec(bytes(), 0..16), log, vec(endorsement, 0..16));
    runner(500)
        .run(&parts, |(statement, tee, quote, gpu, event_log, endorsements)| {
            let bundle = Bundle { statement, tee, quote, gpu, event_log, endorsements };
            prop_assert_eq!(Bundle::decode(&bundle.encode()), Ok(bundle));
            Ok(())
        })
        .expect("decode is the inverse of encode");
}

#[test]
fn limits_of_a_statement_hold() {
    let too = |change: fn(&mut Statement)| {
        let mut large = statement();
        change(&mut large);
        Statement::decode(&large.encode()).expect_err("over a limit")
    };
    for error in [
        too(|s| s.keys.seal.push(0)),
        too(|s| s.keys.seal.truncate(32)),
        too(|s| s.keys.tls = Some(vec![])),
        too(|s| s.keys.tls = Some(vec![0; MAX_TLS_KEY + 1])),
        too(|s| s.kernels = vec![[0; 32]; 65]),
        too(|s| s.gpu_evidence = vec![[0; 32]; 17]),
        too(|s| s.models = vec![s.models[0].clone(); 17]),
        too(|s| s.models[0].name = "x".repeat(129)),
        too(|s| s.models[0].name.clear()),
        too(|s| s.models[0].name = "x".repeat(20_000)),
    ] {
        assert_eq!(error.what, "statement", "{error}");
    }
}

/// The bytes on the wire are a promise to other implementations.
#[test]
fn a_statement_starts_with_these_bytes() {
    let bytes = statement().encode();
    let expected = [
        "a9",       // map of 9
        "0001",     // version: 1
        "0138ee",   // network: -239
        "02a3",     // keys: map of 3
        "005904c0", // seal: 1216 bytes
    ];
    assert!(hex::encode(&bytes).starts_with(&expected.concat()), "{}", hex::encode(&bytes[..16]));
    let keys = [
        &format!("015820{}", "05".repeat(32)), // receipt: 32 bytes
        "02f6",                                // TLS: null
        "0381",                                // models: array of 1
    ];
    assert!(hex::encode(&bytes).contains(&keys.concat()));
    let tail = [
        "08a3",                                // freshness: map of 3
        "00a2",                                // beacon: map of 2
        "001829",                              // seqno: 41
        &format!("015820{}", "41".repeat(32)), // root hash
        "01f6",                                // nonce: null
        "0203",                                // serial: 3
    ];
    assert!(hex::encode(&bytes).ends_with(&tail.concat()));
}
