//! What a developer or CI runs, in Rust: `cargo run --release -p xtask -- COMMAND`.

mod engine;
mod kernels;
mod ledger;
mod proof;
mod reproduce;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo run --release -p xtask -- COMMAND

  contracts check     compile contracts/*.tolk with the pinned compiler and compare with what is committed; also --check
  contracts compile   compile and write contracts/*.boc and contracts.lock
  fixtures            make the engine's oracle fixtures again (needs the demo model: run ./scripts/demo once)
  kernels             compile kernels/cuda/*.cu with the pinned nvcc and write kernels/ptx and kernels.lock; --check compares
  reproduce           build our programs and both images twice, here and from a copy of this tree elsewhere with another mask, time
                      zone, language and user name, and compare bit for bit; takes minutes, most of them for the guest service
  reproduce --init-only   the same with cocoon-init alone: below a minute
  reproduce --unless-proven   the whole, unless target/reproduced says that it held for these very sources and compilers
  bench engine        tokens per second against the better of two builds of llama.cpp (npm's and PyPI's), in turns, on four models
                      with one and two threads, and the memory floor; with MODELS behind it, on these
  bench soak          two hours' worth of mixed requests in ten minutes: what is left of them, and of memory
  bench batching      16 streams against one, and a running stream while a long prompt arrives (or on MODEL behind it)
  bench path          what sealing, gateway and host add to the same engine called in process
  bench verify        how long verification takes: TDX against dcap-qvl, SEV-SNP against sev, GPUs against their signatures
  bench ledger        transactions a second of the embedded ledger against npm's @ton/sandbox, in turns on the same messages
  bench vouchers      vouchers verified a second on one core
  bench seal          how long sealing, opening and metering take";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["contracts", "check" | "--check"] => contracts("check"),
        ["contracts", "compile"] => contracts("compile"),
        ["fixtures"] => fixtures(),
        ["kernels"] => cache().and_then(|cache| kernels::run(&root(), &cache, false)),
        ["kernels", "--check"] => cache().and_then(|cache| kernels::run(&root(), &cache, true)),
        ["reproduce"] => reproduce(false),
        ["reproduce", "--init-only"] => reproduce(true),
        ["reproduce", "--unless-proven"] => reproduce_unless_proven(),
        ["bench", "engine"] => bench_models().and_then(|models| bench_engine(&models)),
        ["bench", "engine", models @ ..] => {
            bench_engine(&models.iter().map(PathBuf::from).collect::<Vec<_>>())
        }
        ["bench", "soak"] => {
            cargo(&["run", "--release", "--quiet", "-p", "cocoon-engine", "--example", "soak"])
        }
        ["bench", "batching"] => demo_model().and_then(|model| bench_batching(&model)),
        ["bench", "batching", model] => bench_batching(Path::new(model)),
        ["bench", "path"] => bench_path(),
        ["bench", "verify"] => bench_verify(),
        ["bench", "ledger"] => bench_ledger(),
        ["bench", "vouchers"] => {
            cargo(&["run", "--release", "--quiet", "-p", "cocoon-contracts", "--example", "voucher_speed"])
        }
        ["bench", "seal"] => {
            cargo(&["run", "--release", "--quiet", "-p", "cocoon-protocol", "--example", "seal_speed"])
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.ancestors().nth(2).expect("xtask lies two folders below the root").to_path_buf()
}

/// Runs a command in the root and passes its output on.
fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_this_package(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    let status = command
        .args(arguments)
        .current_dir(root())
        .status()
        .with_context(|| format!("{program} does not start: is it installed?"))?;
    if !status.success() {
        bail!("{program} {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()), arguments)
}

/// What `cargo run` says of this package to us. Build scripts look at some of it (ring's does): passed on to another cargo, it would
/// make everything anew, and again the next time without us.
fn is_of_this_package(variable: &str) -> bool {
    ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_"]
        .iter()
        .any(|begin| variable.starts_with(begin))
}

/// Compiler, client and sandbox are npm packages, pinned by their lock file; `npm ci` installs exactly that, once.
fn npm_packages() -> Result<&'static str> {
    let folder = "scripts/contracts";
    let modules = root().join(folder).join("node_modules/@ton");
    if !modules.join("tolk-js").is_dir() || !modules.join("sandbox").is_dir() {
        eprintln!("installing from npm into {folder}: @ton/tolk-js and others, as its lock file pins them");
        run("npm", &["ci", "--prefix", folder, "--silent", "--no-audit", "--no-fund"])?;
    }
    Ok(folder)
}

fn contracts(what: &str) -> Result<()> {
    let folder = npm_packages()?;
    run("npm", &["run", "--prefix", folder, "--silent", what])
}

/// Where what is fetched once is kept.
fn cache() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Ok(cache.or_else(home).context("neither HOME nor XDG_CACHE_HOME is set")?.join("cocoon"))
}

fn demo_model() -> Result<PathBuf> {
    let model = cache()?.join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !model.is_file() {
        bail!("{} is not there: run ./scripts/demo once, it fetches the model", model.display());
    }
    Ok(model)
}

/// llama.cpp's tokens for the engine's tests; see scripts/oracle/README.md.
fn fixtures() -> Result<()> {
    oracle_packages()?;
    let python = oracle_python()?;
    let models = [("smollm2", demo_model()?), ("tiny", root().join("tests/models/tiny.gguf"))];
    for (name, model) in models {
        let model = model.to_str().context("the model's path is not UTF-8")?;
        let cases = format!("scripts/oracle/cases-{name}.json");
        let fixture = format!("runtime/engine/tests/fixtures/{name}.json");
        let output = Command::new("node")
            .args(["scripts/oracle/oracle.mjs", model, &cases])
            .current_dir(root())
            .output()
            .context("node does not start")?;
        if !output.status.success() {
            bail!("the oracle failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::fs::write(root().join(&fixture), output.stdout)
            .with_context(|| format!("cannot write {fixture}"))?;
        run(&python, &["scripts/oracle/reference.py", model, &fixture])?;
    }
    Ok(())
}

/// llama.cpp, as npm carries it.
fn oracle_packages() -> Result<()> {
    if !root().join("scripts/oracle/node_modules/node-llama-cpp").is_dir() {
        eprintln!("installing from npm into scripts/oracle: node-llama-cpp, as its package.json pins it");
        let quiet = ["--silent", "--no-audit", "--no-fund", "--no-package-lock"];
        run("npm", &[&["install", "--prefix", "scripts/oracle"], quiet.as_slice()].concat())?;
    }
    Ok(())
}

/// A Python that has gguf and numpy.
fn oracle_python() -> Result<String> {
    python_with("oracle", &["gguf==0.19.0", "numpy==2.2.6"])
}

/// A Python in `target/NAME` that has these packages.
fn python_with(name: &str, packages: &[&str]) -> Result<String> {
    let venv = root().join("target").join(name);
    let venv = venv.to_str().context("the root's path is not UTF-8")?;
    let python = format!("{venv}/bin/python");
    if !Path::new(&python).is_file() {
        eprintln!("installing from PyPI into target/{name}: {}", packages.join(", "));
        run("python3", &["-m", "venv", venv])?;
        run(&format!("{venv}/bin/pip"), &[&["install", "--quiet"], packages].concat())?;
    }
    Ok(python)
}

/// The demo model, the same in other formats, and a larger one of random weights: made once, beside it.
fn bench_models() -> Result<Vec<PathBuf>> {
    let demo = demo_model()?;
    let folder = demo.ancestors().nth(2).context("the model lies in the cache")?.join("bench");
    let made = ["smollm2-q4_0.gguf", "smollm2-q8_0.gguf", "random-412m-q8_0.gguf"];
    let made: Vec<PathBuf> = made.iter().map(|name| folder.join(name)).collect();
    if !made.iter().all(|model| model.is_file()) {
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
        run(&oracle_python()?, &["scripts/oracle/bench_models.py", &text(&demo)?, &text(&folder)?])?;
    }
    Ok([vec![demo], made].concat())
}

fn bench_engine(models: &[PathBuf]) -> Result<()> {
    oracle_packages()?;
    cargo(&["build", "--release", "--quiet", "-p", "cocoon-engine", "--example", "bench"])?;
    let server = python_with("llama-cpp", &["xllamacpp==2026.10.11549"])?;
    engine::run(&root(), &examples()?.join("bench"), &server, models)
}

/// Where cargo puts examples: xtask itself is not in that folder, but beside it.
fn examples() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().context("this program has a folder")?.join("examples"))
}

fn bench_batching(model: &Path) -> Result<()> {
    let model = model.to_str().context("the model's path is not UTF-8")?;
    cargo(&["run", "--release", "--quiet", "-p", "cocoon-engine", "--example", "batching", "--", model])
}

/// With the `cocoon` beside this program. Built alone it would have other features of its dependencies than in a build of the
/// whole workspace, and each would undo the other: so it is built only where there is none.
fn reproduce(init_only: bool) -> Result<()> {
    if !std::env::current_exe()?.with_file_name("cocoon").is_file() {
        cargo(&["build", "--release", "--locked", "--quiet", "-p", "cocoon-cli"])?;
    }
    reproduce::run(&root(), init_only).map(drop)
}

/// The whole once for each state of what goes into it.
fn reproduce_unless_proven() -> Result<()> {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let place = folder.join("reproduced");
    let inputs = proof::inputs(&root())?;
    let proven = match proof::read(&place, &inputs) {
        Some(proven) => {
            eprintln!("proven before for these sources and compilers: {} ({})", proven, place.display());
            proven
        }
        None => {
            if !std::env::current_exe()?.with_file_name("cocoon").is_file() {
                cargo(&["build", "--release", "--locked", "--quiet", "-p", "cocoon-cli"])?;
            }
            let proven = reproduce::run(&root(), false)?.join(" ");
            // What changed while it ran was not what was built.
            if proof::inputs(&root())? == inputs {
                proof::write(&place, &proven, &inputs)?;
            }
            proven
        }
    };
    if !proven.contains("production") {
        eprintln!("SKIPPED: that the production image is reproducible: a package of it has left the archive");
    }
    Ok(())
}

/// Each prints ratios against its peer and its floor in one run, taking turns.
fn bench_verify() -> Result<()> {
    for example in ["verify_speed", "snp_speed", "gpu_speed"] {
        cargo(&["run", "--release", "--quiet", "-p", "cocoon-attestation", "--example", example])?;
        println!();
    }
    Ok(())
}

fn bench_ledger() -> Result<()> {
    npm_packages()?;
    cargo(&["build", "--release", "--quiet", "-p", "cocoon-ledger", "--example", "ledger_speed"])?;
    ledger::run(&root(), &examples()?.join("ledger_speed"))
}

fn bench_path() -> Result<()> {
    cargo(&["build", "--release", "--quiet", "-p", "cocoon-cli", "-p", "cocoon-guest"])?;
    cargo(&["run", "--release", "--quiet", "-p", "cocoon-tests", "--example", "path"])
}
