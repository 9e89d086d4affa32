//! The checks, in the order in which they block each other.

mod attestation;
mod gpus;
mod image;
mod kernel;
mod operation;
mod processor;
mod software;
mod virtualisation;

use super::cpu::Cpu;
use super::machine::{Machine, Probe, Question, Version};
use super::report::{Check, Outcome, Tee, TeeChoice};
use crate::gpu::{Inventory, find};
use crate::root::{Files, Root};

/// One check; what was checked before it is in [`Look::done`].
type Ask = fn(&Look<'_>) -> Check;

const CHECKS: &[Ask] = &[
    processor::bare_metal,
    processor::tee,
    processor::bios,
    kernel::version,
    kernel::command_line,
    kernel::tee,
    virtualisation::kvm,
    virtualisation::sev,
    virtualisation::iommu,
    virtualisation::vfio,
    virtualisation::iommufd,
    virtualisation::vsock,
    virtualisation::memory,
    virtualisation::hugepages,
    virtualisation::memlock,
    software::qemu,
    software::objects,
    software::swtpm,
    image::manifest,
    image::profiles,
    software::firmware,
    software::firmware_known,
    gpus::present,
    gpus::group,
    gpus::free,
    gpus::cc_mode,
    gpus::vbios,
    attestation::clock,
    attestation::quotes,
    attestation::collateral,
    operation::disk,
    operation::ports,
    operation::chain,
    operation::wallet,
];

/// A host that is looked at.
pub(super) struct Look<'h> {
    root: &'h Root,
    machine: &'h dyn Machine,
    question: &'h Question,
    /// The TEE that is meant.
    pub(super) tee: Tee,
    /// Why.
    pub(super) choice: TeeChoice,
    cpu: Cpu,
    log: Option<String>,
    inventory: Inventory,
    done: Vec<Check>,
}

impl<'h> Look<'h> {
    pub(super) fn at(root: &'h Root, machine: &'h dyn Machine, question: &'h Question) -> Self {
        let cpu = Cpu::parse(&root.text("/proc/cpuinfo").unwrap_or_default());
        let (tee, choice) = crate::doctor::meant(root, question.tee);
        let inventory = find(root).unwrap_or_default();
        let log = machine.kernel_log();
        Self { root, machine, question, tee, choice, cpu, log, inventory, done: Vec::new() }
    }

    pub(super) fn run(mut self) -> Vec<Check> {
        for ask in CHECKS {
            let check = ask(&self);
            self.done.push(check);
        }
        self.done
    }

    fn confidential(&self) -> bool {
        self.tee != Tee::Emulation
    }

    /// The first of these checks that failed: another that stands on it need not say the same again.
    fn blocked_by(&self, ids: &[&'static str]) -> Option<&'static str> {
        let failed = |id: &str| self.done.iter().any(|c| c.id == id && c.result == Outcome::Fail);
        ids.iter().copied().find(|id| failed(id))
    }

    /// Does the kernel's log, since boot, hold this? `None`: it cannot be read.
    fn logged(&self, words: &str) -> Option<bool> {
        self.log.as_ref().map(|log| log.contains(words))
    }

    fn kernel_version(&self) -> Option<Version> {
        Version::find(&self.root.word("/proc/sys/kernel/osrelease")?)
    }

    /// GPUs that are there and asked for.
    fn wants_gpus(&self) -> bool {
        match &self.question.gpus {
            None => false,
            Some(crate::gpu::Selection::All) => !self.inventory.gpus.is_empty(),
            Some(crate::gpu::Selection::Only(_)) => true,
        }
    }
}

/// A check on something from the network: not asked, no answer, or an answer that is judged.
fn probed<T>(check: Check, probe: &Probe<T>, remedy: &str, judge: impl FnOnce(Check, &T) -> Check) -> Check {
    match probe {
        Probe::NotAsked(why) => check.skipped(why.clone()),
        Probe::Failed(why) => Check { found: "no answer".into(), ..check }.fail(why.clone(), remedy),
        Probe::Answered(answer) => judge(check, answer),
    }
}

fn gib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
    let gib = bytes as f64 / f64::from(1 << 30);
    format!("{gib:.1} GiB")
}
