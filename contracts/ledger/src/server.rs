//! The ledger behind HTTP: toncenter v2, a faucet, and a page that says how it is.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Json, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use cocoon_contracts::parse_address;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::rpc::{self, Parameters, RpcError};
use crate::{Ledger, LedgerError};

/// The largest request: a message of 64 KiB in base64 with room to spare.
const MAX_REQUEST_BYTES: usize = 256 << 10;
/// How long the faucet waits for its block.
const FAUCET_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait after a block could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// How often blocks are made.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between blocks while messages wait.
    pub busy: Duration,
    /// Between blocks when nothing happens: the beacon's tick.
    pub idle: Duration,
}

impl Default for Pace {
    /// 150 ms with work, 5 s without.
    fn default() -> Self {
        Self { busy: Duration::from_millis(150), idle: Duration::from_secs(5) }
    }
}

type Clock = dyn Fn() -> u32 + Send + Sync;

/// A ledger with its HTTP server.
pub struct Server {
    shared: Arc<Shared>,
    pace: Pace,
}

struct Shared {
    ledger: Mutex<Ledger>,
    clock: Box<Clock>,
    /// There is something for the next block.
    work: Notify,
    /// A block was made.
    made: Notify,
    /// Why the last block could not be written, while it cannot.
    fault: Mutex<Option<String>>,
}

/// Serves a ledger in real time until the server fails: what `cocoon chain` runs.
pub async fn serve(ledger: Ledger, listener: TcpListener) -> std::io::Result<()> {
    Server::new(ledger).run(listener).await
}

impl Server {
    /// A server at the default pace, by the machine's clock.
    pub fn new(ledger: Ledger) -> Self {
        Self::with_clock(ledger, Box::new(now))
    }

    /// A server by another clock (Unix time in seconds).
    pub fn with_clock(ledger: Ledger, clock: Box<Clock>) -> Self {
        let shared = Shared {
            ledger: Mutex::new(ledger),
            clock,
            work: Notify::new(),
            made: Notify::new(),
            fault: Mutex::new(None),
        };
        Self { shared: Arc::new(shared), pace: Pace::default() }
    }

    /// Another pace.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Serves until it fails, or is dropped. The first block is made at once, so that the beacon is fresh.
    pub async fn run(self, listener: TcpListener) -> std::io::Result<()> {
        let Self { shared, pace } = self;
        let router = router(Arc::clone(&shared));
        tokio::select! {
            outcome = async { axum::serve(listener, router).await } => outcome,
            never = make_blocks(shared, pace) => match never {},
        }
    }
}

