//! The host's side.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use super::{Ask, HostStatus, LOCK, MAX_QUESTION, Question, SOCKET};

/// Most connections at a time; more wait.
pub const MAX_CONNECTIONS: usize = 16;
/// How long a question may take to come.
const QUESTION: Duration = Duration::from_secs(10);
/// After the system gives no more connections.
const PAUSE: Duration = Duration::from_millis(100);

/// What a host tells and takes.
pub trait Lifecycle: Send + Sync + 'static {
    /// How it is.
    fn status(&self) -> impl Future<Output = HostStatus> + Send;

    /// Tells it to end in order. Returns at once; the process ends when all is done. May be told twice.
    fn end(&self);
}

/// Why a host cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is one already.
    #[error("another host runs with the state folder {0}; end it with `cocoon host down`, or use another")]
    Taken(PathBuf),
    /// The folder.
    #[error(
        "the control socket cannot be made in {folder}: {source}; the state folder must be this user's own"
    )]
    Folder {
        /// The state folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A state folder without another host, for as long as this lives: nobody else touches what a host holds of the machine.
#[derive(Debug)]
pub struct Claim {
    folder: PathBuf,
    /// By it, a socket without a host is known for a leftover.
    _lock: fs::File,
}

impl Claim {
    /// Claims a state folder, which is there.
    ///
    /// # Errors
    /// [`ControlError::Taken`] if a host runs with it.
    pub fn take(state: &Path) -> Result<Self, ControlError> {
        let failed = |source: io::Error| ControlError::Folder { folder: state.to_path_buf(), source };
        let lock = fs::File::create(state.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder: state.to_path_buf(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(ControlError::Taken(state.to_path_buf())),
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// A socket that answers. Dropping it closes and removes the socket; connections that wait for the end stay.
#[derive(Debug)]
pub struct Control {
    socket: PathBuf,
    task: tokio::task::JoinHandle<()>,
    _claim: Claim,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        drop(fs::remove_file(&self.socket));
    }
}

impl Control {
    /// Answers for `host` in its state folder, in place of a socket that a killed host left.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn serve(state: &Path, host: Arc<impl Lifecycle>) -> Result<Self, ControlError> {
        Self::serve_claimed(Claim::take(state)?, host)
    }

    /// The same in a folder that is this process's already.
    ///
    /// # Errors
    /// [`ControlError::Folder`].
    pub fn serve_claimed(claim: Claim, host: Arc<impl Lifecycle>) -> Result<Self, ControlError> {
        let state = &claim.folder;
        let failed = |source: io::Error| ControlError::Folder { folder: state.clone(), source };
        let socket = state.join(SOCKET);
        let listener = listen(state, &socket).map_err(failed)?;
        let task = tokio::spawn(accept(listener, host));
        Ok(Self { socket, task, _claim: claim })
    }
}

fn listen(state: &Path, socket: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (_folder, short) = short(state)?;
    let listener = UnixListener::bind(short)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The socket by the folder's descriptor: a path of any length would not do.
pub(super) fn short(state: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let folder = OwnedFd::from(fs::File::open(state)?);
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    Ok((folder, path.into()))
}

async fn accept(listener: UnixListener, host: Arc<impl Lifecycle>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let host = Arc::clone(&host);
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, &*host).await {
                        tracing::debug!(%error, "a control connection ended early");
                    }
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn answer(mut stream: UnixStream, host: &impl Lifecycle) -> io::Result<()> {
    let mut line = Vec::new();
    {
        let mut from = BufReader::new(&mut stream).take(MAX_QUESTION);
        tokio::time::timeout(QUESTION, from.read_until(b'\n', &mut line)).await??;
    }
    let question = serde_json::from_slice::<Question>(&line).ok().map(|question| question.ask);
    let mut answer = match question {
        Some(Ask::Status) => serde_json::to_vec(&host.status().await),
        Some(Ask::Down) => {
            host.end();
            serde_json::to_vec(&serde_json::json!({"ending": true}))
        }
        None => serde_json::to_vec(&serde_json::json!({"error": "ask for status or down"})),
    }
    .expect("plain data encodes");
    answer.push(b'\n');
    stream.write_all(&answer).await?;
    if question == Some(Ask::Down) {
        // Who asked waits for this connection's end; it comes with the process's, or when they go.
        let nothing_more = stream.read(&mut [0; 1]).await?;
        tracing::debug!(nothing_more, "who asked for the end has gone");
    }
    Ok(())
}
