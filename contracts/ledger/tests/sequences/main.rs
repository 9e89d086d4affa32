//! Random sequences over all three contracts at once: every message of every actor, at random times and values, against a
//! model that predicts each outcome to the nanoton. And the same transactions in the C++ TVM.
//!
//! `COCOON_SEQUENCES` is how many sequences are tried, `COCOON_SEED` tries others; both are printed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod bond;
mod channel;
mod differential;
mod net;
mod record;
mod registry;
mod steps;
#[path = "../suite/world.rs"]
#[expect(dead_code, reason = "the suite's people and clock; not all of them are needed here")]
mod world;

use std::collections::BTreeMap;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use net::Net;
use steps::{Script, script};

/// Sequences of one run, unless `COCOON_SEQUENCES` says otherwise: below 30 seconds of one core.
const SEQUENCES: u32 = 2000;
/// What is tried where nothing else is asked for: CI tries the same every time.
const SEED: u64 = 16_553_769_350_164_738_584;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn rng(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// Runs a sequence to its end, and everything home.
fn run(script: &Script) -> Result<Net, TestCaseError> {
    let mut net = Net::new(script.schedule());
    for step in &script.steps {
        net.step(step)?;
    }
    net.everybody_goes_home()?;
    Ok(net)
}

#[test]
fn every_nanoton_is_where_the_model_says_whoever_does_what_and_when() {
    let cases = number("COCOON_SEQUENCES").map_or(SEQUENCES, |count| u32::try_from(count).expect("a count"));
    let seed = number("COCOON_SEED").unwrap_or(SEED);
    println!("COCOON_SEED={seed} COCOON_SEQUENCES={cases}");
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 5000, ..Config::default() };
    let seen = std::cell::RefCell::new(BTreeMap::<String, u32>::new());
    let outcome = TestRunner::new_with_rng(config, rng(seed)).run(&script(), |script| {
        let net = run(&script)?;
        net.seen
            .iter()
            .for_each(|(what, times)| *seen.borrow_mut().entry(what.clone()).or_default() += times);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, script)) => {
            panic!("COCOON_SEED={seed}: {why}\nThe shortest sequence found:\n{script:?}")
        }
        Err(other) => panic!("COCOON_SEED={seed}: {other}"),
    }
    let seen = seen.into_inner();
    for (what, times) in &seen {
        println!("{times:>8} {what}");
    }
    if cases >= SEQUENCES {
        for outcome in EXPECTED {
            assert!(
                seen.contains_key(*outcome),
                "`{outcome}` never happened: the sequences do not try what they should"
            );
        }
    }
}

/// What a whole run must have tried: each operation with success, and each exit code of the contracts.
const EXPECTED: &[&str] = &[
    "channel open ok",
    "channel top-up ok",
    "channel settle ok",
    "channel authorize ok",
    "channel start-close ok",
    "channel finish-close ok",
    "channel close ok",
    "channel collect ok",
    "channel nonsense 0xffff",
    "channel open 0x101",
    "channel open 0x102",
    "channel open 0x105",
    "channel top-up 0x100",
    "channel settle 0x102",
    "channel settle 0x106",
    "channel settle 0x107",
    "channel settle 0x108",
    "channel settle 0x109",
    "channel settle 0x10d",
    "channel start-close 0x10a",
    "channel finish-close 0x10b",
    "channel finish-close 0x10c",
    "channel finish-close 0x110",
    "channel authorize 0x10e",
    "channel collect 0x10f",
    "channel settle starved",
    "bond back ok",
    "bond top-up ok",
    "bond publish ok",
    "bond unbond ok",
    "bond withdraw ok",
    "bond forfeit ok",
    "bond back 0x301",
    "bond back 0x302",
    "bond back 0x305",
    "bond forfeit 0x300",
    "bond forfeit 0x306",
    "bond forfeit 0x307",
    "bond publish 0x307",
    "bond publish 0x308",
    "bond unbond 0x302",
    "bond unbond 0x309",
    "bond withdraw 0x30a",
    "bond withdraw 0x30b",
    "bond nonsense 0xffff",
    "registry propose ok",
    "registry cancel ok",
    "registry activate ok",
    "registry top-up ok",
    "registry propose 0x200",
    "registry propose 0x201",
    "registry propose 0x207",
    "registry propose 0x208",
    "registry propose 0x20a",
    "registry cancel 0x202",
    "registry activate 0x202",
    "registry activate 0x203",
    "registry nonsense 0xffff",
];
