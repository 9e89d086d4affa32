//! The engine's digest stands on these hashes. If a test here fails, the arithmetic has changed: if that was meant, write
//! the hash that it prints into `BITS` of `src/identity.rs`, and answers of older engines are theirs to replay.

mod common;

use cocoon_engine::{Embedder, EngineOptions, Identity, Sampler, Sampling};
use common::{Bits, engine_on, sets};

#[test]
fn the_logits_of_the_tiny_model_are_those_that_the_digest_stands_on() {
    let model = common::tiny();
    let prompt = model.tokenizer().encode("<|im_start|>user\nWhat is a tuple?<|im_end|>\n", true);
    for set in sets() {
        let engine = engine_on(std::sync::Arc::clone(&model), 2, set);
        let mut bits = Bits::new();
        let mut sequence = engine.sequence(prompt.len() + 40);
        sequence.prefill_visiting(&prompt, |logits| bits.take(logits)).expect("fits");
        let mut sampler = Sampler::new(Sampling { seed: 3, ..Sampling::default() }, &[]).expect("in range");
        for _ in 0..40 {
            let token = sampler.choose(sequence.logits()).expect("numbers");
            sequence.prefill_visiting(&[token], |logits| bits.take(logits)).expect("fits");
        }
        assert_eq!(Some(bits.0), Identity::bits("logits"), "{}: {:#018x}", set.name(), bits.0);
    }
}

/// Each parameter alone, and all of them together.
fn samplings() -> Vec<Sampling> {
    let plain = Sampling { temperature: 1.0, seed: 11, ..Sampling::greedy() };
    vec![
        Sampling::greedy(),
        plain,
        Sampling { seed: u64::MAX, ..plain },
        Sampling { temperature: 0.3, ..plain },
        Sampling { top_p: 0.6, ..plain },
        Sampling { top_k: 5, ..plain },
        Sampling { min_p: 0.2, ..plain },
        Sampling { repetition_penalty: 1.4, ..plain },
        Sampling { presence_penalty: 1.5, ..plain },
        Sampling { frequency_penalty: 0.7, ..plain },
        Sampling {
            top_k: 40,
            min_p: 0.01,
            presence_penalty: 0.5,
            frequency_penalty: 0.2,
            ..Sampling::default()
        },
    ]
}

#[test]
fn the_tokens_that_are_drawn_are_those_that_the_digest_stands_on() {
    let logits: Vec<Vec<f32>> = (0..32u32)
        .map(|row| {
            let spread =
                |token: u32| (token.wrapping_mul(2_654_435_761).wrapping_add(row * 40_503) >> 20) as f32;
            (0..512).map(|token| spread(token) / 512.0).collect()
        })
        .collect();
    let mut bits = Bits::new();
    for (choice, sampling) in (0..).zip(samplings()) {
        let sampler = Sampler::new(sampling, &[7]).expect("in range");
        let mut sampler = sampler.for_choice(choice % 3).with_bias(&[(3, 2.0), (500, -100.0)]);
        sampler.observe(&[1, 2, 3, 2]);
        for row in &logits {
            let token = sampler.choose(row).expect("numbers");
            bits.take(&[f32::from_bits(token)]);
        }
    }
    assert_eq!(Some(bits.0), Identity::bits("tokens"), "{:#018x}", bits.0);
}

#[test]
fn the_vectors_of_the_small_encoder_are_those_that_the_digest_stands_on() {
    let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/families/bert");
    for set in sets() {
        let mut options = EngineOptions::with_threads(2);
        options.instruction_set = Some(set);
        let embedder = Embedder::open(&path, &options).expect("the small encoder loads");
        let mut bits = Bits::new();
        // Lengths on both sides of what kernels take at a time.
        for length in [1usize, 2, 7, 8, 9, 31, 64, 150] {
            let tokens: Vec<u32> = (0..length as u32).map(|at| (at * 37 + length as u32) % 704).collect();
            bits.take(embedder.embed_tokens(&tokens).expect("it fits").values());
        }
        assert_eq!(Some(bits.0), Identity::bits("vectors"), "{}: {:#018x}", set.name(), bits.0);
    }
}
