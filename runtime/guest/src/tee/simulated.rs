//! The client of an emulated TDX module: over a unix socket beside a process, over a virtio-serial port in a VM.
//!
//! | request | bytes | reply | bytes |
//! | --- | --- | --- | --- |
//! | operation | 1: 1 EXTEND, 2 QUOTE, 3 COLLATERAL | status | 1: 0 done, 1 refused |
//! | length | 4, little-endian | length | 4, little-endian |
//! | payload | register ‖ digest; report data; nothing | payload | nothing; quote; JSON; or the reason |

use super::{Quote, RUNTIME_REGISTER, Tee, TeeError, real_tee};
use cocoon_attestation::Endorsement;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const EXTEND: u8 = 1;
const QUOTE: u8 = 2;
const COLLATERAL: u8 = 3;
const DONE: u8 = 0;
/// Most bytes of a reply.
const MAX_REPLY: usize = 1024 * 1024;
/// How long the emulator may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// An emulated TDX module. Its quotes are signed under a root made for a development network, which no verifier knows
/// by itself.
pub struct Simulated {
    path: PathBuf,
    stream: Mutex<Box<dyn Channel>>,
}

/// Bytes to the emulator and back.
trait Channel: Read + Write + Send {}
impl<T: Read + Write + Send> Channel for T {}

impl Simulated {
    /// Connects to the emulator's socket, or opens its port. A port has no time limits: it ends with the VM.
    ///
    /// # Errors
    /// [`TeeError::RealHardware`] on a machine that has a real TEE, [`TeeError::Unreachable`].
    pub fn connect(path: &Path) -> Result<Self, TeeError> {
        if let Some(device) = real_tee(Path::new("/")) {
            return Err(TeeError::RealHardware(device));
        }
        let unreachable = |source| TeeError::Unreachable { path: path.to_path_buf(), source };
        let stream = channel(path).map_err(unreachable)?;
        Ok(Self { path: path.to_path_buf(), stream: Mutex::new(stream) })
    }

    fn ask(&self, operation: u8, payload: &[u8]) -> Result<Vec<u8>, TeeError> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, reply) =
            exchange(stream.as_mut(), operation, payload).map_err(|source| match source.kind() {
                io::ErrorKind::InvalidData => TeeError::Malformed(source.to_string()),
                _ => TeeError::Unreachable { path: self.path.clone(), source },
            })?;
        match status {
            DONE => Ok(reply),
            _ => Err(TeeError::Refused(String::from_utf8_lossy(&reply).into_owned())),
        }
    }
}

fn channel(path: &Path) -> io::Result<Box<dyn Channel>> {
    if std::fs::metadata(path)?.file_type().is_char_device() {
        return Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?));
    }
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(Box::new(stream))
}

fn exchange(stream: &mut dyn Channel, operation: u8, payload: &[u8]) -> io::Result<(u8, Vec<u8>)> {
    let length = u32::try_from(payload.len()).expect("requests are short");
    stream.write_all(&[&[operation], length.to_le_bytes().as_slice(), payload].concat())?;
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > MAX_REPLY {
        let text = format!("a reply of {length} bytes, more than {MAX_REPLY}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply)?;
    Ok((head[0], reply))
}

impl Tee for Simulated {
    fn name(&self) -> &'static str {
        "SIMULATED"
    }

    fn has_registers(&self) -> bool {
        true
    }

    fn extend(&self, digest: &[u8; 48]) -> Result<(), TeeError> {
        self.ask(EXTEND, &[&[RUNTIME_REGISTER], digest.as_slice()].concat()).map(drop)
    }

    fn quote(&self, report_data: &[u8; 64]) -> Result<Quote, TeeError> {
        let quote = self.ask(QUOTE, report_data)?;
        let collateral = self.ask(COLLATERAL, &[])?;
        let collateral = cocoon_attestation::canonical_collateral(&collateral)
            .map_err(|error| TeeError::Malformed(error.to_string()))?;
        Ok(Quote {
            tee: cocoon_attestation::Tee::Tdx,
            quote,
            endorsements: vec![Endorsement::IntelCollateral(collateral)],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answering(reply: Vec<u8>) -> (Simulated, std::thread::JoinHandle<()>) {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let thread = std::thread::spawn(move || {
            let mut request = [0; 5 + 49];
            theirs.read_exact(&mut request).expect("a request");
            theirs.write_all(&reply).expect("it is read");
        });
        (Simulated { path: "pair".into(), stream: Mutex::new(Box::new(ours)) }, thread)
    }

    #[test]
    fn a_refusal_carries_its_reason() {
        let (tee, thread) = answering([&[1, 3, 0, 0, 0], b"why".as_slice()].concat());
        let error = tee.extend(&[0; 48]).expect_err("refused");
        assert_eq!(error.to_string(), "the TEE refused: why");
        thread.join().expect("it ends");
    }

    #[test]
    fn a_reply_beyond_the_limit_is_refused_at_its_length() {
        let (tee, thread) = answering(vec![0, 0xff, 0xff, 0xff, 0xff]);
        let error = tee.extend(&[0; 48]).expect_err("too long");
        assert!(matches!(error, TeeError::Malformed(_)), "{error}");
        thread.join().expect("it ends");
    }

    #[test]
    fn a_reply_that_ends_too_early_is_an_error() {
        let (tee, thread) = answering(vec![0, 9, 0, 0, 0, 1]);
        let error = tee.extend(&[0; 48]).expect_err("cut");
        assert!(matches!(error, TeeError::Unreachable { .. }), "{error}");
        thread.join().expect("it ends");
    }
}
