//! QEMU's monitor protocol (QEMU Machine Protocol): one JSON object on a line, both ways.
//!
//! Only what a host needs of it: whether the guest runs, how it is told to end, and why it ended. Words of QEMU are
//! taken as they come and limited in length; nothing in them is trusted.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::oneshot,
};

/// Longest line taken from QEMU, in bytes.
const MAX_LINE: u64 = 64 * 1024;
/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a question to QEMU has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// It cannot be reached.
    #[error("QEMU's monitor cannot be reached: {0}")]
    Io(#[from] io::Error),
    /// It is gone.
    #[error("QEMU's monitor has closed")]
    Closed,
    /// It takes too long.
    #[error("QEMU's monitor did not answer within {PATIENCE:?}")]
    Late,
    /// It refused.
    #[error("QEMU refused: {0}")]
    Refused(String),
    /// Not QEMU's protocol.
    #[error("QEMU's monitor said something else than its protocol: {0}")]
    Strange(String),
}

/// What a guest does, as QEMU says (`RunState`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It runs.
    Running,
    /// It does not: `paused`, `internal-error`, `shutdown`, …
    Other(String),
}

/// Why a guest ended, as far as QEMU's events told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The reason of SHUTDOWN (`ShutdownCause`): `guest-shutdown`, `guest-reset`, `host-qmp-quit`, …
    pub shutdown: Option<String>,
    /// GUEST_PANICKED was seen.
    pub panicked: bool,
}

/// A connection to one QEMU's monitor.
#[derive(Debug)]
pub struct Qmp {
    to: OwnedWriteHalf,
    next: u64,
    shared: Arc<Shared>,
    reader: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    ending: Mutex<Ending>,
    /// `None` once the connection has ended.
    waiting: Mutex<Option<BTreeMap<u64, oneshot::Sender<Value>>>>,
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Qmp {
    /// Connects and leaves the mode of negotiation.
    ///
    /// # Errors
    /// [`QmpError`]; with [`QmpError::Io`] it may only be too early.
    pub async fn connect(socket: &Path) -> Result<Self, QmpError> {
        Self::over(UnixStream::connect(socket).await?).await
    }

    async fn over(stream: UnixStream) -> Result<Self, QmpError> {
        let (from, to) = stream.into_split();
        let mut from = BufReader::new(from);
        let greeting =
            tokio::time::timeout(PATIENCE, line(&mut from)).await.map_err(|_| QmpError::Late)??;
        let greeting = greeting.ok_or(QmpError::Closed)?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Strange(short(&greeting)));
        }
        let shared = Arc::new(Shared { waiting: Mutex::new(Some(BTreeMap::new())), ..Shared::default() });
        let reader = tokio::spawn(read_all(from, Arc::clone(&shared)));
        let mut qmp = Self { to, next: 0, shared, reader };
        qmp.execute("qmp_capabilities").await?;
        Ok(qmp)
    }

    /// Whether the guest runs.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn status(&mut self) -> Result<RunState, QmpError> {
        let reply = self.execute("query-status").await?;
        match reply.get("status").and_then(Value::as_str) {
            Some("running") => Ok(RunState::Running),
            Some(other) => Ok(RunState::Other(other.chars().take(64).collect())),
            None => Err(QmpError::Strange(short(&reply))),
        }
    }

    /// Presses the power button. Whether the guest listens is its own affair.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn power_down(&mut self) -> Result<(), QmpError> {
        self.execute("system_powerdown").await.map(drop)
    }

    /// Ends QEMU.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn quit(&mut self) -> Result<(), QmpError> {
        self.execute("quit").await.map(drop)
    }

    /// Why the guest ended, as far as events have told so far.
    pub fn ending(&self) -> Ending {
        lock(&self.shared.ending).clone()
    }

    async fn execute(&mut self, command: &str) -> Result<Value, QmpError> {
        let id = self.next;
        self.next += 1;
        let (sender, reply) = oneshot::channel();
        lock(&self.shared.waiting).as_mut().ok_or(QmpError::Closed)?.insert(id, sender);
        let mut question = json!({"execute": command, "id": id}).to_string();
        question.push('\n');
        self.to.write_all(question.as_bytes()).await?;
        let reply = tokio::time::timeout(PATIENCE, reply).await;
        if let Some(waiting) = lock(&self.shared.waiting).as_mut() {
            waiting.remove(&id);
        }
        let mut reply = reply.map_err(|_| QmpError::Late)?.map_err(|_| QmpError::Closed)?;
        match reply.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => Err(QmpError::Refused(reply.get("error").map_or_else(|| short(&reply), short))),
        }
    }
}

/// Hands out replies and notes events, to the end of the connection.
async fn read_all(mut from: BufReader<OwnedReadHalf>, shared: Arc<Shared>) {
    loop {
        match line(&mut from).await {
            Ok(Some(message)) => shared.take(message),
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "QEMU's monitor connection ended");
                break;
            }
        }
    }
    // Whoever waits is told by the dropped senders.
    *lock(&shared.waiting) = None;
}

