//! The sources of the kernels under g++ (`shim/`), with its sanitizers for addresses, undefined behaviour and threads:
//! a second opinion on what `ptx-check` says of the PTX. Another compiler, real threads, the same bits.

mod common;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use cocoon_kernels::{Arg, Backend, Choice, Decoder, Format, Grid, Kernel, Packed, Row, Target};
use cocoon_ptx_check::Order;
use common::{Interpreter, Random, bits, gguf::Gguf, law};

const ADDRESSES: &[&str] = &["-O1", "-fsanitize=address,undefined"];
const THREADS: &[&str] = &["-O1", "-fsanitize=thread"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The shim with the kernels of this folder, or `None` where there is no g++.
fn compile(sources: &Path, out: &Path, sanitizer: &[&str]) -> Option<()> {
    let mut compiler = Command::new("g++");
    compiler.args([
        "-std=c++20",
        "-O1",
        "-g",
        "-pthread",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unknown-pragmas",
    ]);
    compiler.args(["-ffp-contract=off", "-fno-sanitize-recover=all", "-x", "c++", "-include"]);
    compiler.arg(folder().join("shim/cuda.h")).args(sanitizer).arg(format!("-I{}", sources.display()));
    compiler.arg(format!("-I{}", folder().join("shim").display()));
    match compiler.arg(folder().join("shim/main.cpp")).arg("-o").arg(out).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(())
        }
        Err(_) => {
            println!(
                "SKIPPED: there is no g++ here, so the kernels' sources were not run under its sanitizers"
            );
            None
        }
    }
}

/// A device that is a program: one run for each launch.
struct Native {
    program: PathBuf,
    buffers: Vec<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Finding(String);

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Finding {}

impl Native {
    fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), buffers: Vec::new() }
    }

    fn input(&self, kernel: Kernel, grid: Grid, args: &[Arg<'_, usize>]) -> Vec<u8> {
        let mut input = kernel.entry().as_bytes().to_vec();
        input.resize(32, 0);
        input.extend(
            [grid.x, grid.y, grid.threads, args.len() as u32].iter().flat_map(|word| word.to_le_bytes()),
        );
        for arg in args {
            let (is_buffer, offset, bytes): (u32, u64, &[u8]) = match arg {
                Arg::In(buffer, at) | Arg::Out(buffer, at) => (1, *at, &self.buffers[**buffer]),
                Arg::U32(value) => (0, 0, &value.to_le_bytes()),
                Arg::F32(value) => (0, 0, &value.to_le_bytes()),
                Arg::Bytes(bytes) => (0, 0, bytes),
            };
            input.extend(is_buffer.to_le_bytes());
            input.extend(offset.to_le_bytes());
            input.extend((bytes.len() as u64).to_le_bytes());
            input.extend(bytes);
        }
        input
    }
}

impl Backend for Native {
    type Buffer = usize;
    type Error = Finding;
    /// It keeps nothing: each step of the test is another.
    type Recording = ();

    fn allocate(&mut self, bytes: usize) -> Result<usize, Finding> {
        self.buffers.push(vec![0xcd; bytes]);
        Ok(self.buffers.len() - 1)
    }

    fn write(&mut self, buffer: &usize, content: &[u8]) -> Result<(), Finding> {
        self.buffers[*buffer][..content.len()].copy_from_slice(content);
        Ok(())
    }

    fn read(&mut self, buffer: &usize, bytes: usize) -> Result<Vec<u8>, Finding> {
        Ok(self.buffers[*buffer][..bytes].to_vec())
    }

    fn record(&mut self, body: &mut dyn FnMut(&mut Self) -> Result<(), Finding>) -> Result<(), Finding> {
        body(self)
    }

    fn replay(&mut self, (): &()) -> Result<(), Finding> {
        Err(Finding("nothing was recorded".to_owned()))
    }

    fn wipe(&mut self, buffer: &usize) -> Result<(), Finding> {
        self.buffers[*buffer].fill(0);
        Ok(())
    }

