//! The other side: `cocoon host status` and `cocoon host down`.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use super::{Ask, HostStatus, MAX_ANSWER, Question, server::short};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// Why a host did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is none.
    #[error("no host runs with the state folder {0}; start one with `cocoon host up`, or name its folder")]
    NoHost(PathBuf),
    /// There was one.
    #[error(
        "the host of {0} was killed and left its socket; nothing of it runs, and the next `cocoon host up` clears it"
    )]
    Killed(PathBuf),
    /// It cannot be reached.
    #[error("the host cannot be asked: {0}; the state folder must be this user's own")]
    Io(#[from] io::Error),
    /// It takes too long.
    #[error("the host does not answer within {0:?}; look at its log with `cocoon host logs`")]
    Late(Duration),
    /// It says something else.
    #[error("the host's answer is not understood: {0}; use the same version of this program")]
    Strange(String),
}

/// How the host of this state folder is.
///
/// # Errors
/// [`AskError`].
pub async fn status(state: &Path) -> Result<HostStatus, AskError> {
    let (answer, _) = ask(state, Ask::Status).await?;
    serde_json::from_slice(&answer).map_err(|error| AskError::Strange(error.to_string()))
}

/// Ends the host of this state folder in order, and returns when its process has gone.
///
/// # Errors
/// [`AskError`]; [`AskError::Late`] if it has not ended within `patience`. It goes on to end.
pub async fn down(state: &Path, patience: Duration) -> Result<(), AskError> {
    let (answer, mut stream) = ask(state, Ask::Down).await?;
    let said: serde_json::Value =
        serde_json::from_slice(&answer).map_err(|error| AskError::Strange(error.to_string()))?;
    if said.get("ending").and_then(serde_json::Value::as_bool) != Some(true) {
        return Err(AskError::Strange(said.to_string().chars().take(200).collect()));
    }
    let mut byte = [0; 1];
    let gone = stream.read(&mut byte);
    match tokio::time::timeout(patience, gone).await {
        // Closed or reset: either way it is gone.
        Ok(Ok(0) | Err(_)) => Ok(()),
        Ok(Ok(_)) => Err(AskError::Strange("it said more than one line".to_owned())),
        Err(_) => Err(AskError::Late(patience)),
    }
}

async fn ask(state: &Path, ask: Ask) -> Result<(Vec<u8>, UnixStream), AskError> {
    let mut stream = connect(state).await?;
    let mut line = serde_json::to_vec(&Question { ask }).expect("plain data encodes");
    line.push(b'\n');
    let mut answer = Vec::new();
    let asked = async {
        stream.write_all(&line).await?;
        BufReader::new(&mut stream).take(MAX_ANSWER).read_until(b'\n', &mut answer).await
    };
    tokio::time::timeout(ANSWER, asked).await.map_err(|_| AskError::Late(ANSWER))??;
    if !answer.ends_with(b"\n") {
        return Err(AskError::Strange("it broke off".to_owned()));
    }
    Ok((answer, stream))
}

async fn connect(state: &Path) -> Result<UnixStream, AskError> {
    let kind = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => AskError::NoHost(state.to_path_buf()),
        io::ErrorKind::ConnectionRefused => AskError::Killed(state.to_path_buf()),
        _ => AskError::Io(error),
    };
    let (_folder, path) = short(state).map_err(kind)?;
    UnixStream::connect(path).await.map_err(kind)
}
