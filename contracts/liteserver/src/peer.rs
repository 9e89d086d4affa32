//! One liteserver and the connection to it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use ton_net_adnl::{AdnlConnection, Transport, TransportError};

use crate::fail::Fail;
use crate::settings::Server;

/// How long to try to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one question may take, with its answer. A run of key blocks is the largest, below a megabyte.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest frame that is received. (ton-net makes room for one of 16 MiB at most before this is asked.)
const MAX_FRAME: usize = 8 << 20;

/// A server, asked one question at a time over one connection, which is made when needed and again when it broke.
pub(crate) struct Peer {
    server: Server,
    connection: Mutex<Option<AdnlConnection<Tcp>>>,
}

impl Peer {
    pub(crate) fn new(server: Server) -> Self {
        Self { server, connection: Mutex::new(None) }
    }

    pub(crate) fn name(&self) -> SocketAddr {
        self.server.address
    }

    /// Asks, once; gives up at the deadline or after [`QUERY_TIMEOUT`].
    ///
    /// # Errors
    /// [`Fail::Away`] when the question did not leave, [`Fail::Silent`] when it may have been served.
    pub(crate) async fn ask(&self, query: &[u8], deadline: Instant) -> Result<Vec<u8>, Fail> {
        let deadline = deadline.min(Instant::now() + QUERY_TIMEOUT);
        let late = |_| Err(Fail::Silent("no answer in time".into()));
        timeout_at(deadline, self.ask_in_turn(query)).await.unwrap_or_else(late)
    }

    async fn ask_in_turn(&self, query: &[u8]) -> Result<Vec<u8>, Fail> {
        let mut slot = self.connection.lock().await;
        let mut connection = match slot.take() {
            Some(connection) if connection.is_intact() => connection,
            _ => self.connect().await.map_err(Fail::Away)?,
        };
        // Out of the slot while it is used: a call that is given up, or fails, leaves no half-read connection behind.
        let answer = connection.query(query).await.map_err(|error| Fail::Silent(error.to_string()))?;
        *slot = Some(connection);
        Ok(answer)
    }

    async fn connect(&self) -> Result<AdnlConnection<Tcp>, String> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(self.server.address))
            .await
            .map_err(|_| "no connection in time".to_owned())?
            .map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        AdnlConnection::connect(Tcp(stream), &self.server.key).await.map_err(|error| error.to_string())
    }
}

/// TCP that refuses frames above the limit.
struct Tcp(TcpStream);

impl Transport for Tcp {
    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        Ok(self.0.write_all(bytes).await?)
    }

    async fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), TransportError> {
        if bytes.len() > MAX_FRAME {
            let why = format!("a frame has {} bytes, more than {MAX_FRAME}", bytes.len());
            return Err(std::io::Error::other(why).into());
        }
        self.0.read_exact(bytes).await?;
        Ok(())
    }
}
