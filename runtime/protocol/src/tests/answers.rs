//! Answers: tampered, cut, reordered, swapped by a relay, or overcharged.

use super::*;
use crate::frame::FRAME_HEADER;

const HONEST: usize = 4; // tick, two chunks, end

#[test]
fn an_honest_answer_is_read_by_client_and_meter_alike() {
    let guest = Guest::new();
    let (sealer, opener) = guest.exchange(1);
    let header = guest.header.clone();
    let wire = guest.answer(sealer);
    assert_eq!(meter(&header, &wire), Ok(usage(10, 2)));
    let (seen, end) = receive(opener, &wire, usize::MAX);
    let expected = [(2, vec![]), (1, b"first".to_vec()), (1, b"second".to_vec()), (4, vec![])];
    assert_eq!(seen, expected);
    let receipt = end.expect("the receipt holds");
    assert_eq!((receipt.usage, receipt.outcome), (usage(10, 2), Outcome::Stop));
    assert_eq!(receipt.bill(), 10 + 6);
    assert!(!wire.windows(5).any(|window| window == b"first"), "plaintext on the wire");
}

#[test]
fn every_flipped_byte_of_an_answer_is_caught() {
    let guest = Guest::new();
    let (sealer, opener) = guest.exchange(1);
    let wire = guest.answer(sealer);
    let (honest, end) = receive(opener, &wire, usize::MAX);
    assert!(end.is_ok());
    for at in 0..wire.len() {
        // A request id may be used once per guest: each round gets its own ends.
        let guest = Guest::new();
        let (sealer, opener) = guest.exchange(1);
        let mut changed = guest.answer(sealer);
        assert_eq!(changed.len(), wire.len());
        changed[at] ^= 1 << (at % 8);
        let (seen, end) = receive(opener, &changed, 64);
        assert!(end.is_err(), "byte {at} was changed unnoticed");
        assert!(
            honest.starts_with(&seen),
            "byte {at}: something else than the honest beginning was given out"
        );
    }
}

#[test]
fn an_answer_cut_at_any_length_is_truncated() {
    let guest = Guest::new();
    let (sealer, opener) = guest.exchange(1);
    let wire = guest.answer(sealer);
    let truncated = WireError::Truncated { what: "answer" };
    for length in 0..wire.len() {
        assert_eq!(meter(&guest.header, &wire[..length]), Err(truncated.clone().into()), "at {length}");
        // An opener reads one answer; every 61st length gets its own exchange.
        if length % 61 == 0 {
            let guest = Guest::new();
            let (sealer, fresh) = guest.exchange(1);
            let cut = guest.answer(sealer);
            let (_, end) = receive(fresh, &cut[..length], 100);
            assert_eq!(end, Err(truncated.clone().into()), "at {length}");
        }
    }
    let (_, end) = receive(opener, &[wire.as_slice(), &[0]].concat(), 7);
    assert_eq!(end, Err(WireError::TrailingBytes.into()));
}

/// Lets a relay rearrange the pieces: 0 preamble, 1 tick, 2 and 3 chunks, 4 end, 5 receipt.
fn rearranged(order: &[usize]) -> (usize, Result<Receipt, AnswerError>) {
    let guest = Guest::new();
    let (sealer, opener) = guest.exchange(1);
    let pieces = pieces(&guest.header, &guest.answer(sealer));
    assert_eq!(pieces.len(), 6);
    let wire: Vec<u8> = order.iter().flat_map(|&index| pieces[index].clone()).collect();
    let (seen, end) = receive(opener, &wire, 1000);
    (seen.len(), end)
}

#[test]
fn reordered_doubled_and_dropped_frames_are_caught() {
    let out_of_order = |expected, got| Err(AnswerError::Wire(WireError::OutOfOrder { expected, got }));
    let truncated = Err(AnswerError::Wire(WireError::Truncated { what: "answer" }));
    assert_eq!(rearranged(&[0, 1, 3, 2, 4, 5]).1, out_of_order(1, 2));
    assert_eq!(rearranged(&[0, 1, 2, 2, 3, 4, 5]).1, out_of_order(2, 1));
    assert_eq!(rearranged(&[0, 1, 2, 4, 5]).1, out_of_order(2, 3));
    assert_eq!(rearranged(&[0, 4, 5]).1, out_of_order(0, 3));
    assert_eq!(rearranged(&[0, 1, 2, 3]), (3, truncated.clone()));
    assert_eq!(rearranged(&[0, 1, 2, 3, 4]), (HONEST, truncated));
    assert!(matches!(rearranged(&[1, 2, 3, 4, 5]).1, Err(AnswerError::Wire(WireError::Magic { .. }))));
    assert!(rearranged(&[0, 1, 2, 3, 5]).1.is_err());
    assert!(rearranged(&[0, 1, 2, 3, 4, 5]).1.is_ok());
}

