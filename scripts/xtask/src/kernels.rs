//! Compiles `kernels/cuda/*.cu` to PTX with the compiler that `kernels/toolchain.txt` pins, and keeps the lock.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use ring::digest::{SHA256, digest};

/// What the kernels are compiled for: A100, H100 and H200, B200.
const TARGETS: [&str; 3] = ["80", "90", "100"];
/// No product and sum is joined unless the source says `fused`; lines, so that a finding has a place.
const FLAGS: [&str; 6] = ["-ptx", "-std=c++17", "-fmad=false", "-lineinfo", "-Werror", "all-warnings"];

/// Writes `kernels/ptx` and `kernels/kernels.lock`; with `check` compares them with what is there instead.
///
/// # Errors
/// The compiler cannot be installed or refuses a kernel; with `check`, anything differs.
pub(crate) fn run(root: &Path, cache: &Path, check: bool) -> Result<()> {
    let folder = root.join("kernels");
    let compiler = Compiler::install(&folder.join("toolchain.txt"), cache)?;
    let sources = files(&folder.join("cuda"), &["cu", "cuh"])?;
    let mut lock = format!(
        "# Written by `cargo run --release -p xtask -- kernels`.\n\n[compiler]\nversion = {:?}\nflags = {:?}\n",
        compiler.version,
        FLAGS.join(" ")
    );
    lock.push_str("\n[sources]\n");
    for (name, text) in &sources {
        writeln!(lock, "{name:?} = {:?}", sha256(text.as_bytes()))?;
    }
    let mut made = BTreeMap::new();
    for name in sources.keys().filter(|name| name.ends_with(".cu")) {
        let stem = name.trim_end_matches(".cu");
        for target in TARGETS {
            let ptx = compiler.compile(&folder.join("cuda"), name, target)?;
            let file = format!("{stem}.sm_{target}.ptx");
            write!(lock, "\n[ptx.{file:?}]\nsha256 = {:?}\n", sha256(ptx.as_bytes()))?;
            for (entry, resources) in compiler.resources(&ptx, target)? {
                writeln!(lock, "{entry} = {resources:?}")?;
            }
            made.insert(file, ptx);
        }
    }
    if check { compare(&folder, &made, &lock) } else { write(&folder, &made, &lock) }
}

/// Installs the new state, and nothing of an older one stays.
fn write(folder: &Path, made: &BTreeMap<String, String>, lock: &str) -> Result<()> {
    let place = folder.join("ptx");
    fs::create_dir_all(&place)?;
    for name in files(&place, &["ptx"])?.keys().filter(|name| !made.contains_key(*name)) {
        fs::remove_file(place.join(name))?;
    }
    for (name, ptx) in made {
        fs::write(place.join(name), ptx)?;
    }
    fs::write(folder.join("kernels.lock"), lock)?;
    println!("{} files of PTX in {}", made.len(), place.display());
    Ok(())
}

fn compare(folder: &Path, made: &BTreeMap<String, String>, lock: &str) -> Result<()> {
    let advice = "run `cargo run --release -p xtask -- kernels` and commit what it writes";
    let there = files(&folder.join("ptx"), &["ptx"])?;
    for (name, ptx) in made {
        let found = there.get(name).with_context(|| format!("kernels/ptx/{name} is missing: {advice}"))?;
        if found != ptx {
            let line = found.lines().zip(ptx.lines()).take_while(|(a, b)| a == b).count() + 1;
            bail!("kernels/ptx/{name} is not what its source compiles to, from line {line} on: {advice}");
        }
    }
    if let Some(name) = there.keys().find(|name| !made.contains_key(*name)) {
        bail!("kernels/ptx/{name} has no source: {advice}");
    }
    let found = fs::read_to_string(folder.join("kernels.lock")).context("kernels/kernels.lock")?;
    ensure!(found == lock, "kernels/kernels.lock differs: {advice}");
    println!("{} files of PTX are what their sources compile to", made.len());
    Ok(())
}

/// The files of a folder with one of these endings: names and texts.
fn files(folder: &Path, endings: &[&str]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a name that is not UTF-8")?;
        if endings.iter().any(|ending| name.rsplit_once('.').is_some_and(|(_, end)| end == *ending)) {
            let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
            found.insert(name.to_owned(), text);
        }
    }
    Ok(found)
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Compiler {
    bin: PathBuf,
    version: String,
}

