//! The HTTP API.

use crate::answering;
use crate::sink;
use crate::{AttestError, Door, Guest};
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cocoon_engine::Payer;
use cocoon_protocol::http::{
    ApiError, AttestRequest, BUNDLE, GuestHealth, GuestState, LANE_HEADER, SEALED, code,
};
use cocoon_protocol::{Expected, MAX_REQUEST, Opened, open};
use ring::digest::{SHA256, digest};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Most connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 512;
/// How long to wait when a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// How long the body of a request may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of an attestation request.
const MAX_ATTEST: usize = 4096;
/// Between looks whether an answer is still in progress.
const IDLE_POLL: Duration = Duration::from_millis(20);
/// How long answers that are cut may take to end at shutdown, and then what computed them.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How a guest leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Answers in progress may go on for as long as the engine is configured to let them; those that go on longer are cut.
    InOrder,
    /// They are cut.
    AtOnce,
}

/// Serves until `shutdown` resolves, then ends the answers in progress, each with its receipt, and what computes them.
///
/// # Errors
/// If the socket fails.
pub async fn serve(
    guest: Arc<Guest>,
    door: Door,
    shutdown: impl Future<Output = Leave> + Send + 'static,
) -> io::Result<()> {
    let (drained, draining) = tokio::sync::oneshot::channel();
    let (died, mut death) = tokio::sync::oneshot::channel();
    let (stopping, engine) = (guest.clone(), guest.engine.clone());
    let signal = async move {
        let leave = tokio::select! {
            leave = shutdown => leave,
            () = stopping.ending.notified() => {
                tracing::info!("asked to end");
                Leave::InOrder
            }
            error = stopping.engine.device_failure() => {
                tracing::error!(%error, "the device that computes failed; its guest ends with it");
                stopping.all_told().await;
                Leave::AtOnce
            }
            () = stopping.engine.dead() => {
                tracing::error!("the engine failed too often; its guest ends with it");
                stopping.all_told().await;
                let _ = died.send(()); // the receiver lives as long as the server
                Leave::AtOnce
            }
        };
        stopping.close();
        if leave == Leave::InOrder {
            let idle = async {
                while stopping.engine.running() > 0 {
                    tokio::time::sleep(IDLE_POLL).await;
                }
            };
            tokio::select! {
                () = idle => {}
                () = tokio::time::sleep(stopping.engine.patience()) => {} // what goes on longer is cut
                () = stopping.engine.dead() => stopping.all_told().await,
            }
        }
        stopping.drain();
        let _ = drained.send(()); // the receiver lives as long as the server
    };
    let listener = Limited { door, permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)) };
    let server = axum::serve(listener, router(guest)).with_graceful_shutdown(signal);
    let overdue = async {
        match draining.await {
            Ok(()) => tokio::time::sleep(DRAIN_TIMEOUT).await,
            Err(_) => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        result = server => result,
        () = overdue => Ok(()),
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, engine.end()).await; // what is left ends with this process
    result?;
    match (engine.has_failed(), death.try_recv()) {
        (true, _) => Err(io::Error::other("the device that computes failed, and its guest ended with it")),
        (false, Ok(())) => Err(io::Error::other("the engine failed too often, and its guest ended with it")),
        (false, Err(_)) => Ok(()),
    }
}

impl Guest {
    /// Resolves when nobody's request is here any more, or everybody had time to be told how it ended.
    async fn all_told(&self) {
        let all = self.config.max_running + self.config.max_queued;
        let told = async {
            while self.admitted.available_permits() < all {
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, told).await; // in time or not, this guest ends
    }
}

fn router(guest: Arc<Guest>) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/attest", post(attest).layer(DefaultBodyLimit::max(MAX_ATTEST)))
        .route("/v1/shutdown", post(shutdown))
        .route("/v1/answers", post(answers).layer(DefaultBodyLimit::max(MAX_REQUEST)))
        .fallback(async || {
            failure(StatusCode::NOT_FOUND, ApiError::invalid_request("not_found", "no such path"))
        })
        .with_state(guest)
}

fn failure(status: StatusCode, error: ApiError) -> Response {
    (status, Json(error)).into_response()
}

async fn health(State(guest): State<Arc<Guest>>) -> Json<GuestHealth> {
    let config = &guest.config;
    let running = guest.engine.running();
    let here = config.max_running + config.max_queued - guest.admitted.available_permits();
    let state = match (guest.is_draining(), guest.attested.load(Ordering::Relaxed)) {
        _ if guest.engine.has_failed() => GuestState::Failed,
        (true, _) => GuestState::Draining,
        _ if !guest.engine.is_ready() => GuestState::Restarting,
        (false, true) => GuestState::Ready,
        (false, false) => GuestState::Unattested,
    };
    Json(GuestHealth { state, running, queued: here.saturating_sub(running), limit: config.max_queued })
}

/// A VM's guest cannot be sent a signal. Whoever reaches this socket is the host, who could end the machine as well; so
/// answers in progress end with their receipts.
async fn shutdown(State(guest): State<Arc<Guest>>) -> StatusCode {
    guest.ending.notify_one();
    StatusCode::ACCEPTED
}

