//! What batching brings: many streams against one, and a running stream while a long prompt arrives.
//!
//! `cargo run --release -p cocoon-engine --example batching -- MODEL.gguf [--streams N] [--threads N] [--rounds N]`
//!
//! All figures are ratios of one run, and rounds take turns: throughput of the streams together against that of one
//! stream alone; the longest gap between two tokens of a stream, with and without a prompt of 2000 tokens that
//! arrives meanwhile, beside the time that this prompt takes when it is read in one piece; and, while a prompt that fills
//! the context is read, the gap in the middle of all during its first quarter and during its last.

use std::{
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use cocoon_engine::{Answer, Engine, EngineOptions, Event, Model, Params, Payer, Request, Sampling};

/// Tokens of each stream's prompt, and of its answer.
const PROMPT: usize = 32;
const ANSWER: usize = 96;
/// Tokens of the prompt that arrives in between.
const LONG: usize = 2000;

struct Options {
    model: PathBuf,
    streams: usize,
    threads: usize,
    rounds: usize,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut found = Options { model: PathBuf::new(), streams: 16, threads: 0, rounds: 3 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or(format!("{argument} needs a value"))?
                .parse::<usize>()
                .map_err(|e| e.to_string())
        };
        match argument.as_str() {
            "--streams" => found.streams = value()?,
            "--threads" => found.threads = value()?,
            "--rounds" => found.rounds = value()?,
            path => found.model = path.into(),
        }
    }
    if found.model.as_os_str().is_empty() || found.streams == 0 || found.rounds == 0 {
        return Err("usage: batching MODEL.gguf [--streams N] [--threads N] [--rounds N]".into());
    }
    Ok(found)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let model = Arc::new(Model::open(&options.model)?);
    let engine = Engine::new(Arc::clone(&model), EngineOptions::with_threads(options.threads));
    println!("{}, {} rounds in turns", model.name(), options.rounds);

    let (mut one, mut many) = (0.0f64, 0.0f64);
    for round in 0..options.rounds {
        one = one.max(throughput(&engine, 1, round)?);
        many = many.max(throughput(&engine, options.streams, round)?);
    }
    let streams = options.streams;
    println!(
        "decode: 1 stream {one:.0} tokens/s, {streams} streams {many:.0} tokens/s together: {:.2} times",
        many / one
    );

    let long = LONG.min(engine.max_context().saturating_sub(2));
    let (mut quiet, mut busy, mut whole) = (Duration::MAX, Duration::MAX, Duration::MAX);
    for round in 0..options.rounds {
        quiet = quiet.min(longest_gap(&engine, None, round)?);
        busy = busy.min(longest_gap(&engine, Some(long), round)?);
        whole = whole.min(reading(&engine, long, round)?);
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "longest gap between tokens of a running stream: {:.1} ms alone, {:.1} ms while a prompt of {long} tokens arrives",
        ms(quiet),
        ms(busy)
    );
    println!(
        "the prompt in one piece would have held it up for {:.0} ms: {:.0} times as long",
        ms(whole),
        ms(whole) / ms(busy)
    );

    let long = engine.max_context() - 2;
    let (first, last, took) = along(&engine, long)?;
    println!(
        "while a prompt of {long} tokens is read, in {:.1} s: {:.1} ms between tokens in its first quarter, {:.1} ms in its last: \
         {:.2} times",
        took.as_secs_f64(),
        ms(first),
        ms(last),
        ms(last) / ms(first)
    );
    Ok(())
}

fn params(max_tokens: usize) -> Params {
    let sampling = Sampling { temperature: 0.7, top_p: 0.95, ..Sampling::greedy() };
    Params { sampling, max_tokens, ignore_eos: true, ..Params::default() }
}

/// A prompt of its own for each number, so that nothing is in any cache.
fn prompt(engine: &Engine, tokens: usize, number: usize) -> Vec<u32> {
    let vocabulary = engine.model().vocab_size();
    (0..tokens).map(|n| ((n * 7919 + number * 104_729 + 13) % vocabulary) as u32).collect()
}

fn submit(engine: &Engine, prompt: Vec<u32>, max_tokens: usize, payer: u8) -> Result<Answer, Box<dyn Error>> {
    Ok(engine.submit(Request::new(prompt, params(max_tokens)).with_payer(Payer([payer; 32])))?)
}