#[test]
fn counters_mended_by_a_relay_do_not_help() {
    let guest = Guest::new();
    let (sealer, opener) = guest.exchange(1);
    let mut pieces = pieces(&guest.header, &guest.answer(sealer));
    pieces.swap(2, 3);
    pieces[2][1..5].copy_from_slice(&1u32.to_be_bytes());
    pieces[2][13..17].copy_from_slice(&1u32.to_be_bytes());
    pieces[3][1..5].copy_from_slice(&2u32.to_be_bytes());
    let wire = pieces.concat();
    assert!(meter(&guest.header, &wire).is_ok(), "the meter is blind");
    assert_eq!(receive(opener, &wire, 100).1, Err(AnswerError::Forged { frame: 1 }));
}

#[test]
fn a_frame_marked_last_by_a_relay_is_forged() {
    let guest = Guest::new();
    let (sealer, opener) = guest.exchange(1);
    let mut pieces = pieces(&guest.header, &guest.answer(sealer));
    pieces[2][0] = 1;
    let wire = [&pieces[0], &pieces[1], &pieces[2], &pieces[5]].map(Vec::as_slice).concat();
    assert_eq!(receive(opener, &wire, 100).1, Err(AnswerError::Forged { frame: 1 }));
}

#[test]
fn an_old_answer_does_not_open_a_new_request() {
    let guest = Guest::new();
    let old = guest.answer(guest.exchange(1).0);
    let (_, opener) = guest.exchange(2);
    let (seen, end) = receive(opener, &old, 100);
    assert_eq!((seen.len(), end), (0, Err(AnswerError::Forged { frame: 0 })));
}

#[test]
fn one_request_answered_twice_uses_two_keys() {
    let guest = Guest::new();
    let (wire, opener) = guest.sealed(&guest.header, BODY);
    let first = guest.answer(guest.open(&wire).map(|opened| opened.answer).expect("honest"));
    // The same key with an empty memory, as after a fork.
    let forgetful = Guest { guard: ReplayGuard::new(1, 1), ..guest };
    forgetful.guard.issue(forgetful.header.statement);
    let second = forgetful.answer(forgetful.open(&wire).map(|opened| opened.answer).expect("honest"));
    assert_ne!(first[..36], second[..36], "the nonces");
    let frame = 36 + FRAME_HEADER..36 + FRAME_HEADER + 32;
    assert_ne!(first[frame.clone()], second[frame], "the same plaintext under the same key and nonce");
    // Spliced: the second's frames under the first's preamble.
    let spliced = [&first[..36], &second[36..]].concat();
    assert_eq!(receive(opener, &spliced, 100).1, Err(AnswerError::Forged { frame: 0 }));
}

#[test]
fn usage_lowered_or_raised_by_a_relay_is_caught_by_the_client() {
    for (prompt, completion) in [(9u32, 1u32), (10, 0), (99, 1), (10, 199)] {
        let guest = Guest::new();
        let (sealer, opener) = guest.exchange(1);
        let mut pieces = pieces(&guest.header, &guest.answer(sealer));
        pieces[2][5..9].copy_from_slice(&prompt.to_be_bytes());
        pieces[2][13..17].copy_from_slice(&completion.to_be_bytes());
        let (seen, end) = receive(opener, &pieces.concat(), 100);
        assert!(seen.len() <= 1, "at most the honest tick before it");
        let went_back = AnswerError::Wire(WireError::UsageWentBack { frame: 1 });
        assert!(end == Err(AnswerError::Forged { frame: 1 }) || end == Err(went_back), "{end:?}");
    }
}

