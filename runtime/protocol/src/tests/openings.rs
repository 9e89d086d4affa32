//! Openings with the runs that they hold, and papers of another version.

use super::*;
use crate::cbor::Map;

/// An answer whose run wrote so many tokens, as its client has it in the end.
fn answered(tokens: usize) -> VerifiedReceipt {
    let guest = Guest::new();
    let (sealer, mut opener) = guest.exchange(1);
    let mut wire = sealer.preamble();
    let ending = Ending { run: Some(run(tokens)), ..ending(usage(3, 2)) };
    wire.extend(sealer.finish(ending, &guest.receipt).expect("within the budget"));
    for piece in wire.chunks(10_000) {
        opener.push(piece).expect("an honest answer");
    }
    opener.finish().expect("the receipt holds")
}

#[test]
fn a_run_comes_to_its_client_whole_over_as_many_frames_as_it_takes() {
    for tokens in [0, 1, 100_000, MAX_RUN_TOKENS - 3] {
        let receipt = answered(tokens);
        let opening = receipt.opening();
        assert!(opening.run.as_ref() == Some(&run(tokens)), "{tokens}");
        assert!(opening.encode().len() <= MAX_OPENING);
        assert_eq!(receipt.receipt().commitment, opening.commitment());
    }
}

#[test]
fn a_run_over_the_limit_is_left_out_and_the_answer_ends_all_the_same() {
    assert!(answered(MAX_RUN_TOKENS - 2).opening().run.is_none());
}

/// One change of a run that is within its limits.
type Change = fn(&mut Run);

#[test]
fn a_run_with_one_thing_over_its_limit_is_refused() {
    let changes: [Change; 6] = [
        |run| run.prompt = vec![1; MAX_RUN_TOKENS].into(),
        |run| run.stop = vec!["x".to_owned(); 17],
        |run| run.stop = vec!["x".repeat(257)],
        |run| run.stop = vec![String::new()],
        |run| run.logit_bias = vec![(1, 1.0); 301],
        |run| run.written.clear(),
    ];
    let whole = run(2);
    assert!(Run::decode(&whole.encode()) == Some(whole.clone()));
    for change in changes {
        let mut run = whole.clone();
        change(&mut run);
        assert!(!run.fits() && Run::decode(&run.encode()).is_none());
    }
}

#[test]
fn every_part_of_a_run_is_committed_to() {
    let changes: [Change; 18] = [
        |run| run.prompt[0] ^= 1,
        |run| run.sampling.seed ^= 1,
        |run| run.sampling.temperature = 0.5,
        |run| run.sampling.top_p = 0.8,
        |run| run.sampling.top_k = 41,
        |run| run.sampling.min_p = 0.2,
        |run| run.sampling.repetition_penalty = 1.2,
        |run| run.sampling.presence_penalty = 0.6,
        |run| run.sampling.frequency_penalty = 0.5,
        |run| run.sampling.max_tokens = 201,
        |run| run.stop.clear(),
        |run| run.logit_bias[0].1 = 1.5,
        |run| run.constrained = true,
        |run| held_to(run, b"j{}"),
        |run| held_to(run, b"j[]"),
        |run| run.written[0].outcome = Outcome::Length,
        |run| run.written[0].tokens[1] ^= 1,
        |run| run.written.push(run.written[0].clone()),
    ];
    let commitment = |run| {
        let opening = Opening { salt: [1; 32], request_hash: [2; 32], answer_hash: [3; 32], run };
        assert!(Opening::decode(&opening.encode()).is_ok_and(|decoded| decoded == opening));
        opening.commitment()
    };
    let mut all = std::collections::BTreeSet::from([commitment(None), commitment(Some(run(2)))]);
    for change in changes {
        let mut run = run(2);
        change(&mut run);
        all.insert(commitment(Some(run)));
    }
    assert_eq!(all.len(), 2 + changes.len());
}

/// A grammar said what may come next.
fn held_to(run: &mut Run, grammar: &[u8]) {
    run.constrained = true;
    run.grammar = Some(grammar.to_vec().into());
}

#[test]
fn a_grammar_belongs_to_a_constrained_run_and_has_a_limit() {
    let fits = |change: Change| {
        let mut run = run(2);
        change(&mut run);
        (run.fits(), Run::decode(&run.encode()).is_some())
    };
    assert_eq!(fits(|run| held_to(run, &[b'j'; 128 << 10])), (true, true));
    assert_eq!(fits(|run| held_to(run, &[b'j'; (128 << 10) + 1])), (false, false));
    assert_eq!(fits(|run| run.grammar = Some(vec![b'j'].into())), (false, false), "of a free run");
}

#[test]
fn papers_of_another_version_are_refused_by_its_number() {
    let refused = ReceiptError::Version { found: 2, expected: 3 };
    let old = Map::default().int(0, 2).bytes(1, &[1; 32]).encode();
    assert_eq!(Opening::decode(&old).err(), Some(refused.clone()));
    let old =
        Map::default().bytes(0, &Map::default().int(0, 2).int(1, 7).encode()).bytes(1, &[0; 64]).encode();
    assert_eq!(SignedReceipt::decode(&old).err(), Some(refused));
    assert_eq!(Opening::decode(b"\xa0").err(), Some(ReceiptError::BadOpening));
    assert_eq!(Opening::decode(&vec![0; MAX_OPENING + 1]).err(), Some(ReceiptError::BadOpening));
}
