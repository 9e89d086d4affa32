//! The engine's door: requests from any thread, answers event by event, without any runtime.

mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use cocoon_engine::{
    Answer, Busy, Constraint, ConstraintError, Engine, EngineOptions, Event, Finish, GenerateError, Logprobs,
    Model, Params, Request, Salt, Sampling, SubmitError, TokenMask,
};

/// Long enough for a loaded machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

fn engine() -> Engine {
    Engine::new(common::tiny(), EngineOptions::with_threads(2))
}

fn engine_with(change: impl FnOnce(&mut EngineOptions)) -> Engine {
    let mut options = EngineOptions::with_threads(2);
    change(&mut options);
    Engine::new(common::tiny(), options)
}

fn prompt(engine: &Engine, text: &str) -> Vec<u32> {
    engine.model().tokenizer().encode(text, true)
}

fn greedy(max_tokens: usize) -> Params {
    Params { sampling: Sampling::greedy(), max_tokens, ignore_eos: true, ..Params::default() }
}

#[derive(Default)]
struct Heard {
    tokens: BTreeMap<u32, Vec<u32>>,
    logprobs: Vec<Option<Logprobs>>,
    ends: BTreeMap<u32, Result<Finish, GenerateError>>,
    cached: Option<usize>,
}

fn hear(events: impl Iterator<Item = Event>) -> Heard {
    let mut heard = Heard::default();
    for event in events {
        match event {
            Event::Started { cached_tokens } => heard.cached = Some(cached_tokens),
            Event::Token { choice, token, logprobs, .. } => {
                heard.tokens.entry(choice).or_default().push(token);
                heard.logprobs.push(logprobs);
            }
            Event::End { choice, outcome } => drop(heard.ends.insert(choice, outcome)),
            Event::Read { .. } | Event::Text { .. } => {}
        }
    }
    heard
}

fn ask(engine: &Engine, request: Request) -> Heard {
    hear(engine.submit(request).expect("taken"))
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "it never came to: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_idle(engine: &Engine) -> bool {
    let status = engine.status();
    (status.running, status.waiting, status.held_blocks) == (0, 0, 0)
}

#[test]
fn an_answer_can_be_polled_from_any_runtime() {
    struct Counting(AtomicUsize, std::thread::Thread);
    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1.unpark();
        }
    }
    let engine = engine();
    let text = prompt(&engine, "The list");
    let expected = ask(&engine, Request::new(text.clone(), greedy(20)));
    let counting = Arc::new(Counting(AtomicUsize::new(0), std::thread::current()));
    let waker = Waker::from(Arc::clone(&counting));
    let mut answer = engine.submit(Request::new(text, greedy(20))).expect("taken");
    let mut events = Vec::new();
    loop {
        match answer.poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(event)) => events.push(event),
            Poll::Ready(None) => break,
            Poll::Pending => std::thread::park_timeout(PATIENCE),
        }
    }
    assert!(counting.0.load(Ordering::SeqCst) > 0);
    assert!(
        matches!(answer.poll_next(&mut Context::from_waker(&waker)), Poll::Ready(None)),
        "and stays over"
    );
    assert_eq!(hear(events.into_iter()).tokens, expected.tokens);
}

#[test]
fn dropping_an_answer_frees_its_blocks_while_nobody_else_asks() {
    let engine = engine();
    for _ in 0..20 {
        let mut answer =
            engine.submit(Request::new(prompt(&engine, "The class"), greedy(400))).expect("taken");
        while !matches!(answer.next(), Some(Event::Token { .. })) {}
        drop(answer);
        wait_for("idle", || is_idle(&engine));
    }
    assert!(engine.status().steps < 20 * 400, "they did not run to their ends");
}

#[test]
fn a_reader_that_does_not_read_holds_nobody_up_and_is_told_in_the_end() {
    let engine = engine_with(|options| options.reader_patience = Duration::from_secs(2));
    let deaf: Vec<Answer> = (0..40)
        .map(|_| engine.submit(Request::new(prompt(&engine, "The class"), greedy(400))).expect("taken"))
        .collect();
    let heard = ask(&engine, Request::new(prompt(&engine, "The list"), greedy(200)));
    assert_eq!((heard.tokens[&0].len(), &heard.ends[&0]), (200, &Ok(Finish::Length)));
    wait_for("idle", || is_idle(&engine));
    for answer in deaf {
        let heard = hear(answer);
        assert_eq!(heard.ends[&0], Err(GenerateError::SlowReader { seconds: 2 }));
        assert!((1..100).contains(&heard.tokens[&0].len()), "what was written is there to be read");
    }
}

