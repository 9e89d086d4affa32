//! Generation as its users see it: ends, stops, limits, cancellation, text.

mod common;

use std::{ops::ControlFlow, sync::Arc};

use cocoon_engine::{
    ChatMessage, Engine, EngineOptions, Finish, GenerateError, Generated, Params, Sampler, Sampling,
};

fn engine() -> Engine {
    Engine::new(common::tiny(), EngineOptions::with_threads(1))
}

fn chat(engine: &Engine, question: &str) -> Vec<u32> {
    let message = ChatMessage { role: "user".into(), content: question.into() };
    let text = engine.model().render_chat(&[message], true).expect("the tiny model has a template");
    engine.model().tokenizer().encode(&text, true)
}

/// Text and outcome.
fn run(engine: &Engine, prompt: &[u32], params: &Params) -> (String, Generated) {
    let mut text = String::new();
    let done = engine.generate(prompt, params, |step| {
        text.push_str(step.text);
        ControlFlow::Continue(())
    });
    (text, done.expect("generates"))
}

fn sampled(seed: u64, max_tokens: usize) -> Params {
    Params {
        sampling: Sampling { seed, temperature: 0.8, ..Sampling::default() },
        max_tokens,
        ..Params::default()
    }
}

#[test]
fn answers_end_by_themselves_or_at_their_limit() {
    let engine = engine();
    let prompt = chat(&engine, "What is a class?");
    let (text, done) = run(&engine, &prompt, &sampled(1, 200));
    assert_eq!(done.finish, Finish::Stop);
    assert!(done.completion_tokens > 3 && text.split(' ').count() > 3, "{text:?}");
    assert!(!text.contains("<|"), "control tokens are no text: {text:?}");
    let (short, done) = run(&engine, &prompt, &sampled(1, 4));
    assert_eq!((done.finish, done.completion_tokens, done.prompt_tokens), (Finish::Length, 4, prompt.len()));
    assert!(text.starts_with(&short) && !short.is_empty());
    let (nothing, done) = run(&engine, &prompt, &sampled(1, 0));
    assert_eq!((nothing.as_str(), done.finish, done.completion_tokens), ("", Finish::Length, 0));
}

#[test]
fn the_seed_decides_the_answer() {
    let engine = engine();
    let prompt = chat(&engine, "Write about iterators.");
    let first = run(&engine, &prompt, &sampled(11, 60));
    assert_eq!(run(&engine, &prompt, &sampled(11, 60)), first);
    assert_ne!(run(&engine, &prompt, &sampled(12, 60)).0, first.0);
}

#[test]
fn a_stop_string_ends_the_answer_wherever_token_boundaries_lie() {
    let engine = engine();
    let prompt = chat(&engine, "Write about iterators.");
    let (whole, _) = run(&engine, &prompt, &sampled(11, 60));
    assert!(whole.len() > 80 && whole.is_ascii(), "{whole:?}");
    let mut tried = 0;
    for start in 5..60 {
        for length in [1, 2, 3, 7, 15] {
            let stop = &whole[start..start + length];
            if whole.find(stop) != Some(start) {
                continue;
            }
            tried += 1;
            let params = Params { stop: vec!["never this".into(), stop.into()], ..sampled(11, 60) };
            let mut pieces = Vec::new();
            let done = engine.generate(&prompt, &params, |step| {
                pieces.push(step.text.to_owned());
                ControlFlow::Continue(())
            });
            assert_eq!(done.expect("generates").finish, Finish::Stop);
            assert_eq!(pieces.concat(), whole[..start], "stop {stop:?}");
        }
    }
    assert!(tried > 50, "{tried}");
}

#[test]
fn text_that_only_looked_like_a_stop_string_is_given_out_in_the_end() {
    let engine = engine();
    let prompt = chat(&engine, "Write about iterators.");
    let (whole, done) = run(&engine, &prompt, &sampled(11, 30));
    let almost: Vec<String> = (1..10).map(|n| format!("{}\u{1}", &whole[whole.len() - n..])).collect();
    let params = Params { stop: almost, ..sampled(11, 30) };
    assert_eq!(run(&engine, &prompt, &params), (whole, done));
}

#[test]
fn the_caller_can_break_off_while_reading_and_while_writing() {
    let engine = engine();
    let long: Vec<u32> = chat(&engine, "Write about iterators.").repeat(12);
    let mut calls = 0;
    let done = engine.generate(&long, &sampled(1, 50), |step| {
        calls += 1;
        assert!(step.token.is_none() && step.prompt_tokens < long.len());
        ControlFlow::Break(())
    });
    let done = done.expect("not an error");
    assert_eq!((done.finish, done.completion_tokens, calls), (Finish::Cancelled, 0, 1));
    assert!(done.prompt_tokens > 0 && done.prompt_tokens < long.len());

    let done =
        engine.generate(&chat(&engine, "Hello!"), &sampled(1, 50), |step| match step.completion_tokens {
            0..3 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        });
    let done = done.expect("not an error");
    assert_eq!((done.finish, done.completion_tokens), (Finish::Cancelled, 3));
}

