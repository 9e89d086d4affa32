//! HTTP to the guest: over its unix socket beside a process, over vsock or a forwarded port into a VM. One connection per request: dropping an answer closes its connection, and
//! the guest stops working on it.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use cocoon_contracts::Address;
use cocoon_protocol::http::{LANE_HEADER, SEALED};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, http::request::Builder};
use hyper_util::rt::TokioIo;
use ring::{hmac, rand::SystemRandom};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_vsock::{VsockAddr, VsockStream};

/// Where a VM's guest listens.
pub(crate) const GUEST_PORT: u32 = 8083;
/// How long the guest may take to answer a small question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the guest may take to hear that it shall end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest bundle or error taken from the guest, in bytes.
const MAX_REPLY: usize = 1024 * 1024;

/// Why the guest gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// Its socket does not answer.
    #[error("the guest does not answer: {0}")]
    Unreachable(String),
    /// It refused.
    #[error("the guest refused with status {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
}

/// Where a guest is reached.
#[derive(Clone, Debug)]
pub(crate) enum Reach {
    /// A process in its run folder.
    Socket(PathBuf),
    /// An emulated VM, whose port is forwarded from the loopback interface.
    Forward(SocketAddr),
    /// A confidential VM: its context id.
    Vsock(u32),
}

impl Reach {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Socket(path) => Box::new(UnixStream::connect(path).await?),
            Self::Forward(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?; // tokens are small, and each is awaited
                Box::new(stream)
            }
            Self::Vsock(cid) => Box::new(VsockStream::connect(VsockAddr::new(*cid, GUEST_PORT)).await?),
        })
    }
}

/// A byte stream of any kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A way to reach one guest.
#[derive(Clone)]
pub(crate) struct GuestClient {
    reach: Reach,
    /// Makes of a channel the name that the guest knows its payer by: another with each guest, so that a guest, which sees
    /// what is asked, does not learn who pays.
    lanes: hmac::Key,
}

/// An answer as it comes from the guest. Dropping it ends the connection.
pub(crate) struct GuestAnswer {
    pub(crate) response: Response<Incoming>,
    pub(crate) connection: Connection,
}

/// The task that drives one connection; it ends with this handle.
pub(crate) struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl GuestClient {
    pub(crate) fn new(reach: Reach) -> Self {
        let lanes = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Self { reach, lanes: lanes.expect("the system has a random generator") }
    }

    /// Whether the guest takes requests.
    pub(crate) async fn health(&self) -> Result<Bytes, GuestError> {
        self.ask(Method::GET, "/v1/health", Bytes::new()).await
    }

    /// A bundle with new freshness; `question` is the JSON of the guest's API.
    pub(crate) async fn attest(&self, question: Vec<u8>) -> Result<Bytes, GuestError> {
        self.ask(Method::POST, "/v1/attest", Bytes::from(question)).await
    }

    /// Asks the guest to end: answers in progress first, then the machine.
    pub(crate) async fn shutdown(&self) -> Result<(), GuestError> {
        let sent = self.send(request(Method::POST, "/v1/shutdown", "application/json"), Bytes::new());
        let late = |_| GuestError::Unreachable("no reply to /v1/shutdown".to_owned());
        let answer = tokio::time::timeout(SHUTDOWN_TIMEOUT, sent).await.map_err(late)??;
        match answer.response.status() {
            StatusCode::ACCEPTED => Ok(()),
            status => Err(GuestError::Refused { status: status.as_u16(), message: String::new() }),
        }
    }

    /// Hands in a sealed request that a channel pays for; the head of the answer is there when this returns.
    pub(crate) async fn answer(&self, sealed: Bytes, channel: &Address) -> Result<GuestAnswer, GuestError> {
        let lane = hex::encode(hmac::sign(&self.lanes, channel.to_string().as_bytes()));
        let request = request(Method::POST, "/v1/answers", SEALED).header(LANE_HEADER, lane);
        self.send(request, sealed).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, GuestError> {
        let asked = async {
            let answer = self.send(request(method, path, "application/json"), body).await?;
            let status = answer.response.status();
            let body = collect(answer.response.into_body()).await?;
            if status == StatusCode::OK {
                return Ok(body);
            }
            let message = String::from_utf8_lossy(&body).chars().take(500).collect();
            Err(GuestError::Refused { status: status.as_u16(), message })
        };
        let late = || GuestError::Unreachable(format!("no reply to {path} within {QUESTION_TIMEOUT:?}"));
        tokio::time::timeout(QUESTION_TIMEOUT, asked).await.map_err(|_| late())?
    }

    async fn send(&self, request: Builder, body: Bytes) -> Result<GuestAnswer, GuestError> {
        let unreachable = |e: &dyn std::fmt::Display| GuestError::Unreachable(e.to_string());
        let stream = self.reach.connect().await.map_err(|e| unreachable(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e))?;
        let connection = Connection(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the guest ended early");
            }
        }));
        let request = request.body(Full::new(body)).expect("fixed parts make a valid request");
        let response = sender.send_request(request).await.map_err(|e| unreachable(&e))?;
        Ok(GuestAnswer { response, connection })
    }
}

fn request(method: Method, path: &str, content_type: &str) -> Builder {
    Request::builder().method(method).uri(path).header("host", "guest").header("content-type", content_type)
}

/// A small body, whole.
pub(crate) async fn collect(body: Incoming) -> Result<Bytes, GuestError> {
    let collected = Limited::new(body, MAX_REPLY).collect().await;
    collected.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            GuestError::Unreachable(format!("its reply is longer than {MAX_REPLY} bytes"))
        } else {
            GuestError::Unreachable(error.to_string())
        }
    })
}