#[test]
fn usage_over_the_budget_or_going_back_is_caught_by_the_meter() {
    let guest = Guest::new();
    let pieces = pieces(&guest.header, &guest.answer(guest.exchange(1).0));
    let with_usage = |prompt: u32, completion: u32| {
        let mut pieces = pieces.clone();
        pieces[3][5..9].copy_from_slice(&prompt.to_be_bytes());
        pieces[3][13..17].copy_from_slice(&completion.to_be_bytes());
        meter(&guest.header, &pieces.concat())
    };
    let over = MeterError::Wire(WireError::OverBudget { frame: 2 });
    let back = MeterError::Wire(WireError::UsageWentBack { frame: 2 });
    assert_eq!(with_usage(101, 2), Err(over.clone()));
    assert_eq!(with_usage(10, 201), Err(over.clone()));
    assert_eq!(with_usage(u32::MAX, u32::MAX), Err(over));
    assert_eq!(with_usage(9, 2), Err(back.clone()));
    assert_eq!(with_usage(10, 0), Err(back.clone()));
    // Tokens that were computed cannot turn into cached ones, nor be more than there are.
    let cached = |tokens: u32| {
        let mut pieces = pieces.clone();
        pieces[3][9..13].copy_from_slice(&tokens.to_be_bytes());
        meter(&guest.header, &pieces.concat())
    };
    assert_eq!(cached(1), Err(back));
    assert_eq!(cached(11), Err(MeterError::Wire(WireError::Malformed { what: "frame usage" })));
    assert_eq!(with_usage(10, 2), Ok(usage(10, 2)));
}

#[test]
fn the_sealer_itself_refuses_usage_over_budget_and_a_second_end() {
    let guest = Guest::new();
    let (mut sealer, opener) = guest.exchange(1);
    let mut wire = sealer.preamble();
    assert_eq!(
        sealer.seal(&AnswerEvent::Tick, usage(101, 0)).err(),
        Some(WireError::OverBudget { frame: 0 })
    );
    wire.extend(sealer.seal(&AnswerEvent::Tick, usage(5, 5)).expect("within the budget"));
    assert_eq!(
        sealer.seal(&AnswerEvent::Tick, usage(5, 4)).err(),
        Some(WireError::UsageWentBack { frame: 1 })
    );
    let opening = Opening {
        salt: [0; 32],
        request_hash: [0; 32],
        answer_hash: [0; 32],
        run: Some(run(2)),
        vectors: None,
    };
    let end = AnswerEvent::End { opening, receipt_digest: [0; 32] };
    assert!(sealer.seal(&end, usage(5, 5)).is_err());
    wire.extend(sealer.finish(ending(usage(5, 5)), &guest.receipt).expect("within the budget"));
    assert!(receive(opener, &wire, 100).1.is_ok(), "what was refused left no trace");
}

/// An honest answer whose receipt the relay replaces.
fn with_receipt(
    replace: impl Fn(&Guest, SignedReceipt) -> SignedReceipt,
) -> (AnswerError, Result<Usage, MeterError>) {
    let guest = Guest::new();
    let (sealer, opener) = guest.exchange(1);
    let mut pieces = pieces(&guest.header, &guest.answer(sealer));
    let honest = SignedReceipt::decode(&pieces[5][4..]).expect("a receipt");
    let other = replace(&guest, honest).encode();
    pieces[5] = [&u32::try_from(other.len()).expect("short").to_be_bytes(), other.as_slice()].concat();
    let wire = pieces.concat();
    (receive(opener, &wire, 100).1.expect_err("the receipt was swapped"), meter(&guest.header, &wire))
}

#[test]
fn a_swapped_receipt_is_caught() {
    let swapped = AnswerError::Receipt(ReceiptError::Swapped);
    // Of another request to the same guest, with the guest's own signature.
    let (error, metered) = with_receipt(|guest, _| {
        let header = RequestHeader { request_id: [9; 16], ..guest.header.clone() };
        let pieces = pieces(&header, &guest.answer(guest.exchange(9).0));
        SignedReceipt::decode(&pieces[5][4..]).expect("a receipt")
    });
    assert_eq!(error, swapped);
    assert_eq!(metered, Err(ReceiptError::Mismatch { field: "request id" }.into()));
    // The same claims, signed again by the guest: still not the one that the last frame names.
    let (error, metered) = with_receipt(|guest, honest| {
        let receipt = Receipt { finished_ms: 3000, ..honest.claimed().clone() };
        SignedReceipt::sign(receipt, &guest.receipt)
    });
    assert_eq!((error, metered), (swapped.clone(), Ok(usage(10, 2))));
    // More tokens, signed by somebody else.
    let (error, metered) = with_receipt(|_, honest| {
        let receipt = Receipt { usage: usage(10, 3), ..honest.claimed().clone() };
        SignedReceipt::sign(receipt, &ReceiptKey::generate())
    });
    assert_eq!((error, metered), (swapped, Err(ReceiptError::Mismatch { field: "usage" }.into())));
}

