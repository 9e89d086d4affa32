//! A host whose guest is a real set of keys with real evidence, and whose answers are as long, slow and broken as a
//! test wants. Its account book is the real one.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::Engine as _;
use cocoon_accounts::{
    AgentOptions, ApiRefusal, PayeeAgent, PayeeBook, PayeeOptions, RelayOptions, Store,
    http::{authorized_channel, channel_routes},
    relay,
    server::{Limits, Server, bind},
};
use cocoon_attestation::{
    Bundle, Endorsement, Measurements, Statement, Tee,
    statement::{Beacon, Freshness, Keys, ModelIdentity, digest, report_data},
};
use cocoon_contracts::{Address, Nanotons};
use cocoon_protocol::{
    Answer, AnswerEvent, AnswerSealer, Ending, Expected, Meter, Outcome, Price, ReceiptKey, ReplayGuard,
    SealKey, Usage,
    http::{AccountStatus, PRICE_HEADER, RegisterWorker},
    open,
};
use cocoon_protocol::{EngineId, EngineKind, Kernels};
use cocoon_simulated_tee::{Emulator, SimulatedRoot};
use futures_util::{Stream, stream};
use tokio::sync::Semaphore;

use crate::world::{HOST_PRICE, NETWORK, OPERATOR, Refused, World, address, now, reply};

pub(crate) const MODEL: [u8; 32] = [3; 32];
/// What a host lets a gateway owe.
pub(crate) const HOST_WINDOW: Nanotons = 100_000;

/// What the guest does with one request.
#[derive(Clone)]
pub(crate) struct Script {
    /// Tokens, one for each frame.
    pub(crate) tokens: u32,
    /// Bytes of text in each frame.
    pub(crate) bytes: usize,
    /// Each frame takes a permit of this.
    pub(crate) gate: Arc<Semaphore>,
    /// The connection breaks after this many frames.
    pub(crate) breaks_after: Option<u32>,
    /// The receipt is signed by a key that is not in the evidence.
    pub(crate) forges: bool,
    /// Bytes that are no answer come after this many frames.
    pub(crate) rubbish_after: Option<u32>,
}

impl Script {
    pub(crate) fn tokens(tokens: u32) -> Self {
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { tokens, bytes: 10, gate, breaks_after: None, forges: false, rubbish_after: None }
    }
}

/// What the fake host counted.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) requests: AtomicU64,
    pub(crate) frames: AtomicU64,
    /// Answers that were dropped before they were whole.
    pub(crate) cancelled: AtomicU64,
}

/// The machine that the registry knows.
pub(crate) fn guest(root: &SimulatedRoot) -> Emulator {
    Emulator::launch(root, b"guest", &["cocoon-guest"])
}

struct Guest {
    seal: SealKey,
    receipt: ReceiptKey,
    guard: ReplayGuard,
    emulator: Emulator,
    serial: AtomicU64,
}

#[derive(Clone)]
struct Shared {
    guest: Arc<Guest>,
    scripts: Arc<Mutex<VecDeque<Script>>>,
    /// The newest bundle, as a host serves it.
    registered: Arc<Mutex<Vec<u8>>>,
    counts: Arc<Counts>,
    book: PayeeBook,
}

pub(crate) struct FakeHost {
    shared: Shared,
    server: Option<Server>,
    url: String,
}

