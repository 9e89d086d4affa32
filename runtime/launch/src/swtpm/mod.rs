//! The software TPM of the emulation, and the proxy by which the host reads its registers.
//!
//! QEMU speaks to `swtpm` over a control socket and a data socket. [`TpmProxy`] stands between: control commands are
//! read by their table and passed on; the data socket that QEMU offers is kept, and TPM commands are relayed one at a
//! time. So the host asks TPM2_PCR_Read of its own between the guest's commands, and what it reads is what was
//! measured, never what the guest reports.
//!
//! ```text
//! QEMU ── tpm.sock: control ──► proxy ── socket pair ──► swtpm
//! QEMU ── its data socket ────► proxy ── ours ─────────► swtpm
//!                                 ▲ read_pcrs
//! ```
//!
//! Nothing is left behind: swtpm has no socket of its own on disk, and ends when its data connection closes, which the
//! kernel does however this process ends.

mod control;
mod pcrs;
mod process;
mod relay;

use std::{
    io,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

pub use pcrs::{PcrError, Pcrs};
use process::Process;
use relay::Relay;

use crate::{folder::RunFolder, plan::files, program::Program};

/// How long swtpm may take for a control command: it makes its seeds in the longest of them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the software TPM did not start.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// The program cannot be started.
    #[error("the software TPM {program} cannot be started: {source}; install swtpm, or name it in host.toml")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended at once, or does not speak swtpm's protocol.
    #[error("the software TPM does not answer: {source}; it said: {said}")]
    Mute {
        /// What went wrong.
        source: io::Error,
        /// The end of its log.
        said: String,
    },
    /// The run folder.
    #[error("the software TPM cannot be set up in the run folder: {0}; it must be on a writable disk")]
    Folder(io::Error),
}

/// A running software TPM with the proxy before it. Dropping it ends both.
#[derive(Debug)]
pub struct TpmProxy {
    socket: PathBuf,
    listener: Arc<UnixListener>,
    relay: Arc<Relay>,
    control: Option<JoinHandle<()>>,
    process: Process,
}

impl TpmProxy {
    /// Starts `swtpm` with a new TPM (version 2) whose state is in the run folder, and listens for QEMU. One QEMU is
    /// served.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn start(swtpm: &Program, folder: &RunFolder) -> Result<Self, TpmError> {
        let (ours, theirs) = UnixStream::pair().map_err(TpmError::Folder)?;
        ours.set_read_timeout(Some(PATIENCE)).map_err(TpmError::Folder)?;
        let process = Process::start(swtpm, folder, theirs)?;
        let listener = Arc::new(folder.listen(files::TPM).map_err(TpmError::Folder)?);
        let opened = control::open_data_socket(&ours).and_then(Relay::new);
        let relay = Arc::new(opened.map_err(|source| process.refused(source))?);
        let control = {
            let (listener, relay) = (Arc::clone(&listener), Arc::clone(&relay));
            std::thread::spawn(move || serve_one(&listener, &ours, &relay))
        };
        let socket = folder.path().join(files::TPM);
        Ok(Self { socket, listener, relay, control: Some(control), process })
    }

    /// What QEMU connects to; in its run folder it is [`files::TPM`].
    pub fn qemu_socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// The registers `pcrs` of the SHA-384 bank, all of the same moment. Blocks until the TPM has answered what the
    /// guest asked before. Only while the guest runs: QEMU tells the TPM to end with it.
    ///
    /// # Errors
    /// [`PcrError`]: the guest has not started the TPM yet, it is gone, or it has no such registers.
    pub fn read_pcrs(&self, pcrs: &[u8]) -> Result<Pcrs, PcrError> {
        self.relay.with_tpm(|tpm| pcrs::read(pcrs, |command| tpm.ask(command)))
    }

    /// The id of swtpm's process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for TpmProxy {
    fn drop(&mut self) {
        // Wakes whoever waits in accept, then whoever waits for swtpm or QEMU.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        self.process.end();
        self.relay.close();
        if let Some(control) = self.control.take() {
            drop(control.join());
        }
        drop(std::fs::remove_file(&self.socket));
    }
}

/// Serves the first that connects until it or swtpm goes.
fn serve_one(listener: &UnixListener, swtpm: &UnixStream, relay: &Arc<Relay>) {
    let Ok((qemu, _)) = listener.accept() else { return };
    relay.end_with(&qemu);
    if let Err(error) = control::serve(&qemu, swtpm, relay) {
        tracing::warn!(%error, "QEMU and the software TPM do not understand each other");
    }
    drop(qemu.shutdown(Shutdown::Both));
}
