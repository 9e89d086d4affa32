//! Serving an emulator on a unix socket. See the crate's page for the wire.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cocoon_attestation::UnixTime;

use crate::emulator::Emulator;

/// The largest request payload, in bytes.
pub const MAX_REQUEST: u32 = 256 * 1024;
/// The largest reply payload, in bytes.
pub const MAX_REPLY: u32 = 1024 * 1024;
/// Most connections at a time; one more is closed at once.
pub const MAX_CONNECTIONS: usize = 8;
/// How long the rest of a request, or the taking of a reply, may take once it has begun.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a guest can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Extend RTMR2 or RTMR3.
    Extend = 1,
    /// Quote with report data.
    Quote = 2,
    /// Fresh collateral.
    Collateral = 3,
    /// The firmware's log of a VM.
    Boot = 4,
}

/// How it came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done; the payload is the result.
    Ok = 0,
    /// Not done; the payload is the reason as text.
    Refused = 1,
}

/// An emulator being served. Ends with [`Serving::stop`] or when dropped.
pub struct Serving {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    /// The listening socket once more: shutting it down wakes the thread that accepts.
    listening: Option<UnixStream>,
}

struct Shared {
    emulator: Mutex<Emulator>,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    stopped: bool,
    next: u64,
    open: HashMap<u64, UnixStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Emulator {
    /// Serves this emulator until the handle is dropped. One guest is expected; up to eight connections are served.
    pub fn serve(self, listener: UnixListener) -> Serving {
        let listening = listener.try_clone().ok().map(|listener| UnixStream::from(OwnedFd::from(listener)));
        let shared =
            Arc::new(Shared { emulator: Mutex::new(self), connections: Mutex::new(Connections::default()) });
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&shared, &listener)
        });
        Serving { shared, accepting: Some(accepting), listening }
    }
}

impl Serving {
    /// What the registers hold now.
    pub fn registers(&self) -> cocoon_attestation::Measurements {
        lock(&self.shared.emulator).registers().clone()
    }

    /// Closes all connections and waits until nothing runs any more.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        let threads = {
            let mut connections = lock(&self.shared.connections);
            connections.stopped = true;
            for stream in connections.open.values() {
                let _ = stream.shutdown(Shutdown::Both); // already gone is as good
            }
            std::mem::take(&mut connections.threads)
        };
        // Without a second descriptor the thread stays until the process ends, and serves nobody.
        if self.listening.take().is_some_and(|socket| socket.shutdown(Shutdown::Both).is_ok()) {
            let _ = accepting.join(); // it does not panic
        }
        for thread in threads {
            let _ = thread.join(); // nor do these
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end();
    }
}

/// A poisoned lock means that another thread panicked between two whole changes: the content is still sound.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    loop {
        let accepted = listener.accept();
        let mut connections = lock(&shared.connections);
        if connections.stopped {
            return;
        }
        let Ok((stream, _)) = accepted else {
            drop(connections);
            thread::sleep(Duration::from_millis(50)); // out of file descriptors: others must end first
            continue;
        };
        connections.threads.retain(|thread| !thread.is_finished());
        let Ok(kept) = stream.try_clone() else { continue };
        if connections.open.len() >= MAX_CONNECTIONS {
            continue; // closed by being dropped
        }
        let id = connections.next;
        connections.next += 1;
        connections.open.insert(id, kept);
        let shared = Arc::clone(shared);
        connections.threads.push(thread::spawn(move || {
            let _ = converse(&shared, &stream); // the guest went away, or broke the rules: either way this ends
            lock(&shared.connections).open.remove(&id);
        }));
    }
}

fn converse(shared: &Shared, mut stream: &UnixStream) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    loop {
        let mut op = [0];
        stream.set_read_timeout(None)?; // a guest may be silent for days
        stream.read_exact(&mut op)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > MAX_REQUEST {
            return reply(stream, Err("request is too long")); // and no more: its end cannot be found
        }
        let mut payload = Vec::new();
        stream.take(length.into()).read_to_end(&mut payload)?;
        if payload.len() != length as usize {
            return Ok(());
        }
        let answer = answer(&mut lock(&shared.emulator), op[0], &payload);
        reply(stream, answer.as_deref().map_err(String::as_str))?;
    }
}

fn answer(emulator: &mut Emulator, op: u8, payload: &[u8]) -> Result<Vec<u8>, String> {
    match op {
        op if op == Op::Boot as u8 => emulator.boot(payload),
        _ if !emulator.has_booted() => Err("this VM has not shown its firmware's log yet".to_owned()),
        op if op == Op::Extend as u8 => {
            let (index, digest) = payload.split_first().ok_or("extend: index is missing")?;
            let digest = digest.try_into().map_err(|_| "extend: digest must be 48 bytes")?;
            let extended = emulator.extend(*index, digest);
            extended.then(Vec::new).ok_or_else(|| "extend: only registers 2 and 3".to_owned())
        }
        op if op == Op::Quote as u8 => {
            let report_data = payload.try_into().map_err(|_| "quote: report data must be 64 bytes")?;
            Ok(emulator.quote(report_data))
        }
        op if op == Op::Collateral as u8 => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| "the clock is before 1970")?;
            Ok(emulator.collateral(UnixTime(now.as_secs())))
        }
        _ => Err("unknown operation".to_owned()),
    }
}

fn reply(mut stream: &UnixStream, answer: Result<&[u8], &str>) -> io::Result<()> {
    let (status, payload) = match answer {
        Ok(payload) => (Status::Ok, payload),
        Err(reason) => (Status::Refused, reason.as_bytes()),
    };
    let length = u32::try_from(payload.len()).ok().filter(|length| *length <= MAX_REPLY);
    let length = length.ok_or_else(|| io::Error::other("reply is too long"))?;
    let mut message = vec![status as u8];
    message.extend(length.to_le_bytes());
    message.extend(payload);
    stream.write_all(&message)
}
