//! Connections with limits: how many there are, and how long each may take to say what it wants.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use futures_util::StreamExt as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What a served ledger takes from its peers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// How long a peer may take to send a request's head, and an idle connection is kept.
    pub head: Duration,
    /// How long a peer may take to send a request's body.
    pub body: Duration,
    /// How long a connection is kept for further requests; what is under way then may end within another `body`.
    pub whole: Duration,
}

impl Default for Limits {
    /// 256 connections; 10 s for a head, 10 s for a body, ten minutes for a connection.
    fn default() -> Self {
        Self {
            connections: 256,
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            whole: Duration::from_secs(600),
        }
    }
}

/// The largest head of a request, in bytes: hyper's buffer of one connection.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long to wait after a connection could not be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves `router` until this future is dropped.
pub(super) async fn serve(listener: TcpListener, router: Router, limits: Limits) -> std::convert::Infallible {
    let in_time = move |request: Request| std::future::ready(with_deadline(request, limits.body));
    let router = router.layer(axum::middleware::map_request(in_time));
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut open = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned();
        let accepted = async {
            let slot = slot.await.expect("the semaphore is never closed");
            (listener.accept().await, slot)
        };
        tokio::select! {
            Some(_) = open.join_next() => {}
            (stream, slot) = accepted => match stream {
                Ok((stream, _)) => {
                    let connection = connection(stream, router.clone(), limits);
                    open.spawn(async move { connection.await; drop(slot) });
                }
                Err(error) => {
                    // Out of descriptors, or the peer was gone already: neither ends the server.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, router: Router, limits: Limits) {
    // Answers are small and somebody waits for each.
    drop(stream.set_nodelay(true));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = match tokio::time::timeout(limits.whole, connection.as_mut()).await {
        Ok(ended) => Ok(ended),
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(limits.body, connection).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
        Err(_) => tracing::debug!("a peer that read too slowly was let go"),
    }
}

/// The request, with a body that fails once its time is over.
fn with_deadline(request: Request, limit: Duration) -> Request {
    let deadline = tokio::time::Instant::now() + limit;
    request.map(|body| {
        let pieces = futures_util::stream::unfold(Some(body.into_data_stream()), move |body| async move {
            let mut body = body?;
            match tokio::time::timeout_at(deadline, body.next()).await {
                Ok(piece) => piece.map(|piece| (piece, Some(body))),
                Err(_) => {
                    let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "the body came too late");
                    Some((Err(axum::Error::new(late)), None))
                }
            }
        });
        Body::from_stream(pieces)
    })
}
