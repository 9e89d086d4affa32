//! QEMU as a process: started from a plan, followed, and ended in order.
//!
//! How nothing is left behind:
//!
//! | this process | QEMU |
//! | --- | --- |
//! | ends the guest ([`Vm::end`]) | power button, then `quit`, then SIGKILL |
//! | drops the guest, or panics | SIGKILL |
//! | is killed, even by SIGKILL | SIGKILL by the kernel: `-run-with exit-with-parent=on` sets PR_SET_PDEATHSIG, and the thread that is QEMU's parent lives as long as this process |
//! | and between QEMU's start and that call | the next start finds its id and its time of start in the run folder |

mod console;
mod limit;
mod lines;
mod words;

use std::{
    io,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::process::{Child, Command};

use crate::{
    folder::{QEMU, RunFolder},
    plan::{LaunchPlan, PlanError, files},
    program::Program,
    qmp::{Ending, Qmp, QmpError, RunState},
    spawner,
};
use console::Console;
use lines::Follower;

pub use console::MAX_CONSOLE;
pub use limit::{LINES_A_SECOND, LINES_AT_ONCE};
pub use lines::{LineSink, MAX_LINE};
pub use words::Ended;

/// Between tries to reach the monitor.
const POLL: Duration = Duration::from_millis(20);
/// How long QEMU may take to open its monitor: it maps the guest's memory first.
const MONITOR: Duration = Duration::from_secs(60);
/// How long QEMU may take to end after `quit`.
const QUIT: Duration = Duration::from_secs(5);

/// Why a guest was not started.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The plan cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// QEMU cannot be executed.
    #[error("QEMU {program} cannot be started: {source}; install it, or name it in host.toml")]
    Program {
        /// The program.
        program: std::path::PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The run folder.
    #[error("the run folder cannot be used for the guest: {0}; it must be on a writable disk")]
    Folder(io::Error),
    /// QEMU ended instead.
    #[error("the guest did not start: {0}")]
    Ended(Ended),
    /// QEMU runs and its monitor does not answer.
    #[error("QEMU runs, but cannot be spoken to: {0}")]
    Monitor(QmpError),
}

/// A running guest. Dropping it kills it.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    qmp: Qmp,
    said: Follower,
    _guest_lines: Follower,
    console: Option<Follower>,
    started: Instant,
}

impl Vm {
    /// Starts the guest and returns when QEMU's monitor answers. Each of the guest's lines goes to `sink`. Whoever
    /// serves the sockets that the plan's kind needs ([`files::TEE`], [`files::TPM`]) listens before.
    ///
    /// # Errors
    /// [`VmError`]; nothing is left running.
    pub async fn start(
        qemu: &Program,
        plan: &LaunchPlan,
        folder: &RunFolder,
        sink: LineSink,
    ) -> Result<Self, VmError> {
        let arguments = plan.arguments()?;
        let listener = folder.listen(files::LOG).map_err(VmError::Folder)?;
        let guest_lines = Follower::accept_one(listener, sink).map_err(VmError::Folder)?;
        let console =
            if plan.keeps_console() { Some(keep_console(folder).map_err(VmError::Folder)?) } else { None };
        let mut command = Command::from(qemu.command());
        command
            .args(arguments)
            .current_dir(folder.path())
            // An interrupt of the terminal is for the host, which ends its guests in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let failed = |source| VmError::Program { program: qemu.file().to_path_buf(), source };
        let mut child = spawner::spawn(command).await.map_err(failed)?;
        let said = child.stderr.take().expect("it is piped");
        let said = Follower::read(said, Arc::new(|line: &str| tracing::info!(target: "qemu", "{line}")));
        if let Some(pid) = child.id() {
            folder.note_process(QEMU, pid).map_err(VmError::Folder)?;
        }
        let started = Instant::now();
        match reach(&mut child, folder).await {
            Ok(qmp) => Ok(Self { child, qmp, said, _guest_lines: guest_lines, console, started }),
            Err(Unreached::Ended(status)) => Err(VmError::Ended(how(status, Ending::default(), &said).await)),
            Err(Unreached::Monitor(error)) => {
                drop(child.kill().await);
                Err(VmError::Monitor(error))
            }
        }
    }

    /// QEMU's process id, while it lives.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// How long it has run.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether it runs, as QEMU says.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn status(&mut self) -> Result<RunState, QmpError> {
        self.qmp.status().await
    }

    /// Returns when the guest has ended, with the reason.
    pub async fn ended(&mut self) -> Ended {
        let status = self.child.wait().await;
        if let Some(console) = &self.console {
            console.finished().await;
        }
        how(status, self.qmp.ending(), &self.said).await
    }

    /// Ends the guest: the power button, and when it takes longer than `grace`, `quit`; at last SIGKILL.
    pub async fn end(mut self, grace: Duration) -> Ended {
        let pressed = !grace.is_zero() && self.qmp.power_down().await.is_ok();
        if pressed && let Ok(ended) = tokio::time::timeout(grace, self.ended()).await {
            return ended;
        }
        // QEMU may close the monitor before it has answered.
        drop(self.qmp.quit().await);
        if let Ok(ended) = tokio::time::timeout(QUIT, self.ended()).await {
            return ended;
        }
        drop(self.child.start_kill());
        self.ended().await
    }
}

/// Memory of a process that is really there, in bytes (VmRSS of proc_pid_status(5)): of QEMU, with its guest's. `None` if it
/// ended.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

enum Unreached {
    Ended(io::Result<ExitStatus>),
    Monitor(QmpError),
}

async fn reach(child: &mut Child, folder: &RunFolder) -> Result<Qmp, Unreached> {
    let connected = async {
        loop {
            match Qmp::connect(&folder.short(files::QMP)).await {
                Err(QmpError::Io(_)) => tokio::time::sleep(POLL).await,
                done => break done,
            }
        }
    };
    tokio::select! {
        biased;
        status = child.wait() => Err(Unreached::Ended(status)),
        reached = tokio::time::timeout(MONITOR, connected) => {
            let reached = reached.unwrap_or(Err(QmpError::Late));
            match reached {
                Ok(qmp) => Ok(qmp),
                // It closed because QEMU ends: the exit says more.
                Err(error) => match tokio::time::timeout(QUIT, child.wait()).await {
                    Ok(status) => Err(Unreached::Ended(status)),
                    Err(_) => Err(Unreached::Monitor(error)),
                },
            }
        }
    }
}

fn keep_console(folder: &RunFolder) -> io::Result<Follower> {
    let listener = folder.listen(files::CONSOLE_SOCKET)?;
    Follower::keep_one(listener, Console::begin(folder.path(), MAX_CONSOLE)?)
}

async fn how(status: io::Result<ExitStatus>, ending: Ending, said: &Follower) -> Ended {
    said.finished().await;
    Ended::new(status.ok(), ending, said.last())
}