/// Tokens per second of so many streams together, from when all of them have their first token until the first of them
/// has its last.
fn throughput(engine: &Engine, streams: usize, round: usize) -> Result<f64, Box<dyn Error>> {
    let answers: Result<Vec<Answer>, _> = (0..streams)
        .map(|stream| submit(engine, prompt(engine, PROMPT, round * streams + stream), ANSWER, stream as u8))
        .collect();
    let marks = std::thread::scope(|scope| {
        let readers: Vec<_> = answers?.into_iter().map(|answer| scope.spawn(|| times(answer))).collect();
        let marks: Vec<_> = readers.into_iter().map(|reader| reader.join().expect("it only reads")).collect();
        Ok::<_, Box<dyn Error>>(marks)
    })?;
    let start = marks.iter().filter_map(|marks| marks.first()).max().ok_or("no tokens")?;
    let end = marks.iter().filter_map(|marks| marks.last()).min().ok_or("no tokens")?;
    let tokens = marks.iter().flatten().filter(|mark| *mark > start && *mark <= end).count();
    Ok(tokens as f64 / (*end - *start).as_secs_f64())
}

/// When the tokens of an answer came.
fn times(answer: Answer) -> Vec<Instant> {
    answer.filter(|event| matches!(event, Event::Token { .. })).map(|_| Instant::now()).collect()
}

/// The longest gap between tokens of a stream, during which a prompt of `long` tokens arrives and is read.
fn longest_gap(engine: &Engine, long: Option<usize>, round: usize) -> Result<Duration, Box<dyn Error>> {
    let tokens = engine.max_context().min(400) - PROMPT;
    let mut stream = submit(engine, prompt(engine, PROMPT, round), tokens, 1)?;
    // It runs before anything arrives.
    for _ in 0..20 {
        stream.next().ok_or("the stream ended early")?;
    }
    let arriving = match long {
        Some(long) => Some(submit(engine, prompt(engine, long, 1000 + round), 1, 2)?),
        None => None,
    };
    let marks = times(stream);
    if let Some(arriving) = arriving {
        let events: Vec<Event> = arriving.collect();
        let whole = matches!(events.last(), Some(Event::End { outcome: Ok(_), .. }));
        if !whole {
            return Err("the long prompt was not answered".into());
        }
    }
    Ok(marks.windows(2).map(|two| two[1] - two[0]).max().ok_or("no tokens")?)
}

/// The gap in the middle of all between tokens of a stream while the first quarter of a prompt of so many tokens is read,
/// and while the last is; and how long all of it takes.
fn along(engine: &Engine, long: usize) -> Result<(Duration, Duration, Duration), Box<dyn Error>> {
    let stream = submit(engine, prompt(engine, PROMPT, 3000), engine.max_context() - PROMPT - 1, 1)?;
    let arriving = submit(engine, prompt(engine, long, 3001), 1, 2)?;
    let start = Instant::now();
    let (marks, read) = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let marks = arriving.filter_map(|event| match event {
                Event::Read { prompt_tokens } => Some((Instant::now(), prompt_tokens)),
                _ => None,
            });
            marks.collect::<Vec<_>>()
        });
        let mut marks = Vec::new();
        for event in stream {
            if matches!(event, Event::Token { .. }) {
                marks.push(Instant::now());
            }
            if reading.is_finished() {
                break;
            }
        }
        (marks, reading.join().expect("it only reads"))
    });
    let end = read.last().ok_or("the prompt was not read")?.0;
    let at = |share: usize| {
        read.iter().find(|(_, tokens)| *tokens >= long * share / 4).map_or(end, |(when, _)| *when)
    };
    let middle = |from: Instant, to: Instant| {
        let mut gaps: Vec<Duration> =
            marks.windows(2).filter(|two| two[0] > from && two[1] < to).map(|two| two[1] - two[0]).collect();
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).copied().ok_or("the stream ended before the prompt was read")
    };
    Ok((middle(start, at(1))?, middle(at(3), end)?, end - start))
}

/// How long it takes to read a prompt of so many tokens, and nothing else.
fn reading(engine: &Engine, long: usize, round: usize) -> Result<Duration, Box<dyn Error>> {
    let prompt = prompt(engine, long, 2000 + round);
    let start = Instant::now();
    engine.sequence(long).prefill(&prompt)?;
    Ok(start.elapsed())
}
