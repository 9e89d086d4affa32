//! The ledger against npm's `@ton/sandbox` (the C++ TVM as wasm), in turns, on the same accounts and messages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Turns that each takes. The best of each counts: whatever else the machine does slows either.
const TURNS: usize = 3;
/// How much faster the ledger must be.
const GOAL: f64 = 50.0;

/// Runs both in turns and prints the ratios.
pub(crate) fn run(root: &Path, example: &Path) -> Result<()> {
    let loads = tempfile::tempdir()?;
    let mut ours = BTreeMap::new();
    let mut theirs = BTreeMap::new();
    for turn in 0..TURNS {
        let mut command = Command::new(example);
        if turn == 0 {
            command.arg(loads.path());
        }
        for (name, speed) in speeds(&output(&mut command)?, "transactions a second in blocks")? {
            keep(&mut ours, name, speed);
        }
        let mut command = Command::new("node");
        command
            .arg("sandbox_speed.mjs")
            .args(files(loads.path())?)
            .current_dir(root.join("scripts/contracts"));
        for (name, speed) in speeds(&output(&mut command)?, "transactions a second")? {
            keep(&mut theirs, name, speed);
        }
    }
    println!("transactions a second, best of {TURNS} turns, blocks and all that belongs to them included");
    for (name, speed) in &ours {
        let load = name.split(',').next().unwrap_or(name);
        let sandbox = theirs.get(load).with_context(|| format!("the sandbox said nothing of {load}"))?;
        let ratio = speed / sandbox;
        let verdict = if ratio >= GOAL { "" } else { "  BELOW THE GOAL" };
        println!("{name:<36} {speed:>8.0}   @ton/sandbox {sandbox:>5.0}   {ratio:>5.1} times{verdict}");
    }
    println!("goal: {GOAL} times");
    Ok(())
}

fn keep(best: &mut BTreeMap<String, f64>, name: String, speed: f64) {
    let kept = best.entry(name).or_insert(speed);
    *kept = kept.max(speed);
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?} does not start"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Lines of `NAME: NUMBER UNIT…`.
fn speeds(said: &str, unit: &str) -> Result<Vec<(String, f64)>> {
    let parse = |line: &str| {
        let (name, rest) = line.split_once(": ")?;
        let (number, rest) = rest.split_once(' ')?;
        rest.starts_with(unit).then_some(())?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    said.lines().map(|line| parse(line).with_context(|| format!("not a speed: {line}"))).collect()
}
