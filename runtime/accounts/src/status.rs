//! A running process's figures, told to whoever may open its socket: the owner of the state folder, and root.
//!
//! There is no question in it: who connects is sent one JSON object and the end.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    payee::PayeeBook,
    payer::PayerBook,
    summary::{PayeeSummary, PayerSummary},
};

/// The socket's name in a state folder.
pub const STATUS_SOCKET: &str = "accounts.sock";
/// How long one reader may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest status that is read, in bytes: a full book of channels.
const MAX_STATUS: u64 = 256 * 1024 * 1024;
/// Between attempts to take a connection when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(200);

/// Both sides of a process's money.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether a process that runs has told it, rather than the file of one that does not.
    pub running: bool,
    /// What others owe it; `None` when a shared database does not answer.
    pub payee: Option<PayeeSummary>,
    /// What it owes others.
    pub payer: Option<PayerSummary>,
}

/// The socket. Dropping it takes it away.
pub struct StatusSocket {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl StatusSocket {
    /// Serves at [`STATUS_SOCKET`] in `folder`, whose store the caller has open: a socket that is there is one that a dead
    /// process left.
    ///
    /// # Errors
    /// The system's.
    pub fn serve(folder: &Path, payee: PayeeBook, payer: Option<PayerBook>) -> io::Result<Self> {
        let path = folder.join(STATUS_SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    // One at a time: figures are for people and their monitoring.
                    Ok((stream, _)) => drop(timeout(PATIENCE, tell(stream, &payee, payer.as_ref())).await),
                    Err(error) => {
                        tracing::debug!(%error, "nobody was told the accounts' figures");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
        Ok(Self { path, task })
    }

    /// Ends it, and returns when nothing of it holds the books.
    pub async fn end(mut self) {
        self.task.abort();
        drop((&mut self.task).await);
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        self.task.abort();
        drop(fs::remove_file(&self.path));
    }
}

async fn tell(mut stream: UnixStream, payee: &PayeeBook, payer: Option<&PayerBook>) -> io::Result<()> {
    let (payee, payer) = (payee.summary().await.ok(), payer.map(PayerBook::summary));
    let status = Status { running: true, payee, payer };
    stream.write_all(&serde_json::to_vec(&status)?).await?;
    stream.shutdown().await
}

impl Status {
    /// Of the process that runs over this state folder; if none does, of its file, which is only read.
    ///
    /// # Errors
    /// What neither the socket nor the file could tell.
    pub async fn of(folder: &Path) -> io::Result<Self> {
        match UnixStream::connect(folder.join(STATUS_SOCKET)).await {
            Ok(stream) => {
                let mut bytes = Vec::new();
                timeout(PATIENCE, stream.take(MAX_STATUS).read_to_end(&mut bytes)).await??;
                Ok(serde_json::from_slice(&bytes)?)
            }
            Err(_) => {
                let file = folder.join("accounts.redb");
                let payee = PayeeSummary::read(&file).map_err(io::Error::other)?;
                let payer = PayerSummary::read(&file).map_err(io::Error::other)?;
                Ok(Self { running: false, payee: Some(payee), payer: Some(payer) })
            }
        }
    }
}
