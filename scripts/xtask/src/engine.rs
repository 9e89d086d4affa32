//! The engine against two builds of llama.cpp, in turns, on the same files. In each cell the better of them counts.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Turns that each takes. The best of each counts: whatever else the machine does slows either.
const TURNS: usize = 3;
const PREFILL: &str = "128";
const DECODE: &str = "48";
const THREADS: [&str; 2] = ["1", "2"];
/// How much faster decoding must be in each cell, and in the geometric mean; and reading a prompt in each cell.
const DECODE_GOAL: f64 = 1.2;
const MEAN_GOAL: f64 = 1.5;
const PREFILL_GOAL: f64 = 1.0;
/// The share of the memory floor that decoding the largest model with the most threads must reach.
const FLOOR_GOAL: f64 = 0.85;

/// Tokens a second, and for ours the share of the memory floor.
#[derive(Clone, Copy, Default)]
struct Speed {
    prefill: f64,
    decode: f64,
    floor: f64,
}

impl Speed {
    fn best(self, other: Self) -> Self {
        let Self { prefill, decode, floor } = other;
        Self {
            prefill: self.prefill.max(prefill),
            decode: self.decode.max(decode),
            floor: self.floor.max(floor),
        }
    }
}

/// Runs both in turns over all models and prints the ratios.
pub(crate) fn run(root: &Path, example: &Path, python: &str, models: &[PathBuf]) -> Result<()> {
    println!("{PREFILL} tokens read, {DECODE} written, tokens a second, best of {TURNS} turns");
    println!("{:<24} threads {:>22} {:>30}  floor", "model", "prefill: ours, theirs", "decode: ours, theirs");
    let mut misses = Vec::new();
    let (mut product, mut cells) = (1.0f64, 0);
    for model in models {
        let name = model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for threads in THREADS {
            let (mut ours, mut theirs) = (Speed::default(), Speed::default());
            for _ in 0..TURNS {
                ours = ours.best(engine(example, model, threads)?);
                for (program, script) in [("node", "speed.mjs"), (python, "speed.py")] {
                    theirs = theirs.best(llama_cpp(root, program, script, model, threads)?);
                }
            }
            let (prefill, decode) = (ours.prefill / theirs.prefill, ours.decode / theirs.decode);
            println!(
                "{name:<24} {threads:>7} {:>7.0} {:>7.0} = {prefill:>4.2} {:>11.1} {:>7.1} = {decode:>4.2} {:>8.0}%",
                ours.prefill,
                theirs.prefill,
                ours.decode,
                theirs.decode,
                ours.floor * 100.0
            );
            product *= decode;
            cells += 1;
            for (what, ratio, goal) in [("prefill", prefill, PREFILL_GOAL), ("decode", decode, DECODE_GOAL)] {
                if ratio < goal {
                    misses.push(format!("{what} of {name}, {threads} threads: {ratio:.2} of {goal}"));
                }
            }
            if model == models.last().expect("there are models")
                && threads == THREADS[1]
                && ours.floor < FLOOR_GOAL
            {
                misses.push(format!("{name}: {:.0} % of the memory floor", ours.floor * 100.0));
            }
        }
    }
    let mean = product.powf(1.0 / f64::from(cells));
    println!("decode, geometric mean: {mean:.2} times llama.cpp (goal {MEAN_GOAL})");
    if mean < MEAN_GOAL {
        misses.push(format!("the mean: {mean:.2} of {MEAN_GOAL}"));
    }
    match misses.as_slice() {
        [] => println!("all goals are met"),
        _ => println!("below the goals:\n  {}", misses.join("\n  ")),
    }
    Ok(())
}

fn engine(example: &Path, model: &Path, threads: &str) -> Result<Speed> {
    let said = output(Command::new(example).arg(model).args(["--threads", threads, "--rounds", "3"]))?;
    let row = said.lines().last().unwrap_or_default();
    let numbers: Vec<f64> =
        row.split_whitespace().filter_map(|word| word.trim_end_matches('%').parse().ok()).collect();
    let [_, prefill, decode, _, _, share] = numbers[..] else { bail!("not a row of speeds: {row}") };
    Ok(Speed { prefill, decode, floor: share / 100.0 })
}

fn llama_cpp(root: &Path, program: &str, script: &str, model: &Path, threads: &str) -> Result<Speed> {
    let mut command = Command::new(program);
    command.arg(format!("scripts/oracle/{script}")).arg(model).args([threads, PREFILL, DECODE, "3"]);
    let said = output(command.current_dir(root))?;
    match said.split_whitespace().collect::<Vec<_>>()[..] {
        ["prefill", prefill, "decode", decode] => {
            Ok(Speed { prefill: prefill.parse()?, decode: decode.parse()?, floor: 0.0 })
        }
        _ => bail!("not a speed: {said}"),
    }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?} does not start"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