impl Shared {
    fn take(&self, message: Value) {
        if let Some(id) = message.get("id").and_then(Value::as_u64) {
            let waits = lock(&self.waiting).as_mut().and_then(|waiting| waiting.remove(&id));
            if let Some(waits) = waits {
                drop(waits.send(message));
            }
            return;
        }
        let mut ending = lock(&self.ending);
        match message.get("event").and_then(Value::as_str) {
            Some("GUEST_PANICKED") => ending.panicked = true,
            Some("SHUTDOWN") => {
                let reason = message.pointer("/data/reason").and_then(Value::as_str).unwrap_or("unknown");
                // The first is the cause; what follows comes from our own cleaning up.
                ending.shutdown.get_or_insert_with(|| reason.chars().take(64).collect());
            }
            _ => {}
        }
    }
}

/// One message; `None` at the end.
async fn line(from: &mut BufReader<OwnedReadHalf>) -> Result<Option<Value>, QmpError> {
    let mut line = Vec::new();
    let got = from.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    if got == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|_| QmpError::Strange(String::from_utf8_lossy(&line).chars().take(200).collect()))
}

fn short(value: &Value) -> String {
    let text = value.get("desc").and_then(Value::as_str).map_or_else(|| value.to_string(), str::to_owned);
    text.chars().take(200).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"major": 11}}, "capabilities": ["oob"]}}"#;

    /// A QEMU that says `greeting`, and to each question what `answer` makes of its command and id.
    async fn qmp(greeting: &str, answer: fn(&str, u64) -> String) -> Result<Qmp, QmpError> {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let greeting = format!("{greeting}\r\n");
        tokio::spawn(async move {
            let (from, mut to) = theirs.into_split();
            let mut from = BufReader::new(from);
            to.write_all(greeting.as_bytes()).await.ok();
            while let Ok(Some(question)) = line(&mut from).await {
                let id = question["id"].as_u64().expect("an id");
                let said = answer(question["execute"].as_str().expect("a command"), id);
                if to.write_all(said.as_bytes()).await.is_err() {
                    break;
                }
            }
        });
        Qmp::over(ours).await
    }

    #[tokio::test]
    async fn replies_and_events_are_told_apart() {
        let answer = |command: &str, id: u64| match command {
            "query-status" => format!(
                "{{\"event\": \"SHUTDOWN\", \"data\": {{\"guest\": true, \"reason\": \"guest-reset\"}}}}\n\
                 {{\"id\": 999, \"return\": {{}}}}\n\
                 {{\"event\": \"SHUTDOWN\", \"data\": {{\"reason\": \"host-qmp-quit\"}}}}\n\
                 {{\"event\": \"GUEST_PANICKED\"}}\n\
                 {{\"id\": {id}, \"return\": {{\"status\": \"running\", \"running\": true}}}}\n"
            ),
            "system_powerdown" => {
                format!("{{\"id\": {id}, \"error\": {{\"class\": \"X\", \"desc\": \"no button\"}}}}\n")
            }
            _ => format!("{{\"id\": {id}, \"return\": {{}}}}\n"),
        };
        let mut qmp = qmp(GREETING, answer).await.expect("it speaks QMP");
        assert_eq!(qmp.status().await.expect("an answer"), RunState::Running);
        let ending = Ending { shutdown: Some("guest-reset".into()), panicked: true };
        assert_eq!(qmp.ending(), ending, "the first cause stays");
        let refused = qmp.power_down().await.expect_err("refused").to_string();
        assert!(refused.contains("no button"), "{refused}");
        assert!(qmp.quit().await.is_ok());
    }

    #[tokio::test]
    async fn what_is_no_qemu_is_refused() {
        for greeting in ["{}", "SSH-2.0", "[]", "\u{fffd}"] {
            assert!(
                matches!(qmp(greeting, |_, _| String::new()).await, Err(QmpError::Strange(_))),
                "{greeting}"
            );
        }
        let endless = "x".repeat(200_000);
        assert!(matches!(qmp(&endless, |_, _| String::new()).await, Err(QmpError::Strange(_))));
    }

    #[tokio::test]
    async fn a_monitor_that_breaks_off_leaves_nobody_waiting() {
        let answer = |command: &str, id: u64| match command {
            "qmp_capabilities" => format!("{{\"id\": {id}, \"return\": {{}}}}\n"),
            _ => "nonsense\n".to_owned(),
        };
        let mut qmp = qmp(GREETING, answer).await.expect("it speaks QMP");
        assert!(matches!(qmp.status().await, Err(QmpError::Closed)));
        assert!(matches!(qmp.status().await, Err(QmpError::Closed)), "and for ever");
    }
}