/// The whole body, within its limit and in time.
async fn body(request: Request) -> Result<Bytes, Response> {
    match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) => {
            let code =
                if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE { "too_large" } else { "malformed" };
            Err(failure(rejection.status(), ApiError::invalid_request(code, rejection.body_text())))
        }
        Err(_) => {
            let error = ApiError::invalid_request("timeout", "the request's body did not arrive in time");
            Err(failure(StatusCode::REQUEST_TIMEOUT, error))
        }
    }
}

async fn attest(State(guest): State<Arc<Guest>>, request: Request) -> Response {
    let bytes = match body(request).await {
        Ok(bytes) => bytes,
        Err(response) => return response,
    };
    let request: AttestRequest = match serde_json::from_slice(&bytes) {
        Ok(request) => request,
        Err(error) => {
            let error = ApiError::invalid_request("malformed", format!("no attestation request: {error}"));
            return failure(StatusCode::BAD_REQUEST, error);
        }
    };
    let made =
        tokio::task::spawn_blocking(move || guest.attest(&request).map(|bundle| bundle.encode())).await;
    match made {
        Ok(Ok(bundle)) => ([(header::CONTENT_TYPE, BUNDLE)], bundle).into_response(),
        Ok(Err(error @ AttestError::Malformed(_))) => {
            failure(StatusCode::BAD_REQUEST, ApiError::invalid_request("malformed", error.to_string()))
        }
        Ok(Err(AttestError::Tee(error))) => {
            tracing::error!(%error, "no quote");
            failure(StatusCode::BAD_GATEWAY, ApiError::server("tee", error.to_string()))
        }
        Ok(Err(AttestError::Gpu(error))) => {
            tracing::error!(%error, "no GPU evidence");
            failure(StatusCode::BAD_GATEWAY, ApiError::server("gpu", error.to_string()))
        }
        Err(_) => {
            failure(StatusCode::INTERNAL_SERVER_ERROR, ApiError::server("internal", "the guest failed"))
        }
    }
}

async fn answers(State(guest): State<Arc<Guest>>, request: Request) -> Response {
    if guest.is_draining() {
        let error = ApiError::server("draining", "this guest ends; use another");
        return failure(StatusCode::SERVICE_UNAVAILABLE, error);
    }
    if guest.engine.has_failed() {
        let error =
            ApiError::server("engine_failed", "the device that computes has failed; use another worker");
        return failure(StatusCode::SERVICE_UNAVAILABLE, error);
    }
    if !guest.engine.is_ready() {
        let error = ApiError::server(code::BUSY, "the engine is started again; try again, or another worker");
        return failure(StatusCode::SERVICE_UNAVAILABLE, error);
    }
    let payer = payer(&request);
    // Before the body is read: what waits in memory is limited too.
    let Ok(admission) = guest.admitted.clone().try_acquire_owned() else {
        let error =
            ApiError::server(code::BUSY, "as many requests as may are here; try again, or another worker");
        return failure(StatusCode::SERVICE_UNAVAILABLE, error);
    };
    let bytes = match body(request).await {
        Ok(bytes) => bytes,
        Err(response) => return response,
    };
    let models = [guest.config.model.weights];
    let expected = Expected { network: guest.config.network, models: &models, guard: &guest.guard };
    match open(&guest.seal, &expected, &bytes) {
        Ok(opened) => {
            drop(bytes);
            let stream = start(guest, opened, payer, admission);
            ([(header::CONTENT_TYPE, SEALED)], stream).into_response()
        }
        Err(error) => {
            tracing::info!(code = error.code(), "a request was refused");
            failure(StatusCode::BAD_REQUEST, ApiError::from(&error))
        }
    }
}

/// Who shares this worker evenly with others: the host's word, which decides about turns and about nothing else. Requests
/// without one share as one.
fn payer(request: &Request) -> Payer {
    let lane = request.headers().get(LANE_HEADER).map_or(&[][..], |value| value.as_bytes());
    Payer(digest(&SHA256, lane).as_ref().try_into().expect("SHA-256 gives 32 bytes"))
}

/// Answers when the request's turn comes; the body of the response is the sealed stream.
fn start(guest: Arc<Guest>, opened: Opened, payer: Payer, admission: OwnedSemaphorePermit) -> Body {
    let (sink, pieces) = sink::channel();
    let preamble = Bytes::from(answering::preamble(&opened));
    tokio::spawn(async move {
        let _admission = admission; // held until the answer ended
        answering::answer(guest, opened, payer, sink).await;
    });
    Body::from_stream(futures_util::stream::unfold((Some(preamble), pieces), next_piece))
}

type Pieces = (Option<Bytes>, mpsc::Receiver<Bytes>);

async fn next_piece((preamble, mut pieces): Pieces) -> Option<(Result<Bytes, io::Error>, Pieces)> {
    let piece = match preamble {
        Some(preamble) => preamble,
        None => pieces.recv().await?,
    };
    Some((Ok(piece), (None, pieces)))
}

/// A listener that accepts no more than so many connections at a time.
struct Limited {
    door: Door,
    permits: Arc<Semaphore>,
}

impl axum::serve::Listener for Limited {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, Self::Addr) {
        let permit = self.permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.door.accept().await {
                Ok(stream) => return (Connection { stream, _permit: permit }, ()),
                // The peer is gone already, or descriptors are short: others end, and it goes on.
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(())
    }
}

struct Connection {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
