//! The simulated TEE of a development network, reached over a virtio-serial port.
//!
//! ```text
//! request: u8 operation ‖ u32 length, little-endian ‖ payload
//! reply:   u8 status    ‖ u32 length, little-endian ‖ payload (the reason, where status is not 0)
//! ```

use crate::failure::{Explain, Failure, Outcome};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

const EXTEND: u8 = 1;
const BOOT: u8 = 4;
/// Most bytes of a reply.
const MAX_REPLY: usize = 1024 * 1024;
/// How long the emulator may be silent.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
const REMEDY: &str = "the launcher must serve the simulated TEE on the port cocoon.tee";

/// A connection to the emulator. The port can be open once: it must be dropped before the service starts.
pub(crate) struct Emulator<S>(S);

impl Emulator<File> {
    /// Opens the port's device.
    pub(crate) fn open(port: &Path) -> Outcome<Self> {
        File::options().read(true).write(true).open(port).map(Self).explain(port.display(), REMEDY)
    }
}

impl<S: AsFd + Read + Write> Emulator<S> {
    /// Hands over the firmware's event log, which the emulator holds against the TPM; gives it back as a TD's.
    pub(crate) fn boot(&mut self, log: &[u8]) -> Outcome<Vec<u8>> {
        self.ask(BOOT, log)
    }

    /// Extends RTMR\[index\] with a digest.
    pub(crate) fn extend(&mut self, index: u8, digest: &[u8; 48]) -> Outcome {
        self.ask(EXTEND, &[&[index], digest.as_slice()].concat()).map(drop)
    }

    fn ask(&mut self, operation: u8, payload: &[u8]) -> Outcome<Vec<u8>> {
        let length = u32::try_from(payload.len()).expect("requests have named limits");
        let request = [&[operation], length.to_le_bytes().as_slice(), payload].concat();
        self.wait(PollFlags::OUT)?;
        self.0.write_all(&request).explain("the simulated TEE takes no request", REMEDY)?;
        let head = self.read(5)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > MAX_REPLY {
            return Err(Failure::new(format!(
                "the simulated TEE replies with {length} bytes, more than {MAX_REPLY}; {REMEDY}"
            )));
        }
        let reply = self.read(length)?;
        match head[0] {
            0 => Ok(reply),
            _ => Err(Failure::new(format!("the simulated TEE refused: {}", String::from_utf8_lossy(&reply)))),
        }
    }

    /// Exactly `count` bytes; memory is taken as they come.
    fn read(&mut self, count: usize) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        while bytes.len() < count {
            self.wait(PollFlags::IN)?;
            let room = chunk.len().min(count - bytes.len());
            match self.0.read(&mut chunk[..room]).explain("the simulated TEE cannot be read", REMEDY)? {
                0 => return Err(Failure::new(format!("the simulated TEE is gone; {REMEDY}"))),
                read => bytes.extend_from_slice(&chunk[..read]),
            }
        }
        Ok(bytes)
    }

    fn wait(&self, flags: PollFlags) -> Outcome {
        let mut ready = [PollFd::new(&self.0, flags)];
        match poll(&mut ready, Some(&PATIENCE)).explain("the simulated TEE cannot be waited for", REMEDY)? {
            0 => Err(Failure::new(format!("the simulated TEE is silent; {REMEDY}"))),
            _ => Ok(()), // ready, or gone: the call that follows tells
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// What is asked, and what comes of it, with an emulator that answers so.
    fn exchange<T>(reply: &[u8], ask: impl FnOnce(&mut Emulator<UnixStream>) -> T) -> (Vec<u8>, T) {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(reply).expect("it is kept");
        theirs.shutdown(std::net::Shutdown::Write).expect("it is open");
        let mut emulator = Emulator(ours);
        let result = ask(&mut emulator);
        drop(emulator);
        let mut request = Vec::new();
        let _ = theirs.read_to_end(&mut request); // a reset comes after what was sent
        (request, result)
    }

    #[test]
    fn requests_and_replies_have_the_documented_bytes() {
        let (request, result) = exchange(&[0, 0, 0, 0, 0], |emulator| emulator.extend(3, &[7; 48]));
        assert_eq!((request, result), ([&[1, 49, 0, 0, 0, 3], [7; 48].as_slice()].concat(), Ok(())));
        let (request, result) = exchange(&[0, 2, 0, 0, 0, 8, 9], |emulator| emulator.boot(b"log"));
        assert_eq!((request, result), (b"\x04\x03\0\0\0log".to_vec(), Ok(vec![8, 9])));
    }

    #[test]
    fn a_refusal_a_cut_and_a_flood_are_errors() {
        for (reply, word) in [
            (&[1, 3, 0, 0, 0, b'w', b'h', b'y'][..], "refused: why"),
            (&[0, 9, 0, 0, 0, 1], "gone"),
            (&[], "gone"),
            (&[0, 1, 0, 16, 0], "more than"),
        ] {
            let (_, result) = exchange(reply, |emulator| emulator.boot(b""));
            let error = result.expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
