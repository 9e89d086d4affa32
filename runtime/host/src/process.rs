//! The guest as a child process: exactly the bytes that were measured, and nothing from our environment.

use std::{
    collections::VecDeque,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, ChildStdin, Command},
};

use crate::{HostError, life::Life};

/// The guest's whole command line. It is measured, so it is never anything else.
pub(crate) use cocoon_image::COMMAND_LINE;
/// The largest guest binary that is launched, in bytes.
pub const MAX_GUEST_BINARY: u64 = 256 * 1024 * 1024;
/// Names inside the run folder, which the guest knows.
pub(crate) const CONFIGURATION: &str = "config.toml";
pub(crate) const MODEL: &str = "model.gguf";
pub(crate) const TEE_SOCKET: &str = "tee.sock";
pub(crate) const GUEST_SOCKET: &str = "guest.sock";
/// What the guest said, for the operator.
pub(crate) const LOG: &str = "guest.log";

/// How many of the guest's last lines an error quotes.
const LAST_LINES: usize = 12;
/// Longer lines are cut in two.
const MAX_LINE: u64 = 4096;
/// The log starts over when it is larger than this, in bytes.
const MAX_LOG: u64 = 16 * 1024 * 1024;
/// How long a guest may take to end by itself before it is killed.
const END_GRACE: Duration = Duration::from_secs(2);

/// The guest's binary in memory: what is measured is what is executed, whatever happens to the file meanwhile.
#[derive(Clone)]
pub(crate) struct GuestBinary {
    pub(crate) bytes: Arc<Vec<u8>>,
}

impl GuestBinary {
    pub(crate) fn read(path: &Path) -> Result<Self, HostError> {
        let refused = |why: String| HostError::GuestBinary { path: path.to_path_buf(), why };
        let length = fs::metadata(path).map_err(|e| refused(e.to_string()))?.len();
        if length > MAX_GUEST_BINARY {
            return Err(refused(format!("{length} bytes; at most {MAX_GUEST_BINARY} are launched")));
        }
        let bytes = fs::read(path).map_err(|e| refused(e.to_string()))?;
        if !bytes.starts_with(b"\x7fELF") {
            return Err(refused("it is not an ELF program".to_owned()));
        }
        Ok(Self { bytes: Arc::new(bytes) })
    }

    /// A file in memory that nobody can change any more.
    fn sealed(&self) -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = memfd_create(COMMAND_LINE[0], flags)?;
        let mut file = fs::File::from(memory);
        io::Write::write_all(&mut file, &self.bytes)?;
        let memory = OwnedFd::from(file);
        fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(memory)
    }
}

/// A guest that was started. Dropping it kills it.
pub(crate) struct GuestProcess {
    child: Child,
    /// The guest ends when this pipe closes, so that it never outlives us.
    lifeline: Option<ChildStdin>,
    said: Said,
}

