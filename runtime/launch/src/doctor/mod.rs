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

use crate::root::Root;

/// Examines a host for the TEE that is meant: the one in the question, else what the CPU is made for.
pub fn examine(root: &Root, machine: &dyn Machine, question: &Question) -> Report {
    let look = checks::Look::at(root, machine, question);
    let (tee, choice) = (look.tee, look.choice);
    Report::of(tee, choice, look.run())
}
