//! A guest as a host starts it: own process, empty environment, an emulated TEE beside it, a unix socket between.

use crate::http::{self, Reply};
use cocoon_attestation::{
    Bundle, Context, Endorsements, Evidence, Exceptions, ImageReference, KnownBlock, Measurements, Policy,
    Refusal, TrustAnchors, Trusted, UnixTime, verify,
};
use cocoon_image::{COMMAND_LINE, ProcessImage};
use cocoon_protocol::http::{AttestRequest, GuestHealth, SEALED};
use cocoon_protocol::{
    AnswerError, AnswerEvent, AnswerOpener, Budget, Endpoint, Price, Prompt, RequestHeader, Usage,
    VerifiedReceipt, seal,
};
use cocoon_simulated_tee::{Emulator, Serving, SimulatedRoot};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) const NETWORK: i32 = -3;
pub(crate) const BEACON: [u8; 32] = [8; 32];
/// Long enough for a loaded machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_cocoon-guest"))
}

pub(crate) fn tiny_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/tiny.gguf")
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("32 bytes")
}

pub(crate) fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs())
}

/// What a guest is started with; tests change one thing.
pub(crate) struct Setup {
    pub(crate) config: String,
    pub(crate) model: Vec<u8>,
    pub(crate) binary: PathBuf,
    pub(crate) arguments: Vec<&'static str>,
    pub(crate) environment: Vec<(&'static str, &'static str)>,
    /// More files of the run folder.
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let model = std::fs::read(tiny_model()).expect("the tiny model is in the repository");
        Self {
            config: config(2, 4, &sha256(&model)),
            model,
            binary: binary().to_path_buf(),
            arguments: Vec::new(),
            environment: Vec::new(),
            files: Vec::new(),
        }
    }

    pub(crate) fn weights(&self) -> [u8; 32] {
        sha256(&self.model)
    }

    /// The reference values that an auditor computes from the files.
    pub(crate) fn predicted(&self) -> Measurements {
        let guest_binary = std::fs::read(&self.binary).expect("it was built");
        ProcessImage {
            guest_binary: &guest_binary,
            command_line: COMMAND_LINE,
            configuration: self.config.as_bytes(),
            weights_sha256: self.weights(),
        }
        .measurements()
    }

    /// Writes the run folder, serves the emulator, starts the process. Does not wait for it.
    pub(crate) fn launch(self) -> Running {
        let folder = tempfile::tempdir().expect("a folder");
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("it is ours");
        write("config.toml", self.config.as_bytes());
        write("model.gguf", &self.model);
        for (name, bytes) in &self.files {
            write(name, bytes);
        }
        let root = SimulatedRoot::create(now());
        let listener = UnixListener::bind(folder.path().join("tee.sock")).expect("a fresh folder");
        let program = std::fs::read(&self.binary).expect("it was built");
        let tee = Emulator::launch(&root, &program, COMMAND_LINE).serve(listener);
        let mut child = Command::new(&self.binary)
            .arg0(COMMAND_LINE[0])
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the guest starts");
        let mut stderr = child.stderr.take().expect("piped");
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text); // what was read until then counts
            text
        });
        let lifeline = child.stdin.take();
        Running { setup: self, folder, root, tee: Some(tee), child, lifeline, log: Some(log) }
    }

    /// Launches and waits until it serves.
    pub(crate) fn start(self) -> Running {
        let running = self.launch();
        let until = Instant::now() + PATIENCE;
        while UnixStream::connect(running.socket()).is_err() {
            assert!(Instant::now() < until, "the guest does not serve");
            std::thread::sleep(Duration::from_millis(5));
        }
        running
    }
}

pub(crate) fn config(max_running: usize, max_queued: usize, weights: &[u8; 32]) -> String {
    format!(
        "network = {NETWORK}\nmax_context = 512\nmax_running = {max_running}\nmax_queued = {max_queued}\n\
         threads = 1\ntick_tokens = 4\n[model]\nname = \"tiny\"\nweights = \"{}\"\n",
        hex::encode(weights)
    )
}

/// A guest process with its emulator. Ends both when dropped.
pub(crate) struct Running {
    pub(crate) setup: Setup,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) root: SimulatedRoot,
    tee: Option<Serving>,
    pub(crate) child: Child,
    lifeline: Option<ChildStdin>,
    log: Option<JoinHandle<String>>,
}

