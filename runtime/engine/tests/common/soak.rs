//! Mixed requests of many payers at the same time, by their numbers: what `tests/soak.rs` does for some seconds and
//! `examples/soak.rs` for minutes.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use cocoon_engine::{
    Answer, Constraint, ConstraintError, Engine, EngineOptions, Event, Finish, GenerateError, Model, Params,
    Payer, Request, Salt, Sampling, SubmitError, TokenMask,
};

/// Requests at the same time.
const CLIENTS: usize = 12;
/// How long the engine waits for a reader.
const PATIENCE: Duration = Duration::from_millis(150);
/// Tokens of prompt and answer that fit.
const CONTEXT: usize = 512;

/// An engine with less of everything than the clients want, so that blocks are forgotten and answers put back.
pub(crate) fn options(model: &Model, threads: usize) -> EngineOptions {
    let mut options = EngineOptions::with_threads(threads);
    options.max_context = CONTEXT;
    options.cache_bytes = EngineOptions::bytes_of_context(model, CONTEXT + 256);
    options.max_running = 6;
    options.reader_patience = PATIENCE;
    options
}

/// Resident bytes of this process, by `VmRSS`.
pub(crate) fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has some");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of kB") << 10
}

/// How requests went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// To their end.
    pub(crate) whole: usize,
    /// Their readers left.
    pub(crate) left: usize,
    /// Their readers did not read, and were given up.
    pub(crate) deaf: usize,
    /// Refused, as they had to be.
    pub(crate) refused: usize,
    /// Their grammar failed, as it had to.
    pub(crate) failed: usize,
    /// Tokens that were read.
    pub(crate) tokens: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, more: Self) {
        self.whole += more.whole;
        self.left += more.left;
        self.deaf += more.deaf;
        self.refused += more.refused;
        self.failed += more.failed;
        self.tokens += more.tokens;
    }
}

/// What is special about a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    LongPrompt,
    Constrained,
    /// Its grammar gives up.
    Failing,
    /// It makes no sense.
    Invalid(usize),
}

/// How its reader reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Keen,
    LeavesAtOnce,
    LeavesInBetween,
    /// Pauses once, for less than the engine's patience.
    Dozes,
    /// Reads a little now and then.
    Slow,
    /// Does not read until it is given up.
    Deaf,
}

/// SplitMix64 of a request's number.
fn dice(number: usize, nth: u64) -> usize {
    let mut z = (number as u64)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(nth.wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 16) as usize
}

fn kind(number: usize) -> Kind {
    match dice(number, 1) % 100 {
        0..5 => Kind::LongPrompt,
        5..17 => Kind::Constrained,
        17..19 => Kind::Failing,
        19..22 => Kind::Invalid(dice(number, 2) % 6),
        _ => Kind::Plain,
    }
}

fn reader(number: usize) -> Reader {
    match dice(number, 3) % 100 {
        0..10 => Reader::LeavesAtOnce,
        10..20 => Reader::LeavesInBetween,
        20..26 => Reader::Dozes,
        26..28 => Reader::Slow,
        28 => Reader::Deaf,
        _ => Reader::Keen,
    }
}

/// Allows each so many-th token alone, and fails after so many.
struct Grammar {
    each: u32,
    left: usize,
}

impl Constraint for Grammar {
    fn mask(&mut self, mask: &mut TokenMask) -> Result<(), ConstraintError> {
        if self.left == 0 {
            return Err(ConstraintError("it was meant to fail"));
        }
        (0..mask.len() as u32)
            .filter(|token| !token.is_multiple_of(self.each))
            .for_each(|token| mask.forbid(token));
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.left -= 1;
        if token.is_multiple_of(self.each) { Ok(()) } else { Err(ConstraintError("it was not asked")) }
    }
}