impl FakeHost {
    pub(crate) async fn start(world: &World) -> Self {
        let store = Store::open(&world.folder.path().join("host.redb")).expect("a fresh store");
        let options = PayeeOptions { network: NETWORK, window: HOST_WINDOW };
        let book = PayeeBook::open(store, options).expect("a fresh book");
        let agent = AgentOptions {
            registry: world.registry.clone(),
            min_challenge_seconds: 1,
            settle_at: Nanotons::MAX,
            watch_every: Duration::from_secs(3600),
        };
        let agent = Arc::new(PayeeAgent::new(world.wallet(OPERATOR), book.clone(), agent));
        let guest = Guest {
            seal: SealKey::generate(),
            receipt: ReceiptKey::generate(),
            guard: ReplayGuard::new(4, 1 << 16),
            emulator: guest(&world.root),
            serial: AtomicU64::new(0),
        };
        let shared = Shared {
            guest: Arc::new(guest),
            scripts: Arc::default(),
            registered: Arc::default(),
            counts: Arc::default(),
            book: book.clone(),
        };
        let router = Router::new()
            .route("/v1/health", get(async || "{}"))
            .route("/v1/answers", post(answer))
            .route("/v1/bundle", get(bundle))
            .with_state(shared.clone())
            .merge(channel_routes(book, agent));
        let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let server = Server::start(listener, router, Limits::default()).expect("it is bound");
        let url = format!("http://{}", server.address());
        Self { shared, server: Some(server), url }
    }

