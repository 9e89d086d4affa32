//! An HTTP server for hostile peers: bounded connections, time limits for headers and bodies, a size limit for bodies, errors
//! in one shape, and an orderly end.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use crate::impatient::Impatient;
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request},
};
use futures_util::StreamExt;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

/// What one server takes from its peers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// How long a peer may take to send a request's head.
    pub head_timeout: Duration,
    /// How long a peer may take to send a request's body.
    pub body_timeout: Duration,
    /// The largest request body, in bytes.
    pub body: usize,
    /// How much of an answer one connection buffers before its source is no longer read, in bytes.
    pub buffer: usize,
    /// How long a peer may take nothing of what is sent to it: one that stops reading holds no answer, no worker and no
    /// connection for longer.
    pub stall: Duration,
    /// How long answers under way may go on after the end was asked for.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            body: 2 * 1024 * 1024,
            buffer: 64 * 1024,
            stall: Duration::from_secs(30),
            grace: Duration::from_secs(2),
        }
    }
}

/// The server's address could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error(
        "{0} is in use by another program; stop that one, or listen elsewhere (port 0 takes any free port)"
    )]
    InUse(SocketAddr),
    /// The system refused.
    #[error("cannot listen on {address}: {source}")]
    Refused {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Takes an address to listen on.
///
/// # Errors
/// [`BindError`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        _ => BindError::Refused { address, source },
    })
}

/// A server that runs. Dropping it ends it at once; [`Server::shutdown`] ends it in order.
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Serves `router` on `listener`.
    ///
    /// # Errors
    /// When the listener has no local address.
    pub fn start(listener: TcpListener, router: Router, limits: Limits) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let in_time = move |request: Request| std::future::ready(with_deadline(request, limits.body_timeout));
        let router =
            router.layer(axum::middleware::map_request(in_time)).layer(DefaultBodyLimit::max(limits.body));
        let task = tokio::spawn(accept(listener, router, limits, stopped));
        Ok(Self { address, stop, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new connections, lets answers under way go on for the limit's grace, and ends.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        drop((&mut self.task).await);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
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
                    let late = format!("the body did not arrive within {limit:?}");
                    Some((Err(axum::Error::new(io::Error::new(io::ErrorKind::TimedOut, late))), None))
                }
            }
        });
        Body::from_stream(pieces)
    })
}

async fn accept(listener: TcpListener, router: Router, limits: Limits, mut stopped: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut open = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned();
        let accepted = async {
            let slot = slot.await.expect("the semaphore is never closed");
            (listener.accept().await, slot)
        };
        tokio::select! {
            () = wait_true(&mut stopped) => break,
            Some(_) = open.join_next() => {}
            (stream, slot) = accepted => match stream {
                Ok((stream, _)) => {
                    let connection = connection(stream, router.clone(), limits, stopped.clone());
                    open.spawn(async move { connection.await; drop(slot) });
                }
                Err(error) => {
                    // Out of descriptors, or the peer was gone already: neither ends the server.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(limits.grace, async { while open.join_next().await.is_some() {} });
    drop(drained.await);
    open.shutdown().await;
}

async fn connection(stream: TcpStream, router: Router, limits: Limits, mut stopped: watch::Receiver<bool>) {
    // Frames are small and somebody waits for each.
    drop(stream.set_nodelay(true));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.buffer)
        .serve_connection(
            TokioIo::new(Impatient::new(stream, limits.stall)),
            TowerToHyperService::new(router),
        );
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return log_end(result),
        () = wait_true(&mut stopped) => connection.as_mut().graceful_shutdown(),
    }
    log_end(connection.await);
}

fn log_end(result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn wait_true(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