impl Running {
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("guest.sock")
    }

    pub(crate) fn registers(&self) -> Measurements {
        self.tee.as_ref().expect("served until the end").registers()
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        http::send(&self.socket(), "GET", path, "text/plain", b"").whole()
    }

    pub(crate) fn post(&self, path: &str, kind: &str, body: &[u8]) -> Reply {
        http::send(&self.socket(), "POST", path, kind, body).whole()
    }

    pub(crate) fn health(&self) -> GuestHealth {
        serde_json::from_slice(&self.get("/v1/health").body).expect("health is JSON")
    }

    /// Waits until the guest's health is as wanted.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&GuestHealth) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !wanted(&self.health()) {
            assert!(Instant::now() < until, "the guest never came to: {what}; {:?}", self.health());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn bundle(&self, seqno: u32, nonce: Option<[u8; 32]>) -> Bundle {
        let request = AttestRequest { seqno, root_hash: hex::encode(BEACON), nonce: nonce.map(hex::encode) };
        let body = serde_json::to_vec(&request).expect("it encodes");
        let reply = self.post("/v1/attest", "application/json", &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        Bundle::decode(&reply.body).expect("a bundle")
    }

    /// Judges a bundle by what the files say the registers must hold.
    pub(crate) fn judge(&self, bundle: Bundle, reference: Measurements) -> Result<Trusted, Box<Refusal>> {
        let anchors = TrustAnchors::hardware().with_simulated_root(self.root.root_der()).expect("a root");
        let mut policy = Policy::new(NETWORK, 600);
        policy.models.push(self.setup.weights());
        let configuration = None;
        policy.tdx = Some(cocoon_attestation::TdxRules::by_vendor());
        policy.images.push(ImageReference::on_tdx("test", configuration, &reference));
        let (evidence, now) = (Evidence::Bundle(bundle), now());
        let genuine = verify(&evidence, &Endorsements::none(), &anchors, &Exceptions::none(), now)?;
        let beacon = genuine.statement().expect("a bundle has one").freshness.beacon.clone();
        let block = KnownBlock { seqno: beacon.seqno, root_hash: BEACON, time: now };
        Ok(policy.appraise(genuine, &Context { now, beacon: Some(block), nonce: None })?)
    }

    pub(crate) fn trusted(&self) -> Trusted {
        let predicted = self.setup.predicted();
        self.judge(self.bundle(7, None), predicted).expect("an honest guest is trusted")
    }

    /// Sends sealed bytes and gives the reply while it still streams.
    pub(crate) fn send(&self, wire: &[u8]) -> http::Stream {
        http::send(&self.socket(), "POST", "/v1/answers", SEALED, wire)
    }

    /// One whole exchange.
    pub(crate) fn ask(&self, peer: &Trusted, header: &RequestHeader, body: &str) -> Heard {
        self.ask_at(peer, header, Endpoint::ChatCompletions, body)
    }

    /// The same with any endpoint.
    pub(crate) fn ask_at(
        &self,
        peer: &Trusted,
        header: &RequestHeader,
        endpoint: Endpoint,
        body: &str,
    ) -> Heard {
        let (wire, opener) = sealed_at(peer, header, endpoint, body);
        let reply = self.send(&wire).whole();
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.kind, SEALED);
        hear(opener, &reply.body)
    }

    /// Lets go of the lifeline and waits for the end.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        drop(self.lifeline.take());
        let status = self.wait();
        (status, self.log.take().expect("taken once").join().expect("it only reads"))
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < until, "the guest does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}

pub(crate) fn header(peer: &Trusted) -> RequestHeader {
    let mut request_id = [0; 16];
    SystemRandom::new().fill(&mut request_id).expect("randomness");
    RequestHeader {
        network: NETWORK,
        request_id,
        statement: peer.statement_digest(),
        model: peer.model("tiny").expect("it is served").weights,
        budget: Budget { prompt_tokens: 400, completion_tokens: 400 },
        price: Price::new(1_000_000, 1_000_000, 2_000_000),
    }
}

pub(crate) fn sealed(peer: &Trusted, header: &RequestHeader, body: &str) -> (Vec<u8>, AnswerOpener) {
    sealed_at(peer, header, Endpoint::ChatCompletions, body)
}

pub(crate) fn sealed_at(
    peer: &Trusted,
    header: &RequestHeader,
    endpoint: Endpoint,
    body: &str,
) -> (Vec<u8>, AnswerOpener) {
    let body = Prompt::new(body.as_bytes().to_vec());
    let (request, opener) = seal(peer, header, endpoint, body).expect("the header fits");
    (request.into_bytes(), opener)
}

pub(crate) fn question(text: &str, more: &str) -> String {
    let text = serde_json::to_string(text).expect("a string");
    format!(r#"{{"messages":[{{"role":"user","content":{text}}}]{more}}}"#)
}

/// What a client hears in an answer.
pub(crate) struct Heard {
    pub(crate) chunks: Vec<serde_json::Value>,
    pub(crate) error: Option<(u16, serde_json::Value)>,
    pub(crate) ticks: Vec<Usage>,
    pub(crate) end: Result<VerifiedReceipt, AnswerError>,
}

impl Heard {
    /// The streamed text.
    pub(crate) fn text(&self) -> String {
        let delta =
            |chunk: &serde_json::Value| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
        self.chunks.iter().filter_map(delta).collect()
    }

    pub(crate) fn receipt(&self) -> &VerifiedReceipt {
        self.end.as_ref().expect("the receipt holds")
    }
}

pub(crate) fn hear(mut opener: AnswerOpener, wire: &[u8]) -> Heard {
    let (mut chunks, mut error, mut ticks) = (Vec::new(), None, Vec::new());
    for piece in wire.chunks(1000) {
        for (event, usage) in opener.push(piece).expect("an honest answer") {
            match event {
                AnswerEvent::Chunk(answer) => {
                    chunks.push(serde_json::from_slice(answer.expose()).expect("OpenAI JSON"));
                }
                AnswerEvent::Tick => ticks.push(usage),
                AnswerEvent::Error { status, body } => {
                    error = Some((status, serde_json::from_slice(body.expose()).expect("OpenAI JSON")));
                }
                AnswerEvent::End { .. } => {}
            }
        }
    }
    Heard { chunks, error, ticks, end: opener.finish() }
}
