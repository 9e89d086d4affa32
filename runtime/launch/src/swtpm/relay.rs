//! TPM commands between QEMU and swtpm, one at a time; ours in between.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::PcrError;

/// A command's or response's header: tag, length, code (TPM 2.0 Library, part 1, 18.2).
pub(super) const HEADER: usize = 10;
/// Longest command or response that is relayed, in bytes: swtpm's buffer is smaller.
const MAX_MESSAGE: usize = 8192;
/// How long the TPM may take: making an RSA key is slow, more is a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// The data channel.
#[derive(Debug)]
pub(super) struct Relay {
    /// Whoever holds this has the TPM for one command.
    tpm: Mutex<Tpm>,
    /// QEMU has opened its side.
    begun: AtomicBool,
    /// Connections that end with the proxy.
    to_end: Mutex<Vec<UnixStream>>,
}

/// The way to swtpm; `None` once a command has failed on it: a response that comes late would be taken for the next one's.
#[derive(Debug)]
pub(super) struct Tpm(Option<UnixStream>);

impl Relay {
    /// A relay to `swtpm`.
    pub(super) fn new(swtpm: UnixStream) -> io::Result<Self> {
        swtpm.set_read_timeout(Some(PATIENCE))?;
        let to_end = Mutex::new(vec![swtpm.try_clone()?]);
        Ok(Self { tpm: Mutex::new(Tpm(Some(swtpm))), begun: AtomicBool::new(false), to_end })
    }

    /// Relays for `qemu` from now on. False if it did already: a TPM has one user.
    pub(super) fn begin(self: &Arc<Self>, qemu: UnixStream) -> bool {
        if self.begun.swap(true, Ordering::Relaxed) {
            return false;
        }
        self.end_with(&qemu);
        let relay = Arc::clone(self);
        std::thread::spawn(move || {
            if let Err(error) = relay.run(&qemu) {
                tracing::debug!(%error, "the guest's TPM connection ended");
            }
            drop(qemu.shutdown(Shutdown::Both));
        });
        true
    }

    /// Ends this connection when the proxy ends.
    pub(super) fn end_with(&self, stream: &UnixStream) {
        if let Ok(copy) = stream.try_clone() {
            lock(&self.to_end).push(copy);
        }
    }

    /// Ends all connections, so that no thread waits on one.
    pub(super) fn close(&self) {
        for stream in lock(&self.to_end).drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Has the TPM to itself for as long as `ask` runs.
    pub(super) fn with_tpm<T>(
        &self,
        ask: impl FnOnce(&mut Tpm) -> Result<T, PcrError>,
    ) -> Result<T, PcrError> {
        if !self.begun.load(Ordering::Relaxed) {
            return Err(PcrError::NotStarted);
        }
        ask(&mut lock(&self.tpm))
    }

    fn run(&self, mut qemu: &UnixStream) -> io::Result<()> {
        while let Some(command) = receive(qemu)? {
            let response = lock(&self.tpm).ask(&command)?;
            qemu.write_all(&response)?;
        }
        Ok(())
    }
}

impl Tpm {
    /// Sends a command and waits for its response. After an error there is no other command.
    pub(super) fn ask(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = self.0.take().ok_or(io::ErrorKind::BrokenPipe)?;
        stream.write_all(command)?;
        let response = receive(&stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = Some(stream);
        Ok(response)
    }
}

/// One message, whole; `None` at the end.
fn receive(mut stream: &UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut message = vec![0; HEADER];
    match stream.read(&mut message)? {
        0 => return Ok(None),
        some => stream.read_exact(message.get_mut(some..).unwrap_or_default())?,
    }
    let length = message.get(2..6).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    let length = length.and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    if !(HEADER..=MAX_MESSAGE).contains(&length) {
        return Err(io::Error::other(format!("a TPM message of {length} bytes")));
    }
    message.resize(length, 0);
    stream.read_exact(message.get_mut(HEADER..).unwrap_or_default())?;
    Ok(Some(message))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_that_comes_late_answers_no_other_command() {
        let (mut swtpm, ours) = UnixStream::pair().expect("sockets");
        ours.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
        let mut tpm = Tpm(Some(ours));
        let message = |last: u8| [0x80, 1, 0, 0, 0, 11, 0, 0, 0, 0, last];
        swtpm.write_all(&message(1)).expect("room");
        assert_eq!(tpm.ask(&message(0)).expect("answered"), message(1));
        assert!(tpm.ask(&message(0)).is_err(), "nothing comes in time");
        swtpm.write_all(&message(2)).unwrap_or_default(); // late; the connection may be closed
        assert!(tpm.ask(&message(0)).is_err(), "it is nobody's response");
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_memory_is_taken() {
        for length in [0, 9, 8193, u32::MAX] {
            let (mut theirs, ours) = UnixStream::pair().expect("sockets");
            let mut bytes = [0u8; 12];
            bytes[2..6].copy_from_slice(&length.to_be_bytes());
            theirs.write_all(&bytes).expect("room");
            drop(theirs);
            assert!(receive(&ours).is_err(), "{length}");
        }
        let (mut theirs, ours) = UnixStream::pair().expect("sockets");
        theirs.write_all(&[0x80, 1, 0, 0, 0, 11, 0, 0, 1, 0x7e, 7, 0x80]).expect("room");
        drop(theirs);
        assert_eq!(receive(&ours).expect("whole"), Some(vec![0x80, 1, 0, 0, 0, 11, 0, 0, 1, 0x7e, 7]));
        assert!(receive(&ours).is_err(), "cut short");
        assert_eq!(receive(&ours).expect("the end"), None);
    }
}