#[test]
fn a_receipt_of_another_key_than_the_attested_one_is_refused() {
    let guest = Guest::new();
    let (sealer, opener) = guest.exchange(1);
    let liar = Guest { receipt: ReceiptKey::generate(), ..guest };
    let wire = liar.answer(sealer);
    assert_eq!(receive(opener, &wire, 100).1, Err(AnswerError::Receipt(ReceiptError::Signature)));
}

#[test]
fn every_flipped_byte_of_a_signed_receipt_is_refused() {
    let guest = Guest::new();
    let pieces = pieces(&guest.header, &guest.answer(guest.exchange(1).0));
    let encoded = &pieces[5][4..];
    let key = guest.receipt.public_bytes();
    assert!(SignedReceipt::decode(encoded).is_ok_and(|signed| signed.verify(key).is_ok()));
    for at in 0..encoded.len() {
        for bit in 0..8 {
            let mut changed = encoded.to_vec();
            changed[at] ^= 1 << bit;
            let accepted = SignedReceipt::decode(&changed).is_ok_and(|signed| signed.verify(key).is_ok());
            assert!(!accepted, "bit {bit} of byte {at}");
        }
    }
    for length in 0..encoded.len() {
        assert_eq!(SignedReceipt::decode(&encoded[..length]), Err(ReceiptError::Malformed));
    }
    assert_eq!(SignedReceipt::decode(&[0; MAX_RECEIPT + 1]), Err(ReceiptError::Malformed));
}

#[test]
fn lengths_beyond_their_limits_are_refused_at_their_header() {
    let guest = Guest::new();
    let pieces = pieces(&guest.header, &guest.answer(guest.exchange(1).0));
    let got = u32::MAX as usize;
    let mut frame = pieces[1][..FRAME_HEADER].to_vec();
    frame[17..21].copy_from_slice(&u32::MAX.to_be_bytes());
    let error = WireError::Oversized { what: "frame", limit: MAX_FRAME, got };
    assert_eq!(meter(&guest.header, &[pieces[0].as_slice(), &frame].concat()), Err(error.clone().into()));
    let (_, opener) = guest.exchange(2);
    let wire = [pieces[0].as_slice(), &frame].concat();
    assert_eq!(receive(opener, &wire, 1).1, Err(error.into()));

    let before = pieces[..5].concat();
    let wire = [before.as_slice(), &u32::MAX.to_be_bytes()].concat();
    let error = WireError::Oversized { what: "receipt", limit: MAX_RECEIPT, got };
    assert_eq!(meter(&guest.header, &wire), Err(error.into()));
}

#[test]
fn an_error_is_sealed_and_has_a_receipt() {
    let guest = Guest::new();
    let (mut sealer, opener) = guest.exchange(1);
    let mut wire = sealer.preamble();
    let body = Answer::new(br#"{"error":{}}"#.to_vec());
    wire.extend(
        sealer.seal(&AnswerEvent::Error { status: 400, body }, usage(0, 0)).expect("within the rules"),
    );
    let ending = Ending { outcome: Outcome::Error, ..ending(usage(0, 0)) };
    wire.extend(sealer.finish(ending, &guest.receipt).expect("within the rules"));
    let (seen, end) = receive(opener, &wire, 100);
    assert_eq!(seen[0], (3, [&400u16.to_be_bytes(), br#"{"error":{}}"#.as_slice()].concat()));
    let receipt = end.expect("the receipt holds");
    assert_eq!((receipt.outcome, receipt.bill()), (Outcome::Error, 0));
}

#[test]
fn a_failed_opener_stays_failed() {
    let guest = Guest::new();
    let (sealer, mut opener) = guest.exchange(1);
    let wire = guest.answer(sealer);
    let error = opener.push(b"XXXX").err();
    assert_eq!(error, None, "a preamble is awaited");
    let error = opener.push(&[0; 32]).err().expect("the magic is wrong");
    assert_eq!(opener.push(&wire).err(), Some(error.clone()));
    assert_eq!(opener.finish().err(), Some(error));
    let mut meter = Meter::new(&guest.header);
    let error = meter.push(&[0; 36]).expect_err("the magic is wrong");
    assert_eq!(meter.push(&wire), Err(error.clone()));
    assert!(!meter.is_complete());
    assert_eq!(meter.finish(), Err(error));
}
