//! Tokens per second, beside what this machine's memory allows.
//!
//! `cargo run --release -p cocoon-engine --example bench -- MODEL.gguf [--threads N]… [--set NAME] [--rounds N]`
//!
//! Prefill is 128 tokens, decode 48, each the best of some rounds. The memory floor is measured in the same run: the
//! rate at which the same number of threads sums a buffer far larger than the caches, and the tokens per second that
//! reading all weights once for each token would allow.

use std::{error::Error, hint::black_box, ops::ControlFlow, path::PathBuf, sync::Arc, time::Instant};

use cocoon_engine::{Engine, EngineOptions, InstructionSet, Model, Params, Sampler, Sampling};

const PREFILL: usize = 128;
const DECODE: usize = 48;
/// Bytes that the memory floor is measured over.
const FLOOR_BYTES: usize = 1 << 30;

struct Options {
    model: PathBuf,
    threads: Vec<usize>,
    set: InstructionSet,
    rounds: usize,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut found =
        Options { model: PathBuf::new(), threads: Vec::new(), set: InstructionSet::detect(), rounds: 5 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--threads" => found.threads.push(value()?.parse()?),
            "--rounds" => found.rounds = value()?.parse()?,
            "--set" => {
                let name = value()?;
                let known = InstructionSet::ALL.into_iter().find(|set| set.name() == name);
                found.set = known.ok_or(format!("unknown instruction set {name}"))?;
            }
            path => found.model = path.into(),
        }
    }
    if found.model.as_os_str().is_empty() {
        return Err(
            "usage: bench MODEL.gguf [--threads N] [--set avx512-vnni|avx2|scalar] [--rounds N]".into()
        );
    }
    if found.threads.is_empty() {
        found.threads = vec![1, std::thread::available_parallelism()?.get()];
        found.threads.dedup();
    }
    Ok(found)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let start = Instant::now();
    let model = Arc::new(Model::open(&options.model)?);
    let gigabytes = model.bytes() as f64 / 1e9;
    println!(
        "{}: {:.1} M parameters, {:.1} MB of weights for each token, loaded in {:.3} s, {}",
        model.name(),
        model.parameters() as f64 / 1e6,
        gigabytes * 1e3,
        start.elapsed().as_secs_f64(),
        options.set.name(),
    );
    let memory = vec![1u64; FLOOR_BYTES / 8];
    println!("threads  prefill tok/s  decode tok/s  weights GB/s  floor GB/s  of the floor");
    for &threads in &options.threads {
        let mut engine_options = EngineOptions::with_threads(threads);
        engine_options.instruction_set = Some(options.set);
        let engine = Engine::new(Arc::clone(&model), engine_options);
        let (mut prefill, mut decode, mut floor) = (0.0f64, 0.0f64, 0.0f64);
        for _ in 0..options.rounds {
            let (p, d) = round(&engine)?;
            prefill = prefill.max(p);
            decode = decode.max(d);
            floor = floor.max(read_rate(&memory, threads));
        }
        let rate = decode * gigabytes;
        let share = rate / floor * 100.0;
        println!("{threads:7}  {prefill:13.0}  {decode:12.1}  {rate:12.1}  {floor:10.1}  {share:11.0}%");
    }
    Ok(())
}

/// Tokens per second of one prefill and one decode.
fn round(engine: &Engine) -> Result<(f64, f64), Box<dyn Error>> {
    let vocabulary = engine.model().vocab_size() as u32;
    let prompt: Vec<u32> = (0..PREFILL as u32).map(|i| (i * 7919 + 13) % vocabulary).collect();
    let mut sequence = engine.sequence(PREFILL + DECODE + 1);
    let start = Instant::now();
    sequence.prefill(&prompt)?;
    let prefill = PREFILL as f64 / start.elapsed().as_secs_f64();
    let mut sampler = Sampler::new(Sampling::greedy(), &[])?;
    let start = Instant::now();
    for _ in 0..DECODE {
        let token = sampler.choose(sequence.logits())?;
        sequence.prefill(&[token])?; // goes on where `next` would stop
    }
    let decode = DECODE as f64 / start.elapsed().as_secs_f64();
    // The public way in has to work too, or the figures are of something else.
    let params = Params { sampling: Sampling::greedy(), max_tokens: 1, stop: Vec::new() };
    engine.generate(&prompt, &params, |_| ControlFlow::Continue(()))?;
    Ok((prefill, decode))
}

/// Gigabytes per second at which `threads` threads read memory.
fn read_rate(memory: &[u64], threads: usize) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for part in memory.chunks(memory.len().div_ceil(threads)) {
            scope.spawn(move || {
                let sums = part.chunks_exact(16).fold([0u64; 16], |mut sums, piece| {
                    sums.iter_mut().zip(piece).for_each(|(sum, value)| *sum ^= value);
                    sums
                });
                black_box(sums);
            });
        }
    });
    size_of_val(memory) as f64 / 1e9 / start.elapsed().as_secs_f64()
}
