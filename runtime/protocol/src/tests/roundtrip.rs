//! Whatever is sealed comes out again, however the bytes are cut on the way.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Kind {
    Chunk,
    Tick,
    Error,
}

fn event(kind: &Kind, bytes: &[u8]) -> AnswerEvent {
    match kind {
        Kind::Chunk => AnswerEvent::Chunk(Answer::new(bytes.to_vec())),
        Kind::Tick => AnswerEvent::Tick,
        Kind::Error => AnswerEvent::Error { status: 418, body: Answer::new(bytes.to_vec()) },
    }
}

fn any_events() -> impl Strategy<Value = Vec<(Kind, Vec<u8>, u32)>> {
    let kind = prop_oneof![Just(Kind::Chunk), Just(Kind::Tick), Just(Kind::Error)];
    let length = prop_oneof![0..600usize, 65_000..70_000usize, Just(200_000usize)];
    let bytes = (length, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]);
    prop::collection::vec((kind, bytes, 0..20u32), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_request_survives(body in prop::collection::vec(any::<u8>(), 0..3000), repeat in 1..60usize) {
        let guest = Guest::new();
        let body = body.repeat(repeat);
        let (wire, _) = guest.sealed(&guest.header, &body);
        let Ok(opened) = guest.open(&wire) else { panic!("an honest request opens") };
        prop_assert!(opened.prompt.expose() == body);
    }

    #[test]
    fn any_answer_survives_any_cutting(events in any_events(), step in 1..100_000usize, relay in 1..5000usize) {
        let guest = Guest::new();
        let (mut sealer, opener) = guest.exchange(1);
        let mut wire = sealer.preamble();
        let mut tokens = 0;
        for (kind, bytes, more) in &events {
            tokens += more;
            wire.extend(sealer.seal(&event(kind, bytes), usage(50, tokens)).expect("within the rules"));
        }
        wire.extend(sealer.finish(ending(usage(50, tokens)), &guest.receipt).expect("within the rules"));

        let mut meter = Meter::new(&guest.header);
        let mut relayed = Vec::new();
        for piece in wire.chunks(relay) {
            relayed.extend(meter.push(piece).expect("honest").into_iter().flat_map(|piece| piece.bytes));
        }
        prop_assert!(relayed == wire);
        prop_assert_eq!(meter.finish(), Ok(usage(50, tokens)));

        let (seen, end) = receive(opener, &relayed, step);
        let expected = events.iter().map(|(kind, bytes, _)| shown(event(kind, bytes)));
        prop_assert!(seen[..seen.len() - 1].iter().cloned().eq(expected));
        let receipt = end.expect("the receipt holds");
        prop_assert_eq!(receipt.usage, usage(50, tokens));
    }

    #[test]
    fn any_header_survives(
        network: i32, request_id: [u8; 16], statement: [u8; 32], model: [u8; 32],
        prompt_tokens: u32, completion_tokens: u32, prompt: u64, cached: u64, completion: u64, thousandths: u32,
    ) {
        let budget = Budget { prompt_tokens, completion_tokens };
        let coefficient = Coefficient::from_thousandths(thousandths);
        let price = Price { prompt, cached, completion, coefficient };
        let header = RequestHeader { network, request_id, statement, model, budget, price };
        let encoded = header.encode();
        prop_assert!(encoded.len() <= MAX_HEADER);
        prop_assert_eq!(RequestHeader::decode(&encoded), Ok(header));
    }

    #[test]
    fn any_opening_survives(salt: [u8; 32], hash: [u8; 32], seed: u64, max_tokens: u32, temperature in 0f32..2.0) {
        let with = |seed| {
            let mut run = run(3);
            run.sampling = Sampling { seed, temperature, max_tokens, ..run.sampling };
            Some(run)
        };
        let opening = Opening { salt, request_hash: hash, answer_hash: salt, run: with(seed), vectors: None };
        let decoded = Opening::decode(&opening.encode()).expect("it was encoded");
        prop_assert!(decoded == opening);
        let other = Opening { run: with(seed ^ 1), ..opening.clone() };
        prop_assert_ne!(other.commitment(), opening.commitment());
    }
}