impl GuestProcess {
    /// Starts the guest in `folder`: argv is [`COMMAND_LINE`], the environment is empty.
    pub(crate) fn start(binary: &GuestBinary, folder: &Path, life: Life) -> Result<Self, HostError> {
        let failed = |source: io::Error| HostError::Launch { source };
        let program = binary.sealed().map_err(failed)?;
        let mut child = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0(COMMAND_LINE[0])
            .env_clear()
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let lifeline = child.stdin.take();
        let said = Said::new(folder.join(LOG), life);
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(said.clone().follow(stderr));
        }
        Ok(Self { child, lifeline, said })
    }

    /// The child's process id, while it lives.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Returns when the guest has ended, with the words an operator needs.
    pub(crate) async fn ended(&mut self) -> String {
        let status = self.child.wait().await;
        // Its last words may still be in the pipe.
        tokio::time::timeout(Duration::from_millis(200), self.said.finished()).await.ok();
        let how = match status {
            Ok(status) => describe(status),
            Err(error) => format!("could not be waited for: {error}"),
        };
        let last = self.said.last();
        if last.is_empty() { how } else { format!("{how}; it said: {last}") }
    }

    /// Ends the guest: closes the lifeline, waits a little, kills.
    pub(crate) async fn end(mut self) {
        drop(self.lifeline.take());
        if tokio::time::timeout(END_GRACE, self.child.wait()).await.is_err() {
            drop(self.child.kill().await);
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// What the guest wrote to its standard error: into the log file, into our own log, and the last of it kept.
#[derive(Clone)]
struct Said {
    file: PathBuf,
    lines: Arc<Mutex<VecDeque<String>>>,
    done: Arc<tokio::sync::Semaphore>,
    life: Life,
}

impl Said {
    fn new(file: PathBuf, life: Life) -> Self {
        Self { file, lines: Arc::default(), done: Arc::new(tokio::sync::Semaphore::new(0)), life }
    }

    async fn follow(self, stderr: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(stderr);
        loop {
            let mut line = Vec::new();
            match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => break,
                Ok(_) => self.note(String::from_utf8_lossy(&line).trim_end()),
            }
        }
        self.done.close();
    }

    fn note(&self, line: &str) {
        self.life.line(line);
        if let Err(error) = self.append(line) {
            tracing::warn!(%error, file = %self.file.display(), "the guest's log cannot be written");
        }
        let mut lines = self.lines.lock().expect("no holder of this lock panics");
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    fn append(&self, line: &str) -> io::Result<()> {
        let full = fs::metadata(&self.file).is_ok_and(|meta| meta.len() > MAX_LOG);
        let mut options = fs::OpenOptions::new();
        let file = if full { options.write(true).truncate(true) } else { options.append(true) };
        io::Write::write_all(&mut file.create(true).open(&self.file)?, format!("{line}\n").as_bytes())
    }

    async fn finished(&self) {
        // Closed when the pipe has run dry; nobody ever adds a permit.
        drop(self.done.acquire().await);
    }

    fn last(&self) -> String {
        let lines = self.lines.lock().expect("no holder of this lock panics");
        lines.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(program: &str, folder: &Path) -> GuestProcess {
        let binary = GuestBinary::read(Path::new(program)).expect("a program of this system");
        GuestProcess::start(&binary, folder, Life::new(Arc::new(|_: &str| {}))).expect("it starts")
    }

    #[tokio::test]
    async fn the_guest_gets_its_command_line_its_folder_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let guest = start("/bin/cat", folder.path()); // lives as long as its standard input
        let of = |name: &str| PathBuf::from(format!("/proc/{}/{name}", guest.id().expect("it lives")));
        // The new program is there when its command line is: before, it is this test's own, then none.
        let own = fs::read("/proc/self/cmdline").expect("we live");
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while [own.as_slice(), b""].contains(&fs::read(of("cmdline")).expect("it lives").as_slice()) {
            assert!(std::time::Instant::now() < deadline, "the program does not appear");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(fs::read(of("cmdline")).expect("it lives"), b"cocoon-guest\0");
        assert_eq!(fs::read(of("environ")).expect("it lives"), b"");
        let here = fs::canonicalize(folder.path()).expect("it is there");
        assert_eq!(fs::read_link(of("cwd")).expect("it lives"), here);
        assert_eq!(fs::read(of("exe")).expect("it lives"), fs::read("/bin/cat").expect("a file"));
        guest.end().await;
    }

    #[tokio::test]
    async fn the_program_in_memory_cannot_be_changed() {
        let binary = GuestBinary::read(Path::new("/bin/cat")).expect("a program of this system");
        let mut file = fs::File::from(binary.sealed().expect("memory"));
        assert!(io::Write::write_all(&mut file, b"x").is_err());
        assert!(file.set_len(0).is_err());
    }

    #[tokio::test]
    async fn how_a_guest_ended_is_said() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        assert_eq!(start("/bin/false", folder.path()).ended().await, "ended with code 1");
        let mut guest = start("/bin/cat", folder.path());
        let id = rustix::process::Pid::from_raw(guest.id().expect("it lives").cast_signed());
        rustix::process::kill_process(id.expect("not zero"), rustix::process::Signal::KILL).expect("ours");
        assert_eq!(guest.ended().await, "was ended by signal 9");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let missing = GuestBinary::read(&folder.path().join("none")).err().expect("refused").to_string();
        assert!(missing.contains("none") && missing.contains("cargo build"), "{missing}");
        let text = folder.path().join("text");
        fs::write(&text, "#!/bin/sh").expect("writable");
        let refused = GuestBinary::read(&text).err().expect("refused").to_string();
        assert!(refused.contains("not an ELF program"), "{refused}");
    }
}
