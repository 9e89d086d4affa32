//! Looks at a host before anything is started, and says what is wrong and how to mend it.
//!
//! [`examine`] runs a fixed list of checks, in the order in which they block each other. What is a file is read below a
//! [`Root`]; what is not — programs, devices that must open, ports, the network — is asked of a [`Machine`]. It changes
//! nothing, asks nobody but the machine, and gives the same answer for the same facts.

mod checks;
mod cpu;
mod firmware;
mod here;
mod machine;
mod report;
mod show;

pub use here::{QemuSource, ThisMachine};
pub use machine::{Machine, Network, Probe, Qemu, Question, QuoteService, Version};
pub use report::{Check, Group, Outcome, Report, Tee, TeeChoice, Verdict};
pub use show::{Mark, Plain, Style};

use crate::root::{Files, Root};

/// The TEE that is meant on a machine: the one that is named, else what the CPU is made for. In a virtual machine the CPU's
/// TEE belongs to whoever runs it, so there only development guests remain.
pub fn meant(root: &Root, named: Option<Tee>) -> (Tee, TeeChoice) {
    let cpu = cpu::Cpu::parse(&root.text("/proc/cpuinfo").unwrap_or_default());
    match (named, cpu.made_for().filter(|_| !cpu.is_virtual())) {
        (Some(named), _) => (named, TeeChoice::Named),
        (None, Some(tee)) => (tee, TeeChoice::Cpu),
        (None, None) => (Tee::Emulation, TeeChoice::Neither),
    }
}

/// Examines a host for the TEE that is meant: the one in the question, else what the CPU is made for.
pub fn examine(root: &Root, machine: &dyn Machine, question: &Question) -> Report {
    let look = checks::Look::at(root, machine, question);
    let (tee, choice) = (look.tee, look.choice);
    Report::of(tee, choice, look.run())
}
