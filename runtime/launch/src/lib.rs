//! Turns a configuration of the host into a running confidential VM.
//!
//! - [`config`]: `host.toml`, the one file that an operator writes.
//! - [`plan`]: what is started, typed; and its command line for QEMU.
//! - [`preflight`]: what can be known to go wrong, said before anything is started.
//! - [`folder`]: a run folder that is one host's alone, without leftovers of a killed run.
//! - [`vm`]: QEMU as a process, with [`qmp`] to talk to it.
//! - [`swtpm`]: the software TPM of the emulation, and the proxy through which the host reads its registers.
//! - [`control`]: how `cocoon host down`, `status` and `logs` reach a running host; [`logbook`] is what it writes.
//! - [`unit`]: the systemd service.
//! - [`doctor`]: whether this machine can be a host, and what to mend; [`gpu`]: GPUs, found, taken and given back.
//!
//! Nothing outlives the host: QEMU asks the kernel to be killed with its parent, the software TPM ends with its
//! control connection, and the next start clears what a crash of the machine may have left.

pub mod backoff;
pub mod config;
pub mod control;
pub mod doctor;
pub mod external;
pub mod folder;
pub mod gpu;
pub mod logbook;
pub mod plan;
pub mod preflight;
pub mod program;
pub mod qmp;
pub mod root;
pub mod swtpm;
pub mod unit;
pub mod vm;

mod spawner;
