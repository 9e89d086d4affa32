//! Runs the first tokens of a text through a model twice, on the CPU engine and as PTX in the interpreter, and
//! compares every bit of the logits: `cargo run --release -p cocoon-kernels --example compare -- MODEL [TOKENS]`.
//! Takes some ten seconds a token for each hundred million weights.

#[path = "../tests/common/mod.rs"]
mod common;

use std::{path::Path, sync::Arc, time::Instant};

use cocoon_engine::{
    Accelerator as _, Engine, EngineOptions, Model, Needs, Pick, StepAnswer, StepRow, StepWork,
};
use cocoon_kernels::{Device, PAGE, Target};
use cocoon_ptx_check::Order;
use common::{Interpreter, bits};

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

    let pages = tokens.len().div_ceil(PAGE);
    let needs = Needs { context: pages * PAGE, rows: tokens.len(), pages };
    let mut device = Device::open(Interpreter::new(Target::Sm90, Order::Forward), &model, needs)?;
    let row = |(position, token): (u32, &u32)| StepRow { token: *token, table: 0, position };
    let (mut work, mut answer) = (StepWork::default(), StepAnswer::default());
    work.rows = (0..).zip(tokens).map(row).collect();
    work.tables = vec![(0..pages as u32).collect()];
    work.picks = vec![Pick::Logits; tokens.len()];
    let started = Instant::now();
    device.step(&work, &mut answer)?;
    let found = bits(&answer.logits);
    let differ = found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
    println!(
        "{} tokens, {} logits, {differ} differ; {:.0} s",
        tokens.len(),
        found.len(),
        started.elapsed().as_secs_f64()
    );
    if differ > 0 || found.len() != expected.len() { Err("the bits differ".into()) } else { Ok(()) }
}
