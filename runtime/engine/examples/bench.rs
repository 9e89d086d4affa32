//! Tokens per second, beside what this machine's memory allows.
//!
//! `cargo run --release -p cocoon-engine --example bench -- MODEL.gguf [--threads N]… [--set NAME] [--rounds N]
//! [--prefill N] [--decode N]`
//!
//! Prefill is 128 tokens, decode 48 unless told otherwise, each the best of some rounds. The memory floor is measured
//! before and after each decode: the rate at which the same number of threads sums a buffer as large as the weights that
//! each token reads, on huge pages as they are. The share of it is the median of the rounds, each against its own floor:
//! what memory gives to one machine of many on a host changes from second to second.

use std::{error::Error, hint::black_box, ops::ControlFlow, path::PathBuf, sync::Arc, time::Instant};

use cocoon_engine::{Engine, EngineOptions, InstructionSet, Model, Params, Sampler, Sampling};

struct Options {
    model: PathBuf,
    threads: Vec<usize>,
    set: InstructionSet,
    rounds: usize,
    prefill: usize,
    decode: usize,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut found = Options {
        model: PathBuf::new(),
        threads: Vec::new(),
        set: InstructionSet::detect(),
        rounds: 5,
        prefill: 128,
        decode: 48,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--threads" => found.threads.push(value()?.parse()?),
            "--rounds" => found.rounds = value()?.parse()?,
            "--prefill" => found.prefill = value()?.parse()?,
            "--decode" => found.decode = value()?.parse()?,
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
    let memory = memory(model.bytes() as usize / 8);
    println!("threads  prefill tok/s  decode tok/s  weights GB/s  floor GB/s  of the floor");
    for &threads in &options.threads {
        let mut engine_options = EngineOptions::with_threads(threads);
        engine_options.instruction_set = Some(options.set);
        let engine = Engine::new(Arc::clone(&model), engine_options);
        let (mut prefill, mut decode, mut floor) = (0.0f64, 0.0f64, 0.0f64);
        let mut shares = Vec::new();
        for _ in 0..options.rounds {
            let around = || read_rate(&memory, threads);
            let (p, d, floors) = round(&engine, &options, around)?;
            prefill = prefill.max(p);
            decode = decode.max(d);
            floor = floor.max(floors[0]).max(floors[1]);
            shares.push(d * gigabytes / (floors[0] + floors[1]) * 2.0);
        }
        let rate = decode * gigabytes;
        let share = median(&mut shares) * 100.0;
        println!("{threads:7}  {prefill:13.0}  {decode:12.1}  {rate:12.1}  {floor:10.1}  {share:11.0}%");
    }
    Ok(())
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A buffer as the engine's weights lie.
fn memory(words: usize) -> Vec<u64> {
    let mut memory = Vec::with_capacity(words);
    #[cfg(target_os = "linux")]
    {
        let start = memory.as_mut_ptr() as *mut u8;
        let before = start.addr() % rustix::param::page_size();
        let bytes = before + words * size_of::<u64>();
        #[expect(unsafe_code, reason = "advice is a system call on addresses")]
        // SAFETY: this advice changes nothing that memory holds.
        let _ = unsafe {
            let start = start.wrapping_sub(before).cast();
            rustix::mm::madvise(start, bytes, rustix::mm::Advice::LinuxHugepage)
        };
    }
    memory.resize(words, 1);
    memory
}

/// Tokens per second of one prefill and one decode, and what `around` gives before and after the decode.
fn round(
    engine: &Engine,
    options: &Options,
    around: impl Fn() -> f64,
) -> Result<(f64, f64, [f64; 2]), Box<dyn Error>> {
    let vocabulary = engine.model().vocab_size() as u32;
    let prompt: Vec<u32> = (0..options.prefill as u32).map(|i| (i * 7919 + 13) % vocabulary).collect();
    let mut sequence = engine.sequence(options.prefill + options.decode + 1);
    let start = Instant::now();
    sequence.prefill(&prompt)?;
    let prefill = options.prefill as f64 / start.elapsed().as_secs_f64();
    let mut sampler = Sampler::new(Sampling::greedy(), &[])?;
    let before = around();
    let start = Instant::now();
    for _ in 0..options.decode {
        let token = sampler.choose(sequence.logits())?;
        sequence.prefill(&[token])?; // goes on where `next` would stop
    }
    let decode = options.decode as f64 / start.elapsed().as_secs_f64();
    let after = around();
    // The public way in has to work too, or the figures are of something else.
    let params = Params { sampling: Sampling::greedy(), max_tokens: 1, ..Params::default() };
    engine.generate(&prompt, &params, |_| ControlFlow::Continue(()))?;
    Ok((prefill, decode, [before, after]))
}

/// Gigabytes per second at which `threads` threads read a buffer as large as the weights, again and again: what decoding
/// would reach if it did nothing but read. A larger buffer would leave out the caches, which help decoding too.
fn read_rate(memory: &[u64], threads: usize) -> f64 {
    const PASSES: usize = 12;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for share in memory.chunks(memory.len().div_ceil(threads)) {
            scope.spawn(move || (0..PASSES).for_each(|_| _ = black_box(sum(black_box(share)))));
        }
    });
    (size_of_val(memory) * PASSES) as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// Sums with the widest loads of this processor, so that memory and not the additions sets the pace.
fn sum(numbers: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            #[expect(unsafe_code, reason = "the features are known only at run time")]
            // SAFETY: the processor has AVX-512F, as was just asked.
            return unsafe { sum_avx512(numbers) };
        }
        if is_x86_feature_detected!("avx2") {
            #[expect(unsafe_code, reason = "the features are known only at run time")]
            // SAFETY: the processor has AVX2, as was just asked.
            return unsafe { sum_avx2(numbers) };
        }
    }
    sum_in_lanes(numbers)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_avx512(numbers: &[u64]) -> u64 {
    sum_in_lanes(numbers)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(numbers: &[u64]) -> u64 {
    sum_in_lanes(numbers)
}

/// Asks for the four cache lines of a block.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch(block: &[u64; LANES]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    for line in block.chunks(8) {
        #[expect(unsafe_code, reason = "prefetching is an intrinsic")]
        // SAFETY: a prefetch reads nothing that the program sees; the address is that of a live block.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
}

const LANES: usize = 32;

#[inline(always)]
fn sum_in_lanes(numbers: &[u64]) -> u64 {
    /// Blocks of 256 bytes: two pages ahead.
    const AHEAD: usize = 32;
    let (blocks, rest) = numbers.as_chunks::<LANES>();
    let mut lanes = [0u64; LANES];
    for (index, block) in blocks.iter().enumerate() {
        // Without this a core waits for each page: it is how the engine reads its weights, too.
        #[cfg(target_arch = "x86_64")]
        if let Some(ahead) = blocks.get(index + AHEAD) {
            prefetch(ahead);
        }
        for (lane, number) in lanes.iter_mut().zip(block) {
            *lane = lane.wrapping_add(*number);
        }
    }
    lanes.iter().chain(rest).fold(0, |sum, number| sum.wrapping_add(*number))
}
