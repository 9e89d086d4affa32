//! A guest whose steps run on a GPU, which here is an interpreter of the PTX that ships: its papers, and its end.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use crate::common::{Setup, header, question};
use crate::interpreter::Interpreter;
use cocoon_engine::{
    Accelerator, AcceleratorError, Engine, EngineOptions, Event, Model, Needs, Params, Request, Sampling,
    StepAnswer, StepWork,
};
use cocoon_guest::{Door, NoGpus, OpenDevice, Simulated, boot, executable_digest, serve};
use cocoon_kernels::{Device, Target, digest};
use cocoon_protocol::http::GuestState;
use cocoon_protocol::{Kernels, Outcome, Run};
use cocoon_ptx_check::Order;

/// In the run folder: the GPU fails from when it is there.
const FAIL: &str = "fail";

/// A GPU that can be made to fail.
struct Gpu(Device<Interpreter>);

impl Accelerator for Gpu {
    fn kernels(&self) -> [u8; 32] {
        self.0.kernels()
    }

    fn step(&mut self, work: &StepWork, answer: &mut StepAnswer) -> Result<(), AcceleratorError> {
        if Path::new(FAIL).exists() {
            return Err(AcceleratorError::new("Xid 79: it has fallen off the bus"));
        }
        self.0.step(work, answer)
    }

    fn scrub(&mut self, pages: &[u32]) -> Result<(), AcceleratorError> {
        self.0.scrub(pages)
    }

    fn prove_clean(&mut self, pages: &[u32]) -> Result<(), AcceleratorError> {
        self.0.prove_clean(pages)
    }

    fn retire(&mut self) -> Result<(), AcceleratorError> {
        self.0.retire()
    }
}

fn open(number: u32) -> Result<OpenDevice, AcceleratorError> {
    if number != 3 {
        return Err(AcceleratorError::new(format!("there is no GPU {number}")));
    }
    Ok(Box::new(|model: &Model, needs: Needs| {
        let gpu = Device::open(Interpreter::new(Target::Sm90, Order::Forward), model, needs)?;
        Ok(Box::new(Gpu(gpu)) as Box<dyn Accelerator>)
    }))
}

