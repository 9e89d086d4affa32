//! What runs a guest: a child process, or a VM. Both are started, waited for and ended alike.

use std::time::Duration;

use cocoon_simulated_tee::{Emulator, Serving, SimulatedRoot};

use crate::{
    HostError,
    guest_client::{GuestClient, Reach},
    life::Life,
    process::{COMMAND_LINE, GuestBinary, GuestProcess},
    run_folder::RunFolder,
    vm::{VmGuest, VmLauncher},
};

/// How long a VM may take to end: answers in progress get their receipts, and emulated machines are slow.
const GRACE: Duration = Duration::from_secs(15);

/// Starts guests of one kind, again and again.
pub(crate) enum Launcher {
    Process { binary: GuestBinary, folder: RunFolder, root: SimulatedRoot, life: Life },
    Vm(Box<VmLauncher>),
}

impl Launcher {
    /// Starts one. It may not answer yet.
    pub(crate) async fn start(&self) -> Result<Machine, HostError> {
        match self {
            Self::Process { binary, folder, root, life } => {
                let emulator = Emulator::launch(root, &binary.bytes, COMMAND_LINE);
                let tee = emulator.serve(folder.tee_listener()?);
                let process = GuestProcess::start(binary, &folder.path, life.clone())?;
                let reach = Reach::Socket(folder.guest_socket());
                Ok(Machine { reach, kind: Kind::Process { process, _tee: tee } })
            }
            Self::Vm(launcher) => {
                let (guest, reach) = launcher.start().await?;
                Ok(Machine { reach, kind: Kind::Vm(guest) })
            }
        }
    }
}

/// A guest that was started. Dropping it kills it.
pub(crate) struct Machine {
    reach: Reach,
    kind: Kind,
}

enum Kind {
    Process { process: GuestProcess, _tee: Serving },
    Vm(VmGuest),
}

impl Machine {
    /// Where it is spoken to.
    pub(crate) fn reach(&self) -> Reach {
        self.reach.clone()
    }

    /// The process that runs it, while it lives.
    pub(crate) fn id(&self) -> Option<u32> {
        match &self.kind {
            Kind::Process { process, .. } => process.id(),
            Kind::Vm(guest) => guest.vm.id(),
        }
    }

    /// Returns when it has ended, with the words an operator needs.
    pub(crate) async fn ended(&mut self) -> String {
        match &mut self.kind {
            Kind::Process { process, .. } => process.ended().await,
            Kind::Vm(guest) => guest.ended().await,
        }
    }

    /// Ends it in order, and returns when it is gone.
    pub(crate) async fn end(self) {
        match self.kind {
            Kind::Process { process, .. } => process.end().await,
            Kind::Vm(mut guest) => {
                // PID 1 has no power button: the guest is asked, and powers its machine off.
                if GuestClient::new(self.reach).shutdown().await.is_ok() {
                    drop(tokio::time::timeout(GRACE, guest.vm.ended()).await);
                }
                drop(guest.vm.end(Duration::ZERO).await);
            }
        }
    }
}