#[test]
fn beyond_its_limits_an_engine_says_busy_and_recovers() {
    let engine = engine_with(|options| {
        options.max_running = 1;
        options.max_waiting = 2;
    });
    let text = prompt(&engine, "The class");
    let request = || Request::new(text.clone(), greedy(400));
    let running = engine.submit(request()).expect("taken");
    wait_for("it runs", || engine.status().running == 1);
    let waiting: Vec<Answer> = (0..2).map(|_| engine.submit(request()).expect("taken")).collect();
    let Err(SubmitError::Busy(busy)) = engine.submit(request()) else { panic!("a third waits") };
    assert_eq!(busy, Busy { what: "answers", limit: 2 });
    assert!(busy.to_string().contains("try again"));
    let result = engine.generate(&text, &greedy(1), |_| std::ops::ControlFlow::Continue(()));
    assert_eq!(result, Err(GenerateError::Busy(busy)));
    drop((running, waiting));
    wait_for("idle", || is_idle(&engine));
    assert_eq!(ask(&engine, Request::new(text.clone(), greedy(3))).tokens[&0].len(), 3);
}

#[test]
fn an_engine_that_ends_tells_all_readers() {
    let engine = engine_with(|options| options.max_running = 1);
    let text = prompt(&engine, "The class");
    let answers: Vec<Answer> = (0..3)
        .map(|_| engine.submit(Request::new(text.clone(), greedy(400)).with_choices(2)).expect("taken"))
        .collect();
    drop(engine);
    for answer in answers {
        let heard = hear(answer);
        assert_eq!(heard.ends.len(), 2, "each choice has its end");
        assert!(heard.ends.values().all(|end| *end == Err(GenerateError::Stopped)));
    }
}

#[test]
fn a_prompt_seen_before_is_told_as_cached_and_answered_alike() {
    let engine = engine();
    let text = prompt(&engine, &"The method returns a list of strings. ".repeat(8));
    let request = |salt: &str| Request::new(text.clone(), greedy(12)).with_salt(Salt::new(salt.as_bytes()));
    let first = ask(&engine, request("a"));
    let again = ask(&engine, request("a"));
    assert_eq!((first.cached, again.cached), (Some(0), Some((text.len() - 1) / 16 * 16)));
    assert_eq!(first.tokens, again.tokens);
    assert_eq!(ask(&engine, request("b")).cached, Some(0));
    assert!(engine.status().cached_blocks > 0);
}

#[test]
fn weights_that_are_not_numbers_end_only_the_answers_that_meet_them() {
    let poisoned = 777;
    let model = Arc::new(Model::from_bytes(common::untied(poisoned)).expect("its structure is sound"));
    let engine = Engine::new(Arc::clone(&model), EngineOptions::with_threads(2));
    let good = model.tokenizer().encode("The method returns a list.", true);
    assert!(!good.contains(&poisoned));
    let mut bad = good.clone();
    bad.push(poisoned);
    let mut params = greedy(60);
    params.logit_bias = vec![(poisoned, -100.0)];
    let expected = ask(&engine, Request::new(good.clone(), params.clone()));
    assert_eq!(expected.ends[&0], Ok(Finish::Length));
    let answers: Vec<(bool, Answer)> = (0..12)
        .map(|n| {
            let prompt = if n % 3 == 1 { &bad } else { &good };
            (n % 3 == 1, engine.submit(Request::new(prompt.clone(), params.clone())).expect("taken"))
        })
        .collect();
    for (is_bad, answer) in answers {
        let heard = hear(answer);
        if is_bad {
            assert_eq!(heard.ends[&0], Err(GenerateError::NotANumber));
            assert!(heard.tokens.is_empty());
        } else {
            assert_eq!((&heard.tokens, &heard.ends), (&expected.tokens, &expected.ends));
        }
    }
}

