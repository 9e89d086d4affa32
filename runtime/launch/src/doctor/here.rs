//! This machine, asked for what is not a file.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::machine::{Machine, Network, Qemu, Version};
use super::programs::Programs;
use crate::external::{self, Ended};
use crate::gpu::CcTool;
use crate::program::Program;

/// How long a program may take to say its version.
const LIMIT: Duration = Duration::from_secs(20);
/// No kernel's log ring is larger than what is read.
const MOST_LOG: usize = 16 << 20;

/// This machine.
pub struct ThisMachine {
    programs: Programs,
    modes: Box<dyn CcTool>,
    network: Network,
}

impl ThisMachine {
    /// This machine with the programs for guests, NVIDIA's admin tool, and what was learnt over the network before.
    pub fn new(programs: Programs, modes: Box<dyn CcTool>, network: Network) -> Self {
        Self { programs, modes, network }
    }

    fn run(&self, program: &Program, arguments: &[&str]) -> Result<String, String> {
        match external::run(program.command().args(arguments), LIMIT).map_err(|error| error.to_string())? {
            Ended { code: Some(0), said } => Ok(said),
            Ended { said, .. } => {
                let last = said.lines().last().unwrap_or("it said nothing");
                Err(format!("{} failed: {last}", program.file().display()))
            }
        }
    }
}

impl Machine for ThisMachine {
    fn qemu(&self) -> Result<Qemu, String> {
        let Programs { qemu, origin, .. } = &self.programs;
        let said = self.run(qemu, &["--version"])?;
        let nothing = || format!("{} --version names no version", qemu.file().display());
        let version = Version::find(&said).ok_or_else(nothing)?;
        let objects = self.run(qemu, &["-object", "help"])?;
        let objects = objects.lines().filter(|line| line.starts_with(' ')).map(|line| line.trim().to_owned());
        Ok(Qemu { source: origin.clone(), version, objects: objects.collect() })
    }

    fn swtpm(&self) -> Result<String, String> {
        let said = self.run(&self.programs.swtpm, &["--version"])?;
        Ok(said.lines().next().unwrap_or("swtpm").trim().to_owned())
    }

    fn open(&self, device: &str) -> io::Result<()> {
        OpenOptions::new().read(true).write(true).open(device).map(drop)
    }

    fn connect(&self, socket: &Path) -> io::Result<()> {
        UnixStream::connect(socket).map(drop)
    }

    fn listen(&self, address: SocketAddr) -> io::Result<()> {
        TcpListener::bind(address).map(drop)
    }

    fn free(&self, folder: &Path) -> io::Result<u64> {
        let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        let found = rustix::fs::statvfs(there)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// `/dev/kmsg` gives one record for each read, and EAGAIN at the end (Documentation/ABI/testing/dev-kmsg).
    fn kernel_log(&self) -> Option<String> {
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("a small flag");
        let mut file = OpenOptions::new().read(true).custom_flags(nonblocking).open("/dev/kmsg").ok()?;
        let (mut log, mut record) = (String::new(), [0_u8; 8192]);
        while log.len() < MOST_LOG {
            match file.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    let record = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                    // "priority,sequence,time,flags;text", continued by lines that begin with a space.
                    let text = record.split_once(';').map_or("", |(_, text)| text);
                    log.push_str(text.lines().next().unwrap_or_default());
                    log.push('\n');
                }
                // Overwritten while it was read: the next read goes on behind it.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(_) => break,
            }
        }
        log.contains("Linux version").then_some(log)
    }

    fn modes(&self) -> &dyn CcTool {
        self.modes.as_ref()
    }

    fn network(&self) -> &Network {
        &self.network
    }
}
