//! Runs the first tokens of a text through a GGUF model twice, on the CPU engine and as PTX in the interpreter, and
//! compares every bit of the logits: `cargo run --release -p cocoon-kernels --example compare -- MODEL [TOKENS]`.
//! Takes some ten seconds a token for each hundred million weights.

#[path = "../tests/common/mod.rs"]
mod common;

use std::{path::Path, sync::Arc, time::Instant};

use cocoon_engine::{Engine, EngineOptions, Model};
use cocoon_kernels::{Choice, Decoder, Row, Target};
use cocoon_ptx_check::Order;
use common::{Interpreter, bits, gguf::Gguf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: compare MODEL [TOKENS]")?;
    let count: usize = arguments.next().map_or(Ok(2), |count| count.parse())?;
    let model = Arc::new(Model::open(Path::new(&path))?);
    let tokens = model.tokenizer().encode("The capital of France is the city of Paris, and", true);
    let tokens = &tokens[..count.min(tokens.len())];
    let engine = Engine::new(Arc::clone(&model), EngineOptions::default());
    let mut expected = Vec::new();
    engine.sequence(tokens.len()).prefill_visiting(tokens, |logits| expected.extend(bits(logits)))?;

    let file = Gguf::new(std::fs::read(&path)?);
    let mut device = Interpreter::new(Target::Sm90, Order::Forward);
    let mut decoder = Decoder::new(&mut device, file.shape(tokens.len(), 1), &file.weights())?;
    let rows = tokens.iter().zip(0..).map(|(token, position)| Row { token: *token, sequence: 0, position });
    let rows: Vec<Row> = rows.collect();
    let started = Instant::now();
    decoder.step(&mut device, &rows, &[&[0]], &vec![Choice::greedy(); rows.len()])?;
    let found = bits(&decoder.logits(&mut device, rows.len())?);
    let differ = found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
    println!(
        "{} tokens, {} logits, {differ} differ; {} million instructions in {:.0} s",
        rows.len(),
        found.len(),
        device.instructions / 1_000_000,
        started.elapsed().as_secs_f64()
    );
    if differ > 0 || found.len() != expected.len() { Err("the bits differ".into()) } else { Ok(()) }
}