#[test]
fn a_prompt_over_the_context_is_a_clear_error() {
    let engine = engine();
    let context = engine.max_context();
    assert_eq!(context, 512);
    let error = engine.generate(&vec![300; 512], &sampled(1, 5), |_| ControlFlow::Continue(())).err();
    assert_eq!(error, Some(GenerateError::ContextOverflow { tokens: 513, context: 512 }));
    assert!(error.expect("refused").to_string().contains("512"));
    let (_, done) = run(&engine, &[300; 511], &sampled(1, 5));
    assert_eq!((done.completion_tokens, done.finish), (1, Finish::Length));
}

#[test]
fn an_answer_that_reaches_the_end_of_the_context_ends_there() {
    let mut options = EngineOptions::with_threads(1);
    options.max_context = 40;
    let engine = Engine::new(common::tiny(), options);
    let prompt = chat(&engine, "Write about iterators.");
    let (_, done) = run(&engine, &prompt, &sampled(11, 1000));
    assert_eq!((done.finish, done.prompt_tokens + done.completion_tokens), (Finish::Length, 40));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let engine = engine();
    let refuse = |prompt: &[u32], params: &Params| {
        engine.generate(prompt, params, |_| ControlFlow::Continue(())).expect_err("must be refused")
    };
    assert_eq!(refuse(&[], &sampled(1, 5)), GenerateError::EmptyPrompt);
    assert_eq!(
        refuse(&[1, 1024], &sampled(1, 5)),
        GenerateError::UnknownToken { token: 1024, vocab_size: 1024 }
    );
    for stop in [vec![String::new()], vec!["x".into(); 10_000], vec!["y".repeat(300)]] {
        let error = refuse(&[1], &Params { stop, ..sampled(1, 5) });
        assert!(matches!(error, GenerateError::Parameter { what: "stop", .. }), "{error}");
    }
    let sampling = Sampling { top_p: 0.0, ..Sampling::default() };
    let error = refuse(&[1], &Params { sampling, ..sampled(1, 5) });
    assert!(matches!(error, GenerateError::Parameter { what: "top_p", .. }), "{error}");
}

#[test]
fn steps_count_up_and_their_texts_are_the_answer() {
    let engine = engine();
    let prompt = chat(&engine, "Tell me about exceptions.");
    let (mut tokens, mut text, mut last) = (Vec::new(), String::new(), 0);
    let done = engine.generate(&prompt, &sampled(4, 40), |step| {
        assert!(step.completion_tokens >= last);
        last = step.completion_tokens;
        tokens.extend(step.token);
        text.push_str(step.text);
        ControlFlow::Continue(())
    });
    let done = done.expect("generates");
    assert_eq!((tokens.len(), last), (done.completion_tokens, done.completion_tokens));
    let tokenizer = engine.model().tokenizer();
    assert_eq!(text.as_bytes(), tokenizer.decode(&tokens));
}

#[test]
fn a_sequence_goes_on_from_token_to_token_as_generate_does() {
    let engine = engine();
    let prompt = chat(&engine, "Tell me about exceptions.");
    let mut expected = Vec::new();
    let params = Params { sampling: Sampling::greedy(), max_tokens: 12, ..Params::default() };
    let _ = engine.generate(&prompt, &params, |step| {
        expected.extend(step.token);
        ControlFlow::Continue(())
    });
    let mut sequence = engine.sequence(100);
    let mut sampler = Sampler::new(Sampling::greedy(), &[]).expect("in range");
    assert_eq!(sequence.next(&mut sampler), Err(GenerateError::EmptyPrompt));
    sequence.prefill(&prompt).expect("fits");
    let mut found = Vec::new();
    while let Some(token) = sequence.next(&mut sampler).expect("generates") {
        found.push(token);
        if found.len() == expected.len() {
            break;
        }
    }
    assert_eq!(found, expected);
    assert_eq!(sequence.len(), prompt.len() + found.len());
    let rest = 100 - sequence.len();
    assert!(matches!(sequence.prefill(&vec![300; rest + 1]), Err(GenerateError::ContextOverflow { .. })));
    sequence.prefill(&vec![300; rest]).expect("fits exactly");
    assert!(sequence.is_full());
    assert!(matches!(sequence.next(&mut sampler), Err(GenerateError::ContextOverflow { .. })));
}

#[test]
fn several_answers_at_a_time_are_those_of_one_at_a_time() {
    let engine = Arc::new(Engine::new(common::tiny(), EngineOptions::with_threads(2)));
    let prompt = chat(&engine, "Write about iterators.");
    let alone: Vec<_> = (0..6).map(|seed| run(&engine, &prompt, &sampled(seed, 40))).collect();
    std::thread::scope(|scope| {
        let (engine, prompt) = (&engine, &prompt);
        let together: Vec<_> =
            (0..6).map(|seed| scope.spawn(move || run(engine, prompt, &sampled(seed, 40)))).collect();
        for (run, alone) in together.into_iter().zip(alone) {
            assert_eq!(run.join().expect("ran"), alone);
        }
    });
}