    /// The host is gone, as by `kill -9`.
    pub(crate) fn die(&mut self) {
        self.server = None;
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn next_answer(&self, script: Script) {
        self.shared.scripts.lock().expect("no test panics in here").push_back(script);
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    pub(crate) async fn status(&self, channel: &Address) -> Option<AccountStatus> {
        self.shared.book.status(channel).await.expect("the store answers")
    }

    /// Counts so much more than it did.
    pub(crate) async fn counts_more(&self, channel: &Address, by: Nanotons) {
        let held = self.shared.book.reserve(channel, by).await;
        let mut held = held.expect("the deposit covers it");
        held.charge(by, Duration::ZERO).await.expect("within the window");
        held.finish().await.expect("the disk takes it");
    }

    pub(crate) fn registers(&self) -> Measurements {
        self.shared.guest.emulator.registers().clone()
    }

    pub(crate) async fn bundle(&self, world: &World) -> Bundle {
        let head = world.wallet(OPERATOR).chain().head().await.expect("the chain answers");
        self.bundle_of(NETWORK, Beacon { seqno: head.seqno, root_hash: head.root_hash })
    }

    pub(crate) fn bundle_of(&self, network: i32, beacon: Beacon) -> Bundle {
        let guest = &self.shared.guest;
        let keys = Keys {
            seal: guest.seal.public_bytes().to_vec(),
            receipt: *guest.receipt.public_bytes(),
            tls: None,
        };
        let statement = Statement {
            network,
            keys,
            models: vec![ModelIdentity { name: "tiny".into(), weights: MODEL }],
            configuration: [4; 32],
            engine: [5; 32],
            kernels: Vec::new(),
            gpu_evidence: Vec::new(),
            freshness: Freshness { beacon, nonce: None, serial: guest.serial.fetch_add(1, Ordering::SeqCst) },
        };
        let statement = statement.encode();
        guest.guard.issue(digest(&statement));
        let quote = guest.emulator.quote_with_collateral(&report_data(&statement), now());
        let endorsements = vec![Endorsement::IntelCollateral(quote.endorsements)];
        let bundle = Bundle {
            statement,
            tee: Tee::Tdx,
            quote: quote.quote,
            gpu: Vec::new(),
            event_log: None,
            endorsements,
        };
        *self.shared.registered.lock().expect("no test panics in here") = bundle.encode();
        bundle
    }

    pub(crate) fn registration(&self, bundle: &[u8]) -> RegisterWorker {
        RegisterWorker {
            url: self.url.clone(),
            operator: address(OPERATOR).to_string(),
            price: HOST_PRICE,
            bundle: base64::engine::general_purpose::STANDARD.encode(bundle),
        }
    }

    pub(crate) async fn register(&self, world: &World, gateway: &str, id: &str) -> Result<(), Refused> {
        let registration = self.registration(&self.bundle(world).await.encode());
        register(gateway, id, &registration).await
    }
}

pub(crate) async fn register(gateway: &str, id: &str, registration: &RegisterWorker) -> Result<(), Refused> {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let put = http.put(format!("{gateway}/v1/workers/{id}")).json(registration);
    reply::<serde_json::Value>(put).await.map(drop)
}

async fn bundle(State(shared): State<Shared>) -> Vec<u8> {
    shared.registered.lock().expect("no test panics in here").clone()
}

async fn answer(
    State(shared): State<Shared>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiRefusal> {
    shared.counts.requests.fetch_add(1, Ordering::SeqCst);
    let script = shared.scripts.lock().expect("no test panics in here").pop_front();
    let script = script.expect("the test said what this answer is like");
    let expected = Expected { network: NETWORK, models: &[MODEL], guard: &shared.guest.guard };
    let opened = open(&shared.guest.seal, &expected, &bytes).expect("the client sealed it to this guest");
    let named = headers.get(PRICE_HEADER).and_then(|value| value.to_str().ok());
    assert_eq!(named.and_then(Price::from_words), Some(HOST_PRICE), "the gateway says what it counts with");
    let channel = authorized_channel(&shared.book, &headers, &bytes).await?;
    let reservation = shared.book.reserve(&channel, HOST_PRICE.worst_case(&opened.header.budget)).await?;
    let options = RelayOptions {
        price: HOST_PRICE,
        patience: Duration::from_secs(30),
        silence: Duration::from_secs(60),
    };
    let meter = Meter::new(&opened.header);
    let work = Work { shared, script, sealer: Some(opened.answer), frame: 0, begun: false };
    if work.script.rubbish_after.is_some() {
        // Past its own meter, straight to the gateway.
        return Ok(Body::from_stream(frames(work)).into_response());
    }
    let source = Box::pin(frames(work));
    Ok(Body::from_stream(relay(source, meter, reservation, options, |_| Ok(()))).into_response())
}

struct Work {
    shared: Shared,
    script: Script,
    sealer: Option<AnswerSealer>,
    frame: u32,
    begun: bool,
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.sealer.is_some() {
            self.shared.counts.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn frames(work: Work) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    stream::unfold(work, |mut work| async move {
        let bytes = work.next().await?;
        Some((bytes.map(Bytes::from), work))
    })
}

impl Work {
    async fn next(&mut self) -> Option<Result<Vec<u8>, std::io::Error>> {
        let sealer = self.sealer.as_mut()?;
        if !self.begun {
            self.begun = true;
            return Some(Ok(sealer.preamble()));
        }
        self.script.gate.acquire().await.expect("no test closes it").forget();
        if self.script.breaks_after == Some(self.frame) {
            return Some(Err(std::io::ErrorKind::ConnectionReset.into()));
        }
        if self.script.rubbish_after == Some(self.frame) {
            return Some(Ok(vec![0xff; 4096]));
        }
        if self.frame == self.script.tokens {
            return Some(Ok(self.end()));
        }
        self.frame += 1;
        self.shared.counts.frames.fetch_add(1, Ordering::SeqCst);
        let chunk = AnswerEvent::Chunk(Answer::new(vec![b'a'; self.script.bytes]));
        let usage = Usage { prompt_tokens: 5, cached_tokens: 0, completion_tokens: self.frame };
        Some(Ok(sealer.seal(&chunk, usage).expect("within the rules")))
    }

    fn end(&mut self) -> Vec<u8> {
        let sealer = self.sealer.take().expect("it ends once");
        let usage = Usage { prompt_tokens: 5, cached_tokens: 0, completion_tokens: self.frame };
        let engine =
            EngineId { kind: EngineKind::Child, version: [0, 1, 0], digest: [4; 32], kernels: Kernels::Cpu };
        let ending = Ending {
            usage,
            started_ms: 1,
            finished_ms: 2,
            outcome: Outcome::Stop,
            engine,
            run: None,
            vectors: None,
        };
        let forger = ReceiptKey::generate();
        let key = if self.script.forges { &forger } else { &self.shared.guest.receipt };
        sealer.finish(ending, key).expect("within the rules")
    }
}
