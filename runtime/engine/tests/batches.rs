//! Every family and every quantised format in batches: with preemption, choices, the prefix cache and windows, each answer has
//! the tokens and the probabilities, to the last bit, that it has alone on another instruction set.

mod common;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use cocoon_engine::{
    Engine, EngineOptions, Event, Finish, InstructionSet, Logprobs, Model, Params, Payer, Request, Salt,
    Sampling,
};
use common::sets;

const NAMES: [&str; 6] = ["llama", "qwen2", "qwen3", "gemma3", "phi3", "quants"];
const REQUESTS: usize = 30;

fn model(name: &str) -> Arc<Model> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/families");
    Arc::new(Model::open(&path.join(format!("{name}.gguf"))).expect("the model loads"))
}

fn request(model: &Model, number: usize) -> Request {
    let size = model.vocab_size();
    // A third of them begin alike, beyond any window.
    let alike = if number.is_multiple_of(3) { 70 } else { 0 };
    let length = alike + 1 + number * 31 % 60;
    let prompt =
        (0..length).map(|at| if at < alike { at * 7 % size } else { (at * 11 + number * 5) % size } as u32);
    let sampling = match number % 4 {
        0 => Sampling::greedy(),
        1 => Sampling { temperature: 1.0, top_k: 30, min_p: 0.01, ..Sampling::greedy() },
        _ => Sampling { temperature: 0.8, presence_penalty: 0.3, ..Sampling::default() },
    };
    let params = Params {
        sampling: Sampling { seed: number as u64, ..sampling },
        max_tokens: 1 + number * 17 % 50,
        logprobs: Some(4),
        ignore_eos: true,
        ..Params::default()
    };
    let request = Request::new(prompt.collect(), params).with_payer(Payer([(number % 3) as u8; 32]));
    request.with_choices(if number.is_multiple_of(5) { 3 } else { 1 })
}

/// Tokens and probabilities of each choice, and tokens of the prompt that were cached.
type Said = (BTreeMap<u32, Vec<(u32, Logprobs)>>, usize);

fn read(events: impl Iterator<Item = Event>) -> Said {
    let (mut said, mut cached) = (BTreeMap::<u32, Vec<_>>::new(), 0);
    for event in events {
        match event {
            Event::Started { cached_tokens } => cached = cached_tokens,
            Event::Token { choice, token, logprobs, .. } => {
                said.entry(choice).or_default().push((token, logprobs.expect("asked for")));
            }
            Event::End { outcome, .. } => assert_eq!(outcome, Ok(Finish::Length)),
            Event::Read { .. } | Event::Text { .. } => {}
        }
    }
    (said, cached)
}

/// All at once, in a cache that is too small for them.
fn together(model: &Arc<Model>, set: InstructionSet, threads: usize) -> Vec<Said> {
    let mut options = EngineOptions::with_threads(threads);
    options.instruction_set = Some(set);
    options.max_context = 200;
    options.max_running = 7;
    options.step_tokens = 40;
    options.cache_bytes = EngineOptions::bytes_of_context(model, 416);
    let engine = Engine::new(Arc::clone(model), options);
    // Read once, so that some of those that follow find the beginning in the cache.
    for salt in 0..2 {
        let first = request(model, 0).with_salt(Salt::new(&[salt]));
        read(engine.submit(first).expect("taken"));
    }
    let answers: Vec<_> = (0..REQUESTS)
        .map(|number| {
            let request = request(model, number).with_salt(Salt::new(&[(number % 2) as u8]));
            engine.submit(request).expect("taken")
        })
        .collect();
    let said = std::thread::scope(|scope| {
        let readers: Vec<_> = answers.into_iter().map(|answer| scope.spawn(|| read(answer))).collect();
        readers.into_iter().map(|reader| reader.join().expect("it only reads")).collect()
    });
    assert!(engine.status().preemptions > 3, "{:?}", engine.status());
    said
}

#[test]
fn every_family_has_the_same_bits_in_a_batch_as_alone() {
    for name in NAMES {
        let model = model(name);
        let mut options = EngineOptions::with_threads(1);
        options.instruction_set = Some(InstructionSet::Scalar);
        options.max_context = 200;
        let alone = Engine::new(Arc::clone(&model), options);
        let expected: Vec<Said> =
            (0..REQUESTS).map(|number| read(alone.submit(request(&model, number)).expect("taken"))).collect();
        assert!(expected.iter().all(|(_, cached)| *cached == 0), "nobody shares without a salt");
        for (set, threads) in sets().into_iter().zip([2, 1, 3]) {
            let found = together(&model, set, threads);
            for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(found.0 == expected.0, "{name} on {}, request {number}", set.name());
            }
            assert!(
                found.iter().any(|(_, cached)| *cached >= 64),
                "{name}: the beginning was cached for some"
            );
        }
    }
}
