//! A whole model through the PTX that ships: the logits of the CPU engine, bit for bit, and so its tokens.

mod common;

use std::{path::Path, sync::Arc};

use cocoon_engine::{Engine, EngineOptions, Model, Sampler, Sampling};
use cocoon_kernels::{Choice, DecodeError, Decoder, PAGE, Row, TARGETS, Target};
use cocoon_ptx_check::Order;
use common::{Interpreter, bits, gguf::Gguf};

fn tiny() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/tiny.gguf");
    std::fs::read(path).expect("the repository's tiny model")
}

fn engine() -> (Arc<Model>, Engine) {
    let model = Arc::new(Model::from_bytes(tiny()).expect("a model"));
    let engine = Engine::new(Arc::clone(&model), EngineOptions::with_threads(1));
    (model, engine)
}

fn decoder(target: Target, order: Order, rows: usize, pages: usize) -> (Interpreter, Decoder<Interpreter>) {
    let model = Gguf::new(tiny());
    let mut device = Interpreter::new(target, order);
    let decoder = Decoder::new(&mut device, model.shape(rows, pages), &model.weights());
    (device, decoder.unwrap_or_else(|error| panic!("{error}")))
}

const PROMPT: &str = "<|im_start|>user\nWrite about the iterator.<|im_end|>\n<|im_start|>assistant\n";

#[test]
fn logits_have_the_bits_of_the_cpu_engine_on_every_target() {
    let (model, engine) = engine();
    let tokens = model.tokenizer().encode(PROMPT, true);
    let tokens = &tokens[..18]; // over the edge of a page
    let mut expected = Vec::new();
    engine.sequence(64).prefill_visiting(tokens, |logits| expected.push(bits(logits))).expect("fits");
    for (target, order) in TARGETS.into_iter().zip([Order::Forward, Order::Reversed, Order::Seeded(3)]) {
        let (mut device, mut decoder) = decoder(target, order, 13, 3);
        // Most of them in one step, more than one group of eight; the rest one by one.
        let mut read = 0;
        for count in [13, 1, 1, 1, 1, 1] {
            let row = |at: usize| Row { token: tokens[at], sequence: 0, position: at as u32 };
            let rows: Vec<Row> = (read..read + count).map(row).collect();
            decoder.step(&mut device, &rows, &[&[2, 0]], &vec![Choice::greedy(); count]).expect("a step");
            let found = decoder.logits(&mut device, count).expect("logits");
            for (found, expected) in found.chunks(model.vocab_size()).zip(&expected[read..read + count]) {
                assert!(
                    bits(found) == *expected,
                    "{target:?}, {order:?}: logits from token {read} on differ"
                );
            }
            read += count;
        }
    }
}

#[test]
fn greedy_and_drawn_tokens_are_those_of_the_cpu_engine_alone_and_in_a_batch() {
    let (model, engine) = engine();
    let prompt = model.tokenizer().encode(PROMPT, true);
    let other = &prompt[3..9];
    let drawn =
        Sampling { temperature: 0.8, top_p: 0.9, repetition_penalty: 1.2, seed: 77, ..Sampling::default() };
    let cases: [(&[u32], Sampling); 3] = [
        (&prompt, Sampling::greedy()),
        (other, drawn),
        (&prompt[..5], Sampling { top_p: 1.0, seed: 5, ..drawn }),
    ];
    const STEPS: usize = 12;
    let expected = cases.map(|(prompt, sampling)| {
        let mut sequence = engine.sequence(100);
        sequence.prefill(prompt).expect("fits");
        let mut sampler = Sampler::new(sampling, &[]).expect("in range");
        sampler.observe(prompt);
        let mut chosen = Vec::new();
        for _ in 0..STEPS {
            chosen.push(sampler.choose(sequence.logits()).expect("numbers"));
            sequence.prefill(&chosen[chosen.len() - 1..]).expect("fits");
        }
        chosen
    });

    let (mut device, mut decoder) = decoder(Target::Sm90, Order::Forward, 40, 12);
    let tables: [&[u32]; 3] = [&[11, 3, 7, 0], &[1, 2, 4], &[5, 6, 8]];
    let mut texts: Vec<Vec<u32>> = cases.iter().map(|(prompt, _)| prompt.to_vec()).collect();
    let mut read = [0; 3];
    for step in 0..STEPS {
        // The prompts go through in one step, their last rows at the end; then a row for each sequence.
        let row = |sequence: usize, position: usize| Row {
            token: texts[sequence][position],
            sequence: sequence as u32,
            position: position as u32,
        };
        let before = (0..3).flat_map(|s| (read[s]..texts[s].len() - 1).map(move |position| (s, position)));
        let last = (0..3).map(|s| (s, texts[s].len() - 1));
        let rows: Vec<Row> = before.chain(last).map(|(s, position)| row(s, position)).collect();
        let choices: Vec<Choice> = (0..3).map(|s| choice(&cases[s].1, &texts[s], step)).collect();
        let chosen = decoder.step(&mut device, &rows, &tables, &choices).expect("a step");
        for (sequence, token) in chosen.into_iter().enumerate() {
            read[sequence] = texts[sequence].len();
            texts[sequence].push(token.expect("numbers"));
        }
    }
    for ((text, (prompt, _)), expected) in texts.iter().zip(cases).zip(expected) {
        assert_eq!(text[prompt.len()..], expected);
    }
    println!("{} million instructions", device.instructions / 1_000_000);
}

