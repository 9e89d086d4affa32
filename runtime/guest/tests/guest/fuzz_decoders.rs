//! Seeded mutations of valid bytes against what a guest decodes: its configuration, requests over HTTP, bodies that a
//! client sealed, and what the TEE replies. `COCOON_FUZZ_ITERATIONS` is the budget, `COCOON_FUZZ_SEED` another start.

use crate::common::{Setup, config, header, hear, now, question, sealed};
use cocoon_attestation::{Endorsement, canonical_collateral};
use cocoon_guest::{Config, Simulated, Tee};
use cocoon_protocol::http::SEALED;
use cocoon_simulated_tee::{Emulator, SimulatedRoot};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Bytes that mean something in JSON and TOML, or nothing at all.
const SPECIAL: &[u8] = b"{}[]\",:0-9.eE\\\xff\x00";

/// SplitMix64.
struct Random(u64);

impl Random {
    fn seeded(name: &str) -> Self {
        let seed = number("COCOON_FUZZ_SEED", 0xC0C0_0002);
        println!("{name}: seed {seed}");
        Self(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        if bound == 0 { 0 } else { ((z ^ (z >> 31)) % bound as u64) as usize }
    }

    fn mutated(&mut self, valid: &[u8]) -> Vec<u8> {
        let mut bytes = valid.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            let length = self.below(30).min(bytes.len().saturating_sub(at));
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = SPECIAL[self.below(SPECIAL.len())],
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..at + length)),
                4 => {
                    let copy = bytes[at..at + length].to_vec();
                    bytes.splice(at..at, copy);
                }
                _ => bytes.insert(at, self.below(256) as u8),
            }
        }
        bytes
    }
}

fn iterations() -> u64 {
    number("COCOON_FUZZ_ITERATIONS", 20_000)
}

#[test]
fn configurations_are_in_range_or_refused() {
    let valid = config(2, 4, &[0xab; 32]);
    let mut random = Random::seeded("configuration");
    for _ in 0..iterations() {
        if let Ok(config) = Config::parse(&random.mutated(valid.as_bytes())) {
            assert!((1..=256).contains(&config.max_running) && config.max_queued <= 4096);
            assert!((1..=128).contains(&config.model.name.len()));
        }
    }
}

#[test]
fn a_guest_outlives_hostile_bodies() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let mut random = Random::seeded("sealed bodies");
    let more = r#","stream":true,"max_tokens":3,"seed":5,"stop":["x"],"temperature":0.5,"n":1,"tools":null"#;
    let valid = question("Hello there", more);
    for round in 0..iterations() / 100 {
        let body = String::from_utf8_lossy(&random.mutated(valid.as_bytes())).into_owned();
        let heard = guest.ask(&peer, &header(&peer), &body);
        let receipt = heard.end.as_ref().map(|verified| verified.receipt().clone());
        assert!(receipt.is_ok(), "round {round}: {:?}", receipt.err());
        assert!(heard.error.is_some() || !heard.chunks.is_empty(), "round {round}: nothing was said");
    }
    let (status, log) = guest.end();
    assert!(status.success() && !log.contains("panic"), "{status}\n{log}");
}

#[test]
fn a_guest_outlives_hostile_requests() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let mut random = Random::seeded("requests");
    let (valid, _) = sealed(&peer, &header(&peer), &question("Hello", r#","max_tokens":2"#));
    let attest = format!(r#"{{"seqno":7,"root_hash":"{}","nonce":null}}"#, "08".repeat(32));
    for round in 0..iterations() / 100 {
        let wire = random.mutated(&valid);
        let status = guest.post("/v1/answers", SEALED, &wire).status;
        assert!(wire == valid || (400..500).contains(&status), "round {round}: {status}");
        let status = guest.post("/v1/attest", "application/json", &random.mutated(attest.as_bytes())).status;
        assert!(status == 200 || (400..500).contains(&status), "round {round}: {status}");
    }
    let peer = guest.trusted();
    let (wire, opener) = sealed(&peer, &header(&peer), &question("Hello", r#","max_tokens":2"#));
    assert!(hear(opener, &guest.send(&wire).whole().body).end.is_ok());
    let (status, log) = guest.end();
    assert!(status.success() && !log.contains("panic"), "{status}\n{log}");
}

/// Says what it has to say to whoever connects, and nothing more: who waits for more sees the end.
fn saying(path: &Path, replies: Vec<u8>) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).expect("a fresh folder");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the guest connects");
        // It may have had enough before the end.
        let _ = stream.write_all(&replies).and_then(|()| stream.shutdown(Shutdown::Write));
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

/// The reply as the emulator frames it.
fn framed(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short");
    [&[0], length.to_le_bytes().as_slice(), payload].concat()
}

#[test]
fn replies_of_the_tee_are_taken_or_refused() {
    let root = SimulatedRoot::create(now());
    let emulator = Emulator::launch(&root, b"guest", &["cocoon-guest"]);
    let made = emulator.quote_with_collateral(&[7; 64], now());
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = Random::seeded("replies of the TEE");
    let mut taken = 0;
    for round in 0..iterations() / 10 {
        let mut replies = [framed(&made.quote), framed(&made.endorsements)];
        let damaged = random.below(2);
        replies[damaged] = match random.below(3) {
            // The frame as a whole, or only what it carries.
            0 => random.mutated(&replies[damaged]),
            _ => framed(&random.mutated(&replies[damaged][5..])),
        };
        let path = folder.path().join(round.to_string());
        let thread = saying(&path, replies.concat());
        let start = Instant::now();
        let tee = Simulated::connect(&path).expect("it listens");
        match tee.quote(&[7; 64]) {
            Ok(quote) => {
                taken += 1;
                // What goes into a bundle is collateral in its one form, whatever came.
                let [Endorsement::IntelCollateral(collateral)] = quote.endorsements.as_slice() else {
                    panic!("one piece of collateral")
                };
                assert_eq!(canonical_collateral(collateral).as_ref(), Ok(collateral), "round {round}");
            }
            Err(error) => assert!(error.to_string().len() < 2 << 20, "round {round}"),
        }
        assert!(start.elapsed() < Duration::from_secs(10), "round {round} took {:?}", start.elapsed());
        drop(tee);
        thread.join().expect("it only talks");
    }
    assert!(taken > 0, "the damage is too coarse");
}