/// Does nothing, unless a test below started it as its guest.
#[test]
fn the_guest_of_another_test() {
    if std::env::var("GPU_GUEST").is_err() {
        return;
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let here = Path::new(".");
    let tee = Simulated::connect(&here.join("tee.sock")).expect("the test serves it");
    let executable = executable_digest().expect("this program");
    let guest = boot(here, Box::new(tee), Box::new(NoGpus), &open, executable);
    let guest = Arc::new(guest.unwrap_or_else(|error| panic!("{error}")));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.expect("threads").block_on(async {
        let door = Door::bound(UnixListener::bind("guest.sock").expect("a fresh folder")).expect("a socket");
        serve(guest, door, std::future::pending()).await
    });
    ended.unwrap_or_else(|error| panic!("{error}"));
}

fn setup(device: u32) -> Setup {
    let mut setup = Setup::new();
    setup.config = setup.config.replace("max_context = 512", "max_context = 160");
    setup.config += &format!("[engine]\nkind = \"cuda\"\ndevice = {device}\n");
    setup.binary = std::env::current_exe().expect("this program");
    setup.arguments = vec!["--exact", "gpu::the_guest_of_another_test", "--nocapture"];
    setup.environment = vec![("GPU_GUEST", "1")];
    setup
}

/// The same run on the CPU.
fn replay(run: &Run) -> Vec<Vec<u32>> {
    let model = Arc::new(Model::open(&crate::common::tiny_model()).expect("the repository's tiny model"));
    let engine = Engine::new(model, EngineOptions::with_threads(1));
    let s = &run.sampling;
    let sampling = Sampling {
        temperature: s.temperature,
        top_p: s.top_p,
        top_k: s.top_k,
        min_p: s.min_p,
        repetition_penalty: s.repetition_penalty,
        presence_penalty: s.presence_penalty,
        frequency_penalty: s.frequency_penalty,
        seed: s.seed,
    };
    let params = Params { sampling, max_tokens: s.max_tokens as usize, ..Params::default() };
    let request = Request::new(run.prompt.to_vec(), params).with_choices(run.written.len() as u32);
    let mut tokens = vec![Vec::new(); run.written.len()];
    for event in engine.submit(request).expect("taken") {
        if let Event::Token { choice, token, .. } = event {
            tokens[choice as usize].push(token);
        }
    }
    tokens
}

#[test]
fn an_answer_of_a_gpu_names_its_kernels_and_replays_on_the_cpu() {
    let guest = setup(3).start();
    let peer = guest.trusted();
    assert_eq!(peer.statement().kernels, [digest()]);
    let body = question("Tuples", r#","max_tokens":6,"seed":4,"temperature":0.8,"n":2"#);
    let heard = guest.ask(&peer, &header(&peer), &body);
    assert_eq!(heard.error, None);
    let receipt = heard.receipt().receipt();
    assert_eq!(receipt.engine.kernels, Kernels::Gpu(digest()));
    assert_eq!(receipt.engine.digest, cocoon_engine::Identity::current().digest, "the CPU's arithmetic");
    let run = heard.receipt().opening().run.as_ref().expect("it ran");
    let written: Vec<Vec<u32>> = run.written.iter().map(|written| written.tokens.to_vec()).collect();
    assert!(written.iter().map(Vec::len).sum::<usize>() >= 2, "there is something to compare");
    assert_eq!(written, replay(run));
}

#[test]
fn a_gpu_that_fails_is_told_to_its_readers_and_ends_the_guest() {
    let mut guest = setup(3).start();
    let peer = guest.trusted();
    std::fs::write(guest.folder.path().join(FAIL), b"").expect("our folder");
    let heard = guest.ask(&peer, &header(&peer), &question("Tuples", r#","stream":true"#));
    let (status, error) = heard.error.as_ref().expect("it is told");
    assert_eq!((*status, &error["error"]["code"]), (503, &serde_json::json!("engine_failed")));
    assert_eq!(error["error"]["type"], "server_error");
    assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains("use another worker")));
    assert_eq!(heard.receipt().receipt().outcome, Outcome::Error);
    assert_eq!(heard.receipt().receipt().usage.completion_tokens, 0);
    assert!(!guest.wait().success());
    let (_, log) = guest.end();
    assert!(log.contains("Xid 79"), "{log}");
}

#[test]
fn a_guest_whose_gpu_failed_says_so_and_takes_nothing_while_a_reader_is_slow() {
    let guest = setup(3).start();
    let peer = guest.trusted();
    // One that does not send its request whole keeps its guest for as long as answers get to end.
    let (wire, _) = crate::common::sealed(&peer, &header(&peer), &question("Lists", ""));
    let slow = crate::http::begin(&guest.socket(), "/v1/answers", &wire);
    std::fs::write(guest.folder.path().join(FAIL), b"").expect("our folder");
    let heard = guest.ask(&peer, &header(&peer), &question("Tuples", ""));
    assert!(heard.error.is_some());
    guest.wait_for("failed", |health| health.state == GuestState::Failed);
    let reply = guest.send(&wire).whole();
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("engine_failed"), "{}", reply.text());
    drop(slow);
}

#[test]
fn a_gpu_that_is_not_there_is_no_reason_to_compute_elsewhere() {
    let mut guest = setup(2).launch();
    assert!(!guest.wait().success());
    let (_, log) = guest.end();
    assert!(log.contains("[engine] kind = \"cuda\"") && log.contains("there is no GPU 2"), "{log}");
}

#[test]
fn a_guest_that_was_built_without_cuda_says_what_to_build() {
    let mut setup = Setup::new();
    setup.config += "[engine]\nkind = \"cuda\"\n";
    let mut guest = setup.launch();
    assert!(!guest.wait().success());
    let (_, log) = guest.end();
    let words = if cfg!(feature = "cuda") { "GPU" } else { "--features cuda" };
    assert!(log.contains(words), "{log}");
}