    fn launch(&mut self, kernel: Kernel, grid: Grid, args: &[Arg<'_, usize>]) -> Result<(), Finding> {
        let mut child = Command::new(&self.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was compiled");
        // It reads all before it writes anything.
        child.stdin.take().expect("piped").write_all(&self.input(kernel, grid, args)).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Finding(format!("{}: {}: {said}", kernel.entry(), output.status)));
        }
        let mut rest = output.stdout.as_slice();
        for arg in args {
            if let Arg::In(buffer, _) | Arg::Out(buffer, _) = arg {
                let (bytes, after) = rest.split_at(self.buffers[**buffer].len());
                if matches!(arg, Arg::Out(..)) {
                    self.buffers[**buffer].copy_from_slice(bytes);
                } else {
                    assert_eq!(self.buffers[**buffer], bytes, "what is to be read is not written");
                }
                rest = after;
            }
        }
        assert!(rest.is_empty());
        Ok(())
    }
}

/// The canary (`Decoder::new` asks it), and a step of a part of the tiny model with everything that there is: rows of two sequences, a greedy
/// token and a drawn one, scrubs. Under the sanitizers it gives what the interpreter gives of the PTX.
fn run_everything(sanitizer: &[&str]) {
    let place = tempfile::tempdir().expect("a folder");
    let program = place.path().join("shim");
    if compile(&folder().join("cuda"), &program, sanitizer).is_none() {
        return;
    }
    let mut device = Native::new(&program);
    let mut interpreter = Interpreter::new(Target::Sm90, Order::Forward);
    let (tokens, logits) = step(&mut device);
    let (expected_tokens, expected) = step(&mut interpreter);
    assert_eq!(tokens, expected_tokens);
    assert!(bits(&logits) == bits(&expected), "g++ gives other logits than the PTX");
    assert!(every_format(&mut device) == every_format(&mut interpreter), "g++ gives other products");
}

/// Rows and products of each format.
fn every_format<B: Backend>(device: &mut B) -> Vec<Vec<u8>> {
    let mut random = Random(12);
    let (rows, columns, tokens) = (20usize, 512usize, 3usize);
    let mut all = Vec::new();
    for format in Format::ALL {
        let data = random.blocks(format, rows * columns / format.block_len());
        let packed = Packed::new(format, rows, columns, &data).expect("fits");
        let floats = random.floats(columns * tokens, 2.0);
        let input: Vec<u8> = match format.is_numbers() {
            true => floats.iter().flat_map(|value| value.to_le_bytes()).collect(),
            false => law::quantise(&floats).iter().flat_map(law::Quants::bytes).collect(),
        };
        let list: Vec<u8> = [19u32, 0, 16].iter().flat_map(|token| token.to_le_bytes()).collect();
        let done: Result<(), B::Error> = (|| {
            let weights = [device.upload(&packed.quants)?, device.upload(&packed.scales)?];
            let weights = if format.is_numbers() { &weights[..1] } else { &weights };
            let (input, list) = (device.upload(&input)?, device.upload(&list)?);
            let bytes = [3 * columns * 4, rows * tokens * 4];
            let outs = [device.allocate(bytes[0])?, device.allocate(bytes[1])?];
            let weights = || weights.iter().map(|weight| Arg::In(weight, 0));
            let embed = [Arg::In(&list, 0), Arg::Out(&outs[0], 0), Arg::U32(columns as u32)];
            let embed: Vec<Arg<'_, _>> = weights().chain(embed).collect();
            device.launch(Kernel::Embed(format), Grid::each(3), &embed)?;
            let sizes = [rows, columns, tokens].map(|size| Arg::U32(size as u32));
            let product = [Arg::In(&input, 0), Arg::Out(&outs[1], 0)].into_iter().chain(sizes);
            let product: Vec<Arg<'_, _>> = weights().chain(product).collect();
            device.launch(Kernel::Matmul(format), Grid::matmul(format, rows, tokens), &product)?;
            for (out, bytes) in outs.iter().zip(bytes) {
                all.push(device.read(out, bytes)?);
            }
            Ok(())
        })();
        done.unwrap_or_else(|error| panic!("{format:?}: {error}"));
    }
    all
}