fn request(engine: &Engine, number: usize) -> Request {
    let (kind, size, context) = (kind(number), engine.model().vocab_size(), engine.max_context());
    let deaf = matches!(reader(number), Reader::Deaf);
    let answer = if deaf { 200 } else { 1 + dice(number, 4) % 40 };
    let length = match kind {
        Kind::LongPrompt => context - answer - 1,
        Kind::Invalid(0) => context,
        Kind::Invalid(1) => 0,
        _ => 1 + dice(number, 5) % 90,
    };
    // Some begin alike, some not.
    let prompt = (0..length).map(|at| ((300 + at * (1 + number % 3)) % size) as u32);
    let mut prompt: Vec<u32> = prompt.collect();
    let sampling = match dice(number, 6) % 5 {
        0 => Sampling::greedy(),
        1 => Sampling { temperature: f32::from_bits(1), ..Sampling::default() },
        2 => Sampling { temperature: 1.5, top_k: 20, frequency_penalty: 0.5, ..Sampling::default() },
        _ => Sampling { temperature: 1.0, ..Sampling::default() },
    };
    let sampling = Sampling { seed: number as u64, ..sampling };
    let mut params = Params { sampling, max_tokens: answer, ignore_eos: true, ..Params::default() };
    if dice(number, 7).is_multiple_of(6) {
        params.logprobs = Some(5);
    }
    if dice(number, 8).is_multiple_of(6) {
        params.stop = vec!["no such text, I hope".to_owned(), "\u{1f98b}\u{1f98b}".to_owned()];
        params.logit_bias = vec![(dice(number, 9) as u32 % size as u32, -50.0)];
    }
    let mut choices = if dice(number, 10).is_multiple_of(7) { 2 + number as u32 % 3 } else { 1 };
    match kind {
        Kind::Invalid(2) => choices = 17,
        Kind::Invalid(3) => params.sampling.temperature = f32::NAN,
        Kind::Invalid(4) => prompt.push(size as u32),
        Kind::Invalid(5) => params.stop = vec![String::new()],
        _ => {}
    }
    let mut request = Request::new(prompt, params).with_choices(choices);
    // Payers and salts come, stay for some requests, and never come again.
    let name = (number / 16 * 4 + dice(number, 11) % 4) as u64;
    let mut payer = [0; 32];
    payer[..8].copy_from_slice(&name.to_le_bytes());
    request = request.with_payer(Payer(payer));
    if matches!(kind, Kind::Constrained | Kind::Failing) {
        let left = if kind == Kind::Failing { answer / 2 } else { usize::MAX };
        let grammar = |_| Box::new(Grammar { each: 3, left }) as Box<dyn Constraint>;
        request = request.with_constraints((0..choices).map(grammar).collect());
    }
    if number.is_multiple_of(2) { request.with_salt(Salt::new(&name.to_le_bytes())) } else { request }
}

/// Asks, reads, and holds the end against what was to come.
fn ask(engine: &Engine, number: usize) -> Tally {
    let mut tally = Tally::default();
    let (kind, reader) = (kind(number), reader(number));
    let answer = match engine.submit(request(engine, number)) {
        Ok(answer) if !matches!(kind, Kind::Invalid(_)) => answer,
        Err(SubmitError::Invalid(_)) if matches!(kind, Kind::Invalid(_)) => {
            tally.refused = 1;
            return tally;
        }
        Ok(_) => panic!("request {number} makes no sense and was taken"),
        Err(error) => panic!("request {number}: {error}"),
    };
    let mut answer: Answer = answer;
    match reader {
        Reader::LeavesAtOnce => {
            tally.left = 1;
            return tally;
        }
        Reader::LeavesInBetween => {
            tally.left = 1;
            tally.tokens =
                answer.by_ref().take(3).filter(|event| matches!(event, Event::Token { .. })).count();
            return tally;
        }
        Reader::Dozes => std::thread::sleep(PATIENCE / 10),
        Reader::Deaf => std::thread::sleep(PATIENCE * 3),
        Reader::Keen | Reader::Slow => {}
    }
    let (mut whole, mut deaf, mut failed) = (0, 0, 0);
    for (nth, event) in answer.enumerate() {
        if reader == Reader::Slow && nth % 8 == 0 {
            std::thread::sleep(PATIENCE / 10);
        }
        match event {
            Event::Token { .. } => tally.tokens += 1,
            Event::End { outcome: Ok(Finish::Length), .. } => whole += 1,
            Event::End { outcome: Err(GenerateError::Constraint(_)), .. } if kind == Kind::Failing => {
                failed += 1
            }
            Event::End { outcome: Err(GenerateError::SlowReader { .. }), .. } => deaf += 1,
            // The other choices of an answer that was given up before they began.
            Event::End { outcome: Err(GenerateError::Stopped), .. } if deaf > 0 => {}
            Event::End { outcome, .. } => panic!("request {number} ended with {outcome:?}"),
            Event::Started { .. } | Event::Read { .. } | Event::Text { .. } => {}
        }
    }
    match (whole, deaf, failed) {
        (_, 1.., _) => tally.deaf = 1,
        (_, _, 1..) => tally.failed = 1,
        _ => tally.whole = 1,
    }
    tally
}

/// Runs these requests, the next one as soon as a client is free, but none before its time: so many each second, or any.
pub(crate) fn run(engine: &Engine, numbers: std::ops::Range<usize>, pace: Option<f64>) -> Tally {
    let (next, start) = (AtomicUsize::new(numbers.start), Instant::now());
    let client = || {
        let mut tally = Tally::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                return tally;
            }
            if let Some(pace) = pace {
                let due = Duration::from_secs_f64((number - numbers.start) as f64 / pace);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
            tally.add(ask(engine, number));
        }
    };
    let mut all = Tally::default();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().for_each(|client| all.add(client.join().expect("it only asks and reads")));
    });
    all
}

/// Waits until nothing is left to do, and holds that nothing is left of anybody.
pub(crate) fn settle(engine: &Engine) {
    let until = Instant::now() + Duration::from_secs(60);
    while (engine.status().running, engine.status().waiting) != (0, 0) {
        assert!(Instant::now() < until, "{:?}", engine.status());
        std::thread::sleep(Duration::from_millis(1));
    }
    let status = engine.status();
    assert_eq!((status.held_blocks, status.payers), (0, 0), "{status:?}");
    assert!(status.cached_blocks <= status.limit_blocks);
}
