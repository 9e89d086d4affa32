//! Looks at a host before anything is started, and says what is wrong and how to mend it.
//!
//! [`examine`] runs a fixed list of checks, in the order in which they block each other. What is a file is read below a
//! [`Root`]; what is not — programs, devices that must open, ports, the network — is asked of a [`Machine`]. It changes
//! nothing, asks nobody but the machine, and gives the same answer for the same facts.

mod checks;
mod cpu;
mod firmware;
mod here;
mod image;
mod machine;
mod programs;
mod report;
mod show;
mod told;

pub use here::ThisMachine;
pub use machine::{ImageQuestion, Machine, Network, Probe, ProfileGuest, Qemu, Question, Version};
pub use programs::Programs;
pub use report::{Check, Group, Outcome, Report, Tee, TeeChoice, Verdict};
pub use show::{Mark, Plain, Style};
pub use told::question;

pub use crate::plan::QuoteService;
use crate::root::{Files, Root};

/// The TEE that is meant on a machine: the one that is named, else what the CPU is made for. In a virtual machine the CPU's
/// TEE belongs to whoever runs it, so there only development guests remain.
pub fn meant(root: &Root, named: Option<Tee>) -> (Tee, TeeChoice) {
    match (named, found(root)) {
        (Some(named), _) => (named, TeeChoice::Named),
        (None, Ok(tee)) => (tee, TeeChoice::Cpu),
        (None, Err(_)) => (Tee::Emulation, TeeChoice::Neither),
    }
}

/// The TEE of a machine; never the emulation.
///
/// # Errors
/// If there is none, in words.
pub fn found(root: &Root) -> Result<Tee, String> {
    let cpu = cpu::Cpu::parse(&root.text("/proc/cpuinfo").unwrap_or_default());
    match cpu.made_for() {
        _ if cpu.is_virtual() => {
            Err(format!("this is a virtual machine on {}: its TEE belongs to whoever runs it", cpu.about()))
        }
        Some(tee) => Ok(tee),
        None => Err(format!("{} is not known to have TDX or SEV-SNP", cpu.about())),
    }
}

/// Examines a host for the TEE that is meant: the one in the question, else what the CPU is made for.
pub fn examine(root: &Root, machine: &dyn Machine, question: &Question) -> Report {
    let look = checks::Look::at(root, machine, question);
    let (tee, choice) = (look.tee, look.choice);
    Report::of(tee, choice, look.run())
}