/// Two tokens that are chosen, and the logits (the drawn one's as weights).
fn step<B: Backend>(device: &mut B) -> (Vec<Option<u32>>, Vec<f32>) {
    let bytes = fs::read(folder().join("../tests/models/tiny.gguf")).expect("the repository's tiny model");
    let (shape, weights) = Gguf::new(bytes).part(200, 4, 2);
    let mut decoder = Decoder::new(device, shape, &weights).unwrap_or_else(|error| panic!("{error}"));
    let row = |token, sequence, position| Row { token, sequence, position };
    let rows = [row(7, 0, 0), row(190, 0, 1), row(9, 1, 0), row(41, 0, 2)];
    let drawn =
        Choice { temperature: 1.0, top_p: 0.9, penalty: 1.3, recent: vec![7, 41].into(), ..Choice::greedy() };
    let chosen = decoder.step(device, &rows, &[&[1], &[0]], &[Choice::greedy(), drawn]);
    let chosen = chosen.unwrap_or_else(|error| panic!("{error}"));
    assert!(chosen.iter().all(Option::is_some));
    let logits = decoder.logits(device, 2).unwrap_or_else(|error| panic!("{error}"));
    decoder.scrub(device, &[0, 1]).unwrap_or_else(|error| panic!("{error}"));
    (chosen, logits[..2 * 200].to_vec())
}

#[test]
fn no_kernel_leaves_its_memory_or_what_the_language_defines() {
    run_everything(ADDRESSES);
}

#[test]
fn no_kernel_races() {
    run_everything(THREADS);
}

/// The sources with one line of one file edited.
fn planted(place: &Path, file: &str, from: &str, to: &str) {
    for entry in fs::read_dir(folder().join("cuda")).expect("sources") {
        let path = entry.expect("a source").path();
        fs::copy(&path, place.join(path.file_name().expect("a name"))).expect("room");
    }
    let text = fs::read_to_string(place.join(file)).expect("a source");
    assert_eq!(text.matches(from).count(), 1, "{file}: {from}");
    fs::write(place.join(file), text.replace(from, to)).expect("room");
}

fn finding(
    sanitizer: &[&str],
    file: &str,
    from: &str,
    to: &str,
    run: impl Fn(&mut Native) -> Result<(), Finding>,
) {
    let place = tempfile::tempdir().expect("a folder");
    planted(place.path(), file, from, to);
    let program = place.path().join("shim");
    if compile(place.path(), &program, sanitizer).is_none() {
        return;
    }
    let Err(Finding(said)) = run(&mut Native::new(&program)) else {
        panic!("{file}: {from:?} -> {to:?} passes")
    };
    assert!(said.contains("Sanitizer") && said.contains(file), "{said}");
}

fn residual(device: &mut Native) -> Result<(), Finding> {
    let (x, y) = (device.upload(&[0; 1200])?, device.upload(&[0; 1200])?);
    device.launch(Kernel::Residual, Grid::numbers(300), &[Arg::Out(&x, 0), Arg::In(&y, 0), Arg::U32(300)])
}

fn norm(device: &mut Native) -> Result<(), Finding> {
    let (x, weight) = (device.upload(&[0; 64 * 4])?, device.upload(&[0; 64 * 4])?);
    let (floats, out) = (device.allocate(64 * 4)?, device.allocate(96)?);
    let args = [
        Arg::In(&x, 0),
        Arg::In(&weight, 0),
        Arg::Out(&floats, 0),
        Arg::Out(&out, 0),
        Arg::U32(64),
        Arg::F32(1e-5),
    ];
    device.launch(Kernel::RmsNorm, Grid::each(1), &args)
}

#[test]
fn a_bound_that_is_off_by_one_is_found() {
    finding(&["-fsanitize=address"], "residual.cu", "if (i < count)", "if (i <= count)", residual);
}

#[test]
fn a_removed_barrier_is_found() {
    finding(&["-fsanitize=thread"], "rms_norm.cu", "    __syncthreads();\n", "", norm);
}