async fn make_blocks(shared: Arc<Shared>, pace: Pace) -> std::convert::Infallible {
    loop {
        let worker = Arc::clone(&shared);
        let outcome = tokio::task::spawn_blocking(move || worker.produce()).await;
        let more = match outcome {
            Ok(Ok(more)) => more,
            Ok(Err(error)) => {
                tracing::error!(%error, "no block was made; trying again");
                *lock(&shared.fault) = Some(error.to_string());
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Err(error) => {
                tracing::error!(%error, "making a block panicked");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        shared.made.notify_waiters();
        tokio::time::sleep(pace.busy).await;
        if !more {
            let idle = pace.idle.saturating_sub(pace.busy);
            let _tick_or_work = tokio::time::timeout(idle, shared.work.notified()).await;
        }
    }
}

impl Shared {
    fn produce(&self) -> Result<bool, LedgerError> {
        let mut ledger = lock(&self.ledger);
        ledger.produce_block((self.clock)())?;
        *lock(&self.fault) = None;
        Ok(ledger.has_work())
    }

    /// Messages are not taken while blocks cannot be written.
    fn check_fault(&self) -> Result<(), RpcError> {
        match &*lock(&self.fault) {
            Some(why) => Err(RpcError::new(503, why)),
            None => Ok(()),
        }
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(status))
        .route("/faucet", post(faucet))
        .route("/api/v2/jsonRPC", post(json_rpc))
        .route("/jsonRPC", post(json_rpc))
        .route("/api/v2/{method}", get(rest_get).post(rest_post))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(shared)
}

async fn json_rpc(State(shared): State<Arc<Shared>>, body: Result<Json<Value>, JsonRejection>) -> Response {
    let request = match body {
        Ok(Json(request)) => request,
        Err(rejection) => return answer(Err(bad_request(&rejection)), None),
    };
    let id = request.get("id").cloned();
    let Some(method) = request.get("method").and_then(Value::as_str) else {
        return answer(Err(RpcError::new(422, "the request has no method")), id);
    };
    let parameters = match request.get("params") {
        Some(Value::Object(parameters)) => parameters.clone(),
        None | Some(Value::Null) => Map::new(),
        Some(_) => return answer(Err(RpcError::new(422, "params must be an object")), id),
    };
    answer(call(shared, method.to_owned(), parameters).await, id)
}

async fn rest_get(
    State(shared): State<Arc<Shared>>,
    Path(method): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if rpc::makes_work(&method) {
        return answer(Err(RpcError::new(405, format!("{method} must be a POST"))), None);
    }
    let parameters = query.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    answer(call(shared, method, parameters).await, None)
}

async fn rest_post(
    State(shared): State<Arc<Shared>>,
    Path(method): Path<String>,
    body: Result<Json<Map<String, Value>>, JsonRejection>,
) -> Response {
    match body {
        Ok(Json(parameters)) => answer(call(shared, method, parameters).await, None),
        Err(rejection) => answer(Err(bad_request(&rejection)), None),
    }
}

async fn call(
    shared: Arc<Shared>,
    method: String,
    parameters: Map<String, Value>,
) -> Result<Value, RpcError> {
    let run = move || {
        let work = rpc::makes_work(&method);
        if work {
            shared.check_fault()?;
        }
        let outcome = rpc::call(&mut lock(&shared.ledger), &method, &Parameters(parameters));
        if work && outcome.is_ok() {
            shared.work.notify_one();
        }
        outcome
    };
    let joined = tokio::task::spawn_blocking(run).await;
    joined.unwrap_or_else(|_| Err(RpcError::new(500, "the request made the ledger panic; it was dropped")))
}

async fn faucet(
    State(shared): State<Arc<Shared>>,
    body: Result<Json<FaucetRequest>, JsonRejection>,
) -> Response {
    let outcome = match body {
        Ok(Json(request)) => grant(&shared, &request).await,
        Err(rejection) => Err(bad_request(&rejection)),
    };
    answer(outcome, None)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct FaucetRequest {
    address: String,
    /// In nanotons.
    amount: u64,
}

async fn grant(shared: &Shared, request: &FaucetRequest) -> Result<Value, RpcError> {
    let address = parse_address(&request.address).map_err(|error| RpcError::new(422, error))?;
    shared.check_fault()?;
    let before = {
        let mut ledger = lock(&shared.ledger);
        ledger.faucet(&address, request.amount)?;
        ledger.head().seqno
    };
    shared.work.notify_one();
    let done = async {
        loop {
            let made = shared.made.notified();
            if lock(&shared.ledger).head().seqno > before {
                break;
            }
            made.await;
        }
    };
    tokio::time::timeout(FAUCET_PATIENCE, done)
        .await
        .map_err(|_| RpcError::new(504, "no block was made in time; the money may still come"))?;
    let balance = lock(&shared.ledger).balance(&address);
    Ok(json!({ "address": address.to_string(), "amount": request.amount, "balance": balance.to_string() }))
}

async fn status(State(shared): State<Arc<Shared>>) -> String {
    let ledger = lock(&shared.ledger);
    let head = ledger.head();
    let supply = ledger.supply();
    let mut page = String::from("cocoon chain: an embedded TON ledger for development\n\n");
    let _infallible = writeln!(
        page,
        "network   {}\nblock     {}\nhash      {}\ntime      {}\naccounts  {} nanotons\nfees      {} nanotons\n\n\
         toncenter v2: /api/v2/jsonRPC and /api/v2/<method>\nfaucet: POST /faucet {{\"address\": \"0:…\", \"amount\": nanotons}}",
        ledger.network(),
        head.seqno,
        hex::encode(head.root_hash),
        head.time,
        supply.accounts,
        supply.fees,
    );
    drop(ledger);
    if let Some(why) = &*lock(&shared.fault) {
        page.push_str("\nFAULT: ");
        page.push_str(why);
        page.push('\n');
    }
    page
}

fn answer(outcome: Result<Value, RpcError>, id: Option<Value>) -> Response {
    let id = id.unwrap_or(Value::Null);
    match outcome {
        Ok(result) => {
            Json(json!({ "ok": true, "result": result, "jsonrpc": "2.0", "id": id })).into_response()
        }
        Err(RpcError { code, message }) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let body = json!({ "ok": false, "error": message, "code": code, "jsonrpc": "2.0", "id": id });
            (status, Json(body)).into_response()
        }
    }
}

fn bad_request(rejection: &JsonRejection) -> RpcError {
    RpcError::new(rejection.status().as_u16(), rejection.body_text())
}

/// A panic elsewhere leaves a whole state behind: the ledger changes in one step at the end of a block.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}