#[test]
fn logprobs_tell_the_likeliest_and_the_chosen() {
    let engine = engine();
    let text = prompt(&engine, "The list");
    let params = Params { logprobs: Some(5), ..greedy(10) };
    let heard = ask(&engine, Request::new(text.clone(), params));
    for (token, logprobs) in heard.tokens[&0].iter().zip(&heard.logprobs) {
        let Some(Logprobs { logprob, top }) = logprobs else { panic!("asked for") };
        assert_eq!((top.len(), top[0].0, top[0].1), (5, *token, *logprob), "greedy takes the likeliest");
        assert!(top.is_sorted_by(|a, b| a.1 >= b.1) && *logprob <= 0.0);
        assert!(top.iter().map(|(_, p)| p.exp()).sum::<f32>() <= 1.0001);
    }
    let none = Params { logprobs: Some(0), ..greedy(2) };
    assert!(
        ask(&engine, Request::new(text.clone(), none))
            .logprobs
            .iter()
            .all(|l| l.as_ref().is_some_and(|l| l.top.is_empty()))
    );
    assert!(ask(&engine, Request::new(text, greedy(2))).logprobs.iter().all(Option::is_none));
}

#[test]
fn a_bias_bans_a_token_or_forces_it() {
    let engine = engine();
    let text = prompt(&engine, "The list");
    let first = ask(&engine, Request::new(text.clone(), greedy(1))).tokens[&0][0];
    let with = |bias: f32, token: u32| {
        let params = Params { logit_bias: vec![(token, bias)], ..greedy(5) };
        ask(&engine, Request::new(text.clone(), params)).tokens[&0].clone()
    };
    assert!(!with(-100.0, first).contains(&first));
    assert_eq!(with(100.0, 500), [500; 5]);
}

/// Allows the tokens of a cycle, and then the end.
struct Cycle {
    tokens: Vec<u32>,
    ends: Vec<u32>,
    at: usize,
}

impl Constraint for Cycle {
    fn mask(&mut self, mask: &mut TokenMask) -> Result<(), ConstraintError> {
        mask.forbid_all();
        match self.tokens.get(self.at) {
            Some(token) => mask.allow(*token),
            None => self.ends.iter().for_each(|end| mask.allow(*end)),
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        assert_eq!(self.tokens[self.at], token, "only what was allowed is chosen");
        self.at += 1;
        Ok(())
    }
}

/// Fails in its own way at the third token.
struct Failing(usize, fn() -> Result<(), ConstraintError>);

impl Constraint for Failing {
    fn mask(&mut self, _mask: &mut TokenMask) -> Result<(), ConstraintError> {
        self.0 += 1;
        if self.0 == 3 { (self.1)() } else { Ok(()) }
    }

    fn accept(&mut self, _token: u32) -> Result<(), ConstraintError> {
        Ok(())
    }
}

struct Nothing;

impl Constraint for Nothing {
    fn mask(&mut self, mask: &mut TokenMask) -> Result<(), ConstraintError> {
        mask.forbid_all();
        Ok(())
    }

