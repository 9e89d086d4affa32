//! The ledger behind HTTP: toncenter v2 and v3, pages for people, a faucet, and a clock where that was allowed.

mod connections;
mod develop;
mod pages;
mod toncenter;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;

pub use self::connections::Limits;
use crate::rpc::RpcError;
use crate::{Clock, Ledger, LedgerError};

/// The largest request: a message of 64 KiB in base64 with room to spare.
const MAX_REQUEST_BYTES: usize = 256 << 10;
/// How long a request that needs a block waits for it.
const BLOCK_PATIENCE: Duration = Duration::from_secs(5);
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

/// A ledger with its HTTP server.
pub struct Server {
    shared: Arc<Shared>,
    pace: Pace,
    limits: Limits,
}

struct Shared {
    ledger: Mutex<Ledger>,
    clock: Clock,
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
        Self::by(ledger, Clock::system())
    }

    /// A server by another clock (Unix time in seconds).
    pub fn with_clock(ledger: Ledger, clock: Box<dyn Fn() -> u32 + Send + Sync>) -> Self {
        Self::by(ledger, Clock::of(clock))
    }

    fn by(ledger: Ledger, clock: Clock) -> Self {
        let shared = Shared {
            ledger: Mutex::new(ledger),
            clock,
            work: Notify::new(),
            made: Notify::new(),
            fault: Mutex::new(None),
        };
        Self { shared: Arc::new(shared), pace: Pace::default(), limits: Limits::default() }
    }

    /// Another pace.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Other limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Lets whoever can reach the server move its clock forward (`POST /clock {"advance": seconds}`). For development.
    #[must_use]
    pub fn adjustable_clock(self) -> Self {
        self.shared.clock.allow_advance(lock(&self.shared.ledger).head().time);
        self
    }

    /// Serves until it is dropped. The first block is made at once, so that the beacon is fresh.
    ///
    /// # Errors
    /// The listener has no address.
    pub async fn run(self, listener: TcpListener) -> std::io::Result<()> {
        let Self { shared, pace, limits } = self;
        listener.local_addr()?;
        let router = router(Arc::clone(&shared));
        tokio::select! {
            never = connections::serve(listener, router, limits) => match never {},
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
        ledger.produce_block(self.clock.now())?;
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

    /// Waits until there is a block after number `seqno`.
    async fn block_after(&self, seqno: u32) -> Result<(), RpcError> {
        let done = async {
            loop {
                let made = self.made.notified();
                if lock(&self.ledger).head().seqno > seqno {
                    break;
                }
                made.await;
            }
        };
        let late = |_| RpcError::new(504, "no block was made in time; what was asked may still happen");
        tokio::time::timeout(BLOCK_PATIENCE, done).await.map_err(late)
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .merge(pages::routes())
        .merge(develop::routes())
        .merge(toncenter::routes())
        .fallback(async || refusal(&RpcError::new(404, "there is nothing here")))
        .method_not_allowed_fallback(async || refusal(&RpcError::new(405, "not with this method")))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(shared)
}

/// An error in the shape of toncenter v2.
fn refusal(error: &RpcError) -> Response {
    let RpcError { code, message } = error;
    let body = json!({ "ok": false, "error": message, "code": code });
    (status(*code), axum::Json(body)).into_response()
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A panic elsewhere leaves a whole state behind: the ledger changes in one step at the end of a block.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
