//! The same bits on every instruction set, with any number of threads and any chunking: by hash of all logits.

mod common;

use std::sync::Arc;

use cocoon_engine::{Engine, Model, Sampler, Sampling};
use common::{Bits, engine_on, sets};

const PROMPT: &str = "<|im_start|>user\nWrite about the iterator and its methods, please, in forty words.<|im_end|>\n\
                      <|im_start|>assistant\nAn iterator is an object that";

/// Hash of the logits after each token of the prompt and of some chosen tokens.
fn all_logits(engine: &Engine, prompt: &[u32], pieces: usize, decode: usize) -> Bits {
    let mut bits = Bits::new();
    let mut sequence = engine.sequence(prompt.len() + decode);
    for piece in prompt.chunks(pieces) {
        sequence.prefill_visiting(piece, |logits| bits.take(logits)).expect("fits");
    }
    let mut sampler = Sampler::new(Sampling { seed: 9, ..Sampling::default() }, &[]).expect("in range");
    for _ in 0..decode {
        let token = sampler.choose(sequence.logits()).expect("numbers");
        sequence.prefill_visiting(&[token], |logits| bits.take(logits)).expect("fits");
    }
    bits
}

fn same_bits_everywhere(model: Arc<Model>, decode: usize) {
    let prompt = model.tokenizer().encode(PROMPT, true);
    let mut expected = None;
    for set in sets() {
        for (threads, pieces) in [(1, 1000), (2, 1000), (1, 1), (3, 7), (2, 16), (1, 5)] {
            let engine = engine_on(Arc::clone(&model), threads, set);
            let bits = all_logits(&engine, &prompt, pieces, decode);
            let expected = *expected.get_or_insert(bits);
            assert_eq!(bits, expected, "{}, {threads} threads, pieces of {pieces}", set.name());
        }
    }
    println!("{:016x} over {} tokens", expected.expect("some set").0, prompt.len() + decode);
}

#[test]
fn the_tiny_model_gives_the_same_bits_everywhere() {
    same_bits_everywhere(common::tiny(), 24);
}

#[test]
fn the_demo_model_gives_the_same_bits_everywhere() {
    let Some(model) = common::smollm2() else { return };
    let prompt = model.tokenizer().encode(PROMPT, true);
    let hashes = sets().into_iter().zip([1, 2, 2]).map(|(set, threads)| {
        all_logits(&engine_on(Arc::clone(&model), threads, set), &prompt[..20], 3 + threads * 4, 4)
    });
    let hashes: Vec<_> = hashes.collect();
    assert!(hashes.windows(2).all(|two| two[0] == two[1]), "{hashes:x?}");
}

#[test]
fn prefill_that_visits_no_logits_gives_the_same_last_logits() {
    let model = common::tiny();
    let engine = engine_on(Arc::clone(&model), 2, cocoon_engine::InstructionSet::detect());
    let prompt = model.tokenizer().encode(PROMPT, true);
    let mut plain = engine.sequence(100);
    plain.prefill(&prompt).expect("fits");
    let mut visiting = engine.sequence(100);
    let mut last = Vec::new();
    visiting.prefill_visiting(&prompt, |logits| last = logits.to_vec()).expect("fits");
    assert_eq!(plain.logits(), last);
}

#[test]
fn sequences_that_run_at_the_same_time_do_not_touch_each_other() {
    let model = common::tiny();
    let engine = engine_on(Arc::clone(&model), 2, cocoon_engine::InstructionSet::detect());
    let prompt = model.tokenizer().encode(PROMPT, true);
    let alone = all_logits(&engine, &prompt, 7, 20);
    std::thread::scope(|scope| {
        let (engine, prompt) = (&engine, &prompt);
        let runs: Vec<_> =
            (1..7).map(|pieces| scope.spawn(move || all_logits(engine, prompt, pieces, 20))).collect();
        for bits in runs.into_iter().map(|run| run.join()) {
            assert_eq!(bits.expect("ran"), alone);
        }
    });
}