    fn accept(&mut self, _token: u32) -> Result<(), ConstraintError> {
        Err(ConstraintError("nothing was allowed"))
    }
}

#[test]
fn a_constraint_decides_what_comes_next_for_each_choice() {
    let engine = engine();
    let ends = engine.model().tokenizer().end_tokens().to_vec();
    let cycles = [vec![10, 500, 10], vec![999, 700, 640, 641]];
    let constraints = cycles
        .iter()
        .map(|tokens| -> Box<dyn Constraint> {
            Box::new(Cycle { tokens: tokens.clone(), ends: ends.clone(), at: 0 })
        })
        .collect();
    let params = Params {
        ignore_eos: false,
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        ..greedy(50)
    };
    let request =
        Request::new(prompt(&engine, "The list"), params).with_choices(2).with_constraints(constraints);
    let heard = ask(&engine, request);
    for (choice, tokens) in cycles.iter().enumerate() {
        let choice = choice as u32;
        assert_eq!((&heard.tokens[&choice], &heard.ends[&choice]), (tokens, &Ok(Finish::Stop)));
    }
}

#[test]
fn a_constraint_that_fails_ends_its_own_answer() {
    let engine = engine();
    let text = prompt(&engine, "The list");
    let with = |constraint: Box<dyn Constraint>| {
        Request::new(text.clone(), greedy(20)).with_constraints(vec![constraint])
    };
    let other = engine.submit(Request::new(text.clone(), greedy(100))).expect("taken");
    let failed = ask(&engine, with(Box::new(Failing(0, || Err(ConstraintError("no way on"))))));
    assert_eq!(
        (failed.tokens[&0].len(), &failed.ends[&0]),
        (2, &Err(GenerateError::Constraint("no way on")))
    );
    let panicked = ask(&engine, with(Box::new(Failing(0, || panic!("a constraint with a bug")))));
    assert_eq!(panicked.ends[&0], Err(GenerateError::Constraint("it panicked")));
    let nothing = ask(&engine, with(Box::new(Nothing)));
    assert_eq!(nothing.ends[&0], Err(GenerateError::NothingAllowed));
    assert_eq!(hear(other).tokens[&0].len(), 100, "the others go on");
}

#[test]
fn penalties_of_the_answer_leave_the_prompt_alone() {
    let engine = engine();
    let text = prompt(&engine, "The list");
    let with = |sampling: Sampling| {
        ask(&engine, Request::new(text.clone(), Params { sampling, ..greedy(60) })).tokens[&0].clone()
    };
    let distinct = |tokens: &[u32]| tokens.iter().collect::<std::collections::BTreeSet<_>>().len();
    let plain = with(Sampling::greedy());
    let present = with(Sampling { presence_penalty: 2.0, ..Sampling::greedy() });
    let frequent = with(Sampling { frequency_penalty: 2.0, ..Sampling::greedy() });
    assert_eq!(plain[0], present[0], "nothing was said yet");
    assert!(distinct(&present) > distinct(&plain) && distinct(&frequent) > distinct(&plain));
    let rewarded = with(Sampling { frequency_penalty: -2.0, ..Sampling::greedy() });
    assert!(distinct(&rewarded) <= distinct(&plain));
}

#[test]
fn requests_that_make_no_sense_are_refused_by_name() {
    let engine = engine();
    let text = prompt(&engine, "The list");
    let refused = |request: Request| match engine.submit(request) {
        Err(SubmitError::Invalid(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was taken"),
    };
    let parameter = |request: Request| match refused(request) {
        GenerateError::Parameter { what, .. } => what,
        other => panic!("{other}"),
    };
    let with = |change: fn(&mut Params)| {
        let mut params = greedy(5);
        change(&mut params);
        Request::new(text.clone(), params)
    };
    assert_eq!(parameter(with(|p| p.sampling.min_p = 1.5)), "min_p");
    assert_eq!(parameter(with(|p| p.sampling.presence_penalty = 2.1)), "presence_penalty");
    assert_eq!(parameter(with(|p| p.sampling.frequency_penalty = f32::NAN)), "frequency_penalty");
    assert_eq!(parameter(with(|p| p.logit_bias = vec![(5, 101.0)])), "logit_bias");
    assert_eq!(parameter(with(|p| p.logit_bias = vec![(5, 1.0); 301])), "logit_bias");
    assert_eq!(parameter(with(|p| p.logprobs = Some(21))), "top_logprobs");
    assert_eq!(parameter(with(|_| {}).with_choices(0)), "n");
    assert_eq!(parameter(with(|_| {}).with_choices(17)), "n");
    let one: Vec<Box<dyn Constraint>> = vec![Box::new(Nothing)];
    assert_eq!(parameter(with(|_| {}).with_choices(2).with_constraints(one)), "the number of constraints");
    let unknown = with(|p| p.logit_bias = vec![(1024, 1.0)]);
    assert_eq!(refused(unknown), GenerateError::UnknownToken { token: 1024, vocab_size: 1024 });
    assert_eq!(refused(Request::new(Vec::new(), greedy(5))), GenerateError::EmptyPrompt);
}

#[test]
fn a_small_cache_makes_the_context_small() {
    let bytes = EngineOptions::bytes_of_context(&common::tiny(), 64);
    let engine = engine_with(|options| options.cache_bytes = bytes);
    assert_eq!(engine.max_context(), 64);
    let heard = ask(&engine, Request::new(vec![400; 60], greedy(100)));
    assert_eq!((heard.tokens[&0].len(), &heard.ends[&0]), (4, &Ok(Finish::Length)));
    assert_eq!(engine.status().limit_blocks, 4);
}