/// What the host says of a sequence that has chosen `chosen` tokens.
fn choice(sampling: &Sampling, text: &[u32], chosen: usize) -> Choice {
    let mut recent = text[text.len().saturating_sub(256)..].to_vec();
    recent.sort_unstable();
    recent.dedup();
    Choice {
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        penalty: sampling.repetition_penalty,
        seed: sampling.seed,
        position: chosen as u64,
        choice: 0,
        recent: recent.into(),
    }
}

#[test]
fn a_page_that_was_used_is_dirty_until_it_is_scrubbed() {
    let (mut device, mut decoder) = decoder(Target::Sm80, Order::Forward, 1, 3);
    decoder.prove_clean(&mut device, &[0, 1, 2]).expect("new pages are clean");
    for position in 0..2 {
        let row = Row { token: 5, sequence: 0, position };
        let chosen = decoder.step(&mut device, &[row], &[&[1]], &[]).expect("a step");
        assert!(chosen.is_empty(), "no choice was asked for");
    }
    decoder.prove_clean(&mut device, &[0, 2]).expect("they were not touched");
    let Err(DecodeError::Dirty { page: 1, words }) = decoder.prove_clean(&mut device, &[0, 1, 2]) else {
        panic!("a used page passes for clean")
    };
    // Keys of two tokens share words; values of two tokens do not. Some of them may be zero by chance.
    let most = 4 * 2 * 32 * 2;
    assert!((most / 2..=most).contains(&words), "{words} words");
    decoder.scrub(&mut device, &[1]).expect("a page");
    decoder.prove_clean(&mut device, &[0, 1, 2]).expect("scrubbed");
    assert!(matches!(
        decoder.scrub(&mut device, &[3]),
        Err(DecodeError::Step { what: "page", found: 3, limit: 3 })
    ));
}

#[test]
fn a_decoder_that_retires_leaves_nothing_of_a_conversation() {
    let (mut device, mut decoder) = decoder(Target::Sm100, Order::Forward, 2, 3);
    // Before them: the canary's two, the output norm, for each layer two norms and seven matrices, the embedding.
    let before = 2 + 1 + 4 * (2 + 7 * 2) + 2;
    let written = |device: &Interpreter| {
        let buffers = device.device.buffers().skip(before);
        buffers.filter(|buffer| device.device.read_any(*buffer).iter().any(|byte| *byte != 0)).count()
    };
    let rows = [0, 1].map(|position| Row { token: 7, sequence: 0, position });
    let warm = Choice { temperature: 1.0, top_p: 0.9, ..Choice::greedy() };
    decoder.step(&mut device, &rows, &[&[1]], &[warm]).expect("a step");
    assert!(written(&device) >= 14, "{} buffers hold something", written(&device));
    decoder.retire(&mut device).expect("wiped");
    assert_eq!(written(&device), 0);
}

#[test]
fn models_whose_sizes_do_not_fit_are_refused_by_name() {
    let model = Gguf::new(tiny());
    let refused = |edit: &dyn Fn(&mut cocoon_kernels::Shape, &mut cocoon_kernels::Weights)| {
        let (mut shape, mut weights) = (model.shape(1, 2), model.weights());
        edit(&mut shape, &mut weights);
        let mut device = Interpreter::new(Target::Sm80, Order::Forward);
        match Decoder::new(&mut device, shape, &weights).map(drop) {
            Err(DecodeError::Shape { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&|shape, _| shape.width = 120), "width");
    assert_eq!(refused(&|shape, _| shape.vocabulary += 1), "embedding");
    assert_eq!(refused(&|shape, _| shape.kv_heads = 3), "heads");
    assert_eq!(refused(&|shape, _| (shape.heads, shape.head_len) = (16, 8)), "head length");
    assert_eq!(refused(&|shape, _| shape.pages = 0), "pages");
    assert_eq!(refused(&|shape, _| shape.pages = usize::MAX), "pages");
    assert_eq!(refused(&|shape, _| shape.rows = 4097), "rows");
    assert_eq!(refused(&|shape, _| shape.table_width = usize::MAX / 2), "pages of a sequence");
    assert_eq!(refused(&|shape, _| shape.width = 1 << 40), "width");
    assert_eq!(refused(&|shape, _| (shape.heads, shape.head_len) = (4, 512)), "head length");
    assert_eq!(refused(&|_, weights| weights.layers.clear()), "layers");
    assert_eq!(refused(&|_, weights| weights.frequencies.push(1.0)), "rotated pairs");
    assert_eq!(refused(&|_, weights| weights.output_norm.push(1.0)), "output norm");
    assert_eq!(refused(&|_, weights| weights.layers[3].down = weights.layers[3].query.clone()), "down");
    assert_eq!(PAGE, 16, "halves of a page are counted by it");
}
