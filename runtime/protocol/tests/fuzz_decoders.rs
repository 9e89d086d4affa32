//! Seeded mutations of valid bytes against every decoder that reads a peer's bytes: nothing may panic, hang or take
//! much memory, and nothing changed may pass for genuine.
//!
//! `COCOON_FUZZ_ITERATIONS` sets the budget for each decoder, `COCOON_FUZZ_SEED` another start.

mod common;

use cocoon_protocol::http::{
    AccountStatus, ApiError, AttestRequest, ChannelAnnouncement, GuestHealth, GuestState, HostHealth,
    ModelEntry, NetworkInfo, RegisterWorker, WorkerEntry,
};
use cocoon_protocol::{
    AnswerEvent, Embedded, Endpoint, Meter, Opening, Part, Price, RequestHeader, SealedRequest,
    SignedReceipt, seal,
};
use common::{Guest, body, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// SplitMix64: small, seeded, good enough to choose mutations.
struct Random(u64);

impl Random {
    fn seeded(name: &str) -> Self {
        let seed = number("COCOON_FUZZ_SEED", 0xC0C0_0001);
        println!("{name}: seed {seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    /// One to four mutations: flips, boundary values, cuts, doublings, insertions, splices.
    fn mutated(&mut self, valid: &[u8]) -> Vec<u8> {
        let mut bytes = valid.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let length = self.below(40).min(bytes.len().saturating_sub(at));
            match self.below(8) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                2 => bytes.truncate(at),
                3 => {
                    bytes.drain(at..at + length);
                }
                4 => {
                    let copy = bytes[at..at + length].to_vec();
                    bytes.splice(at..at, copy);
                }
                5 => {
                    let value = [0, 1, 0x7f, 0x80, 0xff][self.below(5)];
                    bytes[at..at + length.min(8)].fill(value);
                }
                6 => bytes.insert(at, self.next() as u8),
                _ => {
                    let from = self.below(bytes.len());
                    let length = length.min(bytes.len() - from);
                    bytes.copy_within(from..from + length, at);
                }
            }
        }
        bytes
    }
}

fn iterations() -> u64 {
    number("COCOON_FUZZ_ITERATIONS", 20_000)
}

#[test]
fn headers_have_one_encoding_whatever_comes() {
    let valid = header(&Guest::new().trusted(), 1).encode();
    let mut random = Random::seeded("header");
    for _ in 0..iterations() {
        let bytes = random.mutated(&valid);
        if let Ok(header) = RequestHeader::decode(&bytes) {
            assert_eq!(header.encode(), bytes, "accepted, but not canonical");
        }
    }
}

#[test]
fn receipts_that_changed_do_not_verify() {
    let guest = Guest::new();
    let peer = guest.trusted();
    let (request, _) = seal(&peer, &header(&peer, 1), Endpoint::ChatCompletions, body()).expect("it fits");
    let opened = guest.open(request.as_bytes()).expect("it is for this guest");
    let mut meter = Meter::new(&opened.header);
    let pieces = meter.push(&guest.answer(opened.answer, b"text")).expect("honest");
    let receipt = pieces.iter().find_map(|piece| match &piece.part {
        Part::Receipt(receipt) => Some(receipt.encode()),
        _ => None,
    });
    let valid = receipt.expect("every answer has one");
    let mut random = Random::seeded("receipt");
    for _ in 0..iterations() {
        let bytes = random.mutated(&valid);
        if let Ok(receipt) = SignedReceipt::decode(&bytes) {
            assert_eq!(receipt.encode(), bytes, "accepted, but not canonical");
            assert!(
                bytes == valid || receipt.verify(peer.receipt_key()).is_err(),
                "a changed receipt verifies"
            );
        }
    }
}

#[test]
fn openings_have_one_encoding_whatever_comes() {
    let vectors = Embedded { inputs: vec![vec![1, 2, 3].into(), vec![70_000].into()], vectors: [4; 32] };
    for (run, vectors) in [(Some(common::run()), None), (None, Some(vectors))] {
        let opening = Opening { salt: [1; 32], request_hash: [2; 32], answer_hash: [3; 32], run, vectors };
        let valid = opening.encode();
        let mut random = Random::seeded("opening");
        for _ in 0..iterations() {
            let bytes = random.mutated(&valid);
            if let Ok(opening) = Opening::decode(&bytes) {
                assert!(*opening.encode() == bytes, "accepted, but not canonical");
            }
        }
    }
}

#[test]
fn requests_that_changed_do_not_open() {
    let guest = Guest::new();
    let peer = guest.trusted();
    let sealed = seal(&peer, &header(&peer, 1), Endpoint::ChatCompletions, body());
    let valid = sealed.expect("it fits").0.into_bytes();
    let mut random = Random::seeded("request");
    for _ in 0..iterations() {
        let bytes = random.mutated(&valid);
        if bytes == valid {
            continue;
        }
        let outline = SealedRequest::from_wire(bytes.clone());
        assert!(guest.open(&bytes).is_err(), "a changed request opened");
        if let Ok(outline) = outline {
            assert_eq!(outline.into_bytes(), bytes);
        }
    }
    assert!(guest.open(&valid).is_ok(), "and none of them used up the id");
}

#[test]
fn answers_that_changed_do_not_end_well() {
    let guest = Guest::new();
    let peer = guest.trusted();
    let mut random = Random::seeded("answer");
    // Each round needs its own request: a tenth of the budget keeps the time in bounds.
    for id in 0..iterations() / 10 {
        let header = header(&peer, id);
        let sealed = seal(&peer, &header, Endpoint::ChatCompletions, body());
        let (request, mut opener) = sealed.expect("it fits");
        let opened = guest.open(request.as_bytes()).expect("it is for this guest");
        let valid = guest.answer(opened.answer, b"the text");
        let bytes = random.mutated(&valid);
        let step = 1 + random.below(700);
        let mut meter = Meter::new(&header);
        for piece in bytes.chunks(step) {
            let _ = meter.push(piece); // blind: it may or may not notice
        }
        let mut texts = Vec::new();
        for piece in bytes.chunks(step) {
            for (event, _) in opener.push(piece).unwrap_or_default() {
                if let AnswerEvent::Chunk(answer) = event {
                    texts.push(answer.expose().to_vec());
                }
            }
        }
        assert!(
            texts.iter().all(|text| text == b"the text") && texts.len() <= 1,
            "something else was given out"
        );
        assert_eq!(opener.finish().is_ok(), bytes == valid, "round {id}");
    }
}

#[test]
fn the_meter_forwards_what_it_got_and_nothing_else() {
    let guest = Guest::new();
    let peer = guest.trusted();
    let header = header(&peer, 1);
    let sealed = seal(&peer, &header, Endpoint::ChatCompletions, body());
    let (request, _) = sealed.expect("it fits");
    let opened = guest.open(request.as_bytes()).expect("it is for this guest");
    let valid = guest.answer(opened.answer, b"the text");
    let mut random = Random::seeded("meter");
    for _ in 0..iterations() {
        let bytes = random.mutated(&valid);
        let mut meter = Meter::new(&header);
        let mut forwarded = Vec::new();
        for piece in bytes.chunks(1 + random.below(2000)) {
            let Ok(pieces) = meter.push(piece) else { break };
            forwarded.extend(pieces.into_iter().flat_map(|piece| piece.bytes));
            assert!(meter.usage().within(&header.budget));
        }
        assert!(bytes.starts_with(&forwarded));
        if meter.is_complete() {
            assert_eq!(forwarded, bytes);
        }
    }
}

/// Valid JSON of one type, damaged: refused, or read as what is written back the same.
fn json_survives_or_is_refused<T>(random: &mut Random, valid: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let valid = serde_json::to_vec(valid).expect("it encodes");
    for round in 0..iterations() {
        let bytes = random.mutated(&valid);
        let Ok(read) = serde_json::from_slice::<T>(&bytes) else { continue };
        let again = serde_json::to_vec(&read).expect("it encodes");
        let again: T = serde_json::from_slice(&again).expect("what was written is read");
        assert_eq!(again, read, "round {round}");
    }
}

#[test]
fn the_words_of_the_apis_are_read_or_refused() {
    let mut random = Random::seeded("http");
    let random = &mut random;
    let (hex, text) = ("0123456789abcdef".repeat(4), "0:".to_owned() + &"ab".repeat(32));
    let price = Price::new(1, 1, u64::MAX);
    let guest = GuestHealth { state: GuestState::Ready, running: 1, queued: 2, limit: 3 };
    json_survives_or_is_refused(random, &ApiError::payment("code", "words \u{e9}\n").with_param("field"));
    json_survives_or_is_refused(random, &guest);
    json_survives_or_is_refused(random, &HostHealth { guest: Some(guest), bundle_age_seconds: 5 });
    let attest = AttestRequest { seqno: 7, root_hash: hex.clone(), nonce: Some(hex.clone()) };
    json_survives_or_is_refused(random, &attest);
    json_survives_or_is_refused(random, &ChannelAnnouncement { address: text.clone() });
    let status = AccountStatus {
        address: text.clone(),
        deposit: u64::MAX,
        paid: 0,
        voucher: 1,
        owed: 2,
        reserved: 3,
        window: 4,
    };
    json_survives_or_is_refused(random, &status);
    let network =
        NetworkInfo { network: -3, payee: text.clone(), window_nanotons: 9, registry: text.clone() };
    json_survives_or_is_refused(random, &network);
    let models = vec![ModelEntry { name: "tiny".into(), weights: hex }];
    let worker = WorkerEntry { id: "w1".into(), models, price, bundle_age_seconds: 60 };
    json_survives_or_is_refused(random, &vec![worker]);
    let register = RegisterWorker { url: "http://h".into(), operator: text, price, bundle: "AAAA".into() };
    json_survives_or_is_refused(random, &register);
}