impl Compiler {
    /// Installs the wheels, once for each state of the list, and asks the compiler for its version.
    fn install(list: &Path, cache: &Path) -> Result<Self> {
        let text = fs::read_to_string(list).with_context(|| format!("{}", list.display()))?;
        let place = cache.join(format!("nvcc-{}", &sha256(text.as_bytes())[..16]));
        if !place.is_dir() {
            eprintln!("installing NVIDIA's compiler from PyPI into {}", place.display());
            fs::create_dir_all(cache)?;
            let fresh = tempfile::tempdir_in(cache)?;
            let (site, venv) = (fresh.path().join("site"), fresh.path().join("venv"));
            // A system's own Python may have no pip, or forbid it.
            let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status();
            ensure!(
                made.context("python3 does not start")?.success(),
                "python3 -m venv failed: install python3-venv"
            );
            let status = Command::new(venv.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check", "--no-deps"])
                .args(["--require-hashes", "--only-binary", ":all:", "--target"])
                .arg(&site)
                .arg("-r")
                .arg(list)
                .status()
                .context("pip does not start: it installs the compiler")?;
            ensure!(status.success(), "pip could not install what {} lists", list.display());
            // In one step: what is there is whole. Who came second leaves the first one's.
            if let Err(error) = fs::rename(&site, &place)
                && !place.is_dir()
            {
                return Err(error).with_context(|| format!("{}", place.display()));
            }
        }
        let mut compiler = Self { bin: place.join("nvidia/cu13/bin"), version: String::new() };
        let said = compiler.call("nvcc", &["--version"], Path::new("."))?.0;
        let release = said.lines().find_map(|line| line.split(", V").nth(1));
        compiler.version = release.context("nvcc --version names no release")?.to_owned();
        Ok(compiler)
    }

    /// Output and error output of one of the compiler's programs.
    fn call(&self, program: &str, arguments: &[&str], folder: &Path) -> Result<(String, String)> {
        let path = self.bin.join(program);
        let output = Command::new(&path)
            .args(arguments)
            .current_dir(folder)
            .output()
            .with_context(|| format!("{} does not start", path.display()))?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{program} {}: {}\n{errors}", arguments.join(" "), output.status);
        Ok((String::from_utf8(output.stdout).context("a compiler's output")?, errors))
    }

    fn compile(&self, folder: &Path, name: &str, target: &str) -> Result<String> {
        let place = tempfile::tempdir()?;
        let out = place.path().join("out.ptx");
        let out = out.to_str().context("the temporary folder's path is not UTF-8")?;
        let arch = format!("-arch=compute_{target}");
        let arguments: Vec<&str> = FLAGS.into_iter().chain([arch.as_str(), name, "-o", out]).collect();
        self.call("nvcc", &arguments, folder)?;
        Ok(normalise(&fs::read_to_string(out)?))
    }

    /// Registers, shared memory and spills of each entry, as `ptxas` reports them.
    fn resources(&self, ptx: &str, target: &str) -> Result<BTreeMap<String, String>> {
        let place = tempfile::tempdir()?;
        fs::write(place.path().join("in.ptx"), ptx)?;
        let arch = format!("-arch=sm_{target}");
        let (_, said) = self.call("ptxas", &["-v", &arch, "in.ptx", "-o", "out.cubin"], place.path())?;
        resources(&said)
    }
}

/// Takes out of PTX what depends on the machine that made it: folders, the compiler's build, and the tables of names of
/// inlined functions, which hold hashes of paths.
fn normalise(ptx: &str) -> String {
    let mut out = String::with_capacity(ptx.len());
    let mut last_loc = String::new();
    for line in ptx.split("\t.section\t.debug_str").next().unwrap_or_default().lines() {
        let words = line.trim_start();
        if words.starts_with("// Compiler Build ID") {
            continue;
        }
        if words.starts_with(".file") {
            let (head, path) = line.split_once('"').unwrap_or((line, "\""));
            let name = path.trim_end_matches('"').rsplit('/').next().unwrap_or_default();
            out.push_str(&format!("{head}\"{name}\"\n"));
            continue;
        }
        let line = if words.starts_with(".loc") {
            let place = line.split(", function_name").next().unwrap_or(line);
            if place == last_loc {
                continue;
            }
            place.clone_into(&mut last_loc);
            place
        } else {
            line
        };
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `ptxas -v` names a function and then what it takes.
fn resources(said: &str) -> Result<BTreeMap<String, String>> {
    let (mut found, mut entry, mut spills) = (BTreeMap::new(), None, String::new());
    for line in said.lines().map(str::trim) {
        if let Some(name) = line.split("Function properties for ").nth(1) {
            entry = Some(name.to_owned());
        } else if line.contains("bytes spill stores") {
            line.clone_into(&mut spills);
        } else if let Some(used) = line.split("Used ").nth(1) {
            let name = entry.take().context("ptxas -v reports registers of no function")?;
            let first = used.split(',').find(|part| part.contains("registers")).unwrap_or_default().trim();
            let smem = used.split(',').find(|part| part.contains("smem")).unwrap_or("0 bytes smem").trim();
            found.insert(name, format!("{first}, {smem}, {}", spills.trim()));
        }
    }
    ensure!(!found.is_empty(), "ptxas -v reports no function:\n{said}");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_machine_stays_in_ptx() {
        let made = "// Compiler Build ID: CL-1\n\t.loc 1 2 3\n\t.loc\t1 16 9\n\t.loc\t2 33 80, function_name $L__info_string0, \
                    inlined_at 1 16 9\n\tret;\n}\n\t.file\t1 \"/some/where/a.cu\"\n\t.section\t.debug_str\n\t{\n.b8 1\n\t}\n";
        assert_eq!(
            normalise(made),
            "\t.loc 1 2 3\n\t.loc\t1 16 9\n\t.loc\t2 33 80\n\tret;\n}\n\t.file\t1 \"a.cu\"\n"
        );
    }

    #[test]
    fn resources_are_read_for_each_entry() {
        let said = "ptxas info    : Compiling entry function 'a' for 'sm_90'\nptxas info    : Function properties for a\n    \
                    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\nptxas info    : Used 39 registers, used 1 \
                    barriers, 17408 bytes smem, 396 bytes cmem[0]\n";
        let found = resources(said).expect("a report");
        assert_eq!(
            found["a"],
            "39 registers, 17408 bytes smem, 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"
        );
        assert!(resources("nothing").is_err());
    }
}
