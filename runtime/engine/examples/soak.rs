//! Two hours' worth of mixed requests in ten minutes, and whether anything is left of them.
//!
//! `cargo run --release -p cocoon-engine --example soak -- [MODEL.gguf] [--requests N] [--minutes N] [--threads N]`
//!
//! A busy worker is asked twice a second: 14,400 times in two hours. They come from ever new payers, some with long prompts,
//! grammars, several choices, readers that leave, that read slowly or not at all, and some make no sense. What the process
//! holds in memory is told each minute; at the end it may not be more than after the first tenth, but for what an
//! allocator rounds.

#[path = "../tests/common/soak.rs"]
mod soak;

use std::{error::Error, path::PathBuf, sync::Arc, time::Instant};

use cocoon_engine::{Engine, Model};
use soak::Tally;

/// What may be resident more at the end than after the first tenth.
const SLACK: usize = 8 << 20;
/// Pieces of the soak; memory is told after each.
const PIECES: usize = 10;

struct Options {
    model: PathBuf,
    requests: usize,
    minutes: f64,
    threads: usize,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/tiny.gguf");
    let mut found = Options { model: tiny.into(), requests: 14_400, minutes: 10.0, threads: 0 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--requests" => found.requests = value()?.parse()?,
            "--minutes" => found.minutes = value()?.parse()?,
            "--threads" => found.threads = value()?.parse()?,
            path => found.model = path.into(),
        }
    }
    if found.requests < PIECES || !(found.minutes >= 0.0 && found.minutes.is_finite()) {
        return Err("usage: soak [MODEL.gguf] [--requests N] [--minutes N] [--threads N]".into());
    }
    Ok(found)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let model = Arc::new(Model::open(&options.model)?);
    let engine = Engine::new(Arc::clone(&model), soak::options(&model, options.threads));
    let seconds = options.minutes * 60.0;
    let pace = (seconds > 0.0).then(|| options.requests as f64 / seconds);
    println!("{}: {} requests in {} minutes", model.name(), options.requests, options.minutes);
    let (mut all, mut warm, start) = (Tally::default(), None, Instant::now());
    let mut end = 0;
    for piece in 0..PIECES {
        let numbers = options.requests * piece / PIECES..options.requests * (piece + 1) / PIECES;
        all.add(soak::run(&engine, numbers, pace));
        soak::settle(&engine);
        end = soak::resident();
        warm.get_or_insert(end);
        let status = engine.status();
        println!(
            "{:4} s: {} whole, {} tokens, {} preemptions, {} kB resident",
            start.elapsed().as_secs(),
            all.whole,
            all.tokens,
            status.preemptions,
            end >> 10
        );
    }
    println!("{all:?}");
    let warm = warm.unwrap_or(end);
    if end > warm + SLACK {
        return Err(format!("{} kB more than after the first tenth", (end - warm) >> 10).into());
    }
    println!(
        "no block, no answer and no payer is left; memory grew by {} kB",
        end.saturating_sub(warm) >> 10
    );
    Ok(())
}
