//! Does what a plan says, and undoes it.

use std::path::{Path, PathBuf};

use super::find::{driver, driver_override, find, holders, vfio_device};
use super::plan::Modes;
use super::{Before, CcTool, Holder, Journal, JournalError, PciAddress, Plan, Step, StepError, VFIO_DRIVER};
use crate::root::Files;

/// A device that vfio-pci has, as a VM opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// Where it sits.
    pub device: PciAddress,
    /// `/dev/vfio/devices/vfioN`, where the kernel has iommufd.
    pub cdev: Option<PathBuf>,
    /// `/dev/vfio/GROUP`: the old way.
    pub group: Option<PathBuf>,
}

/// Why the devices were not prepared.
#[derive(Debug, thiserror::Error)]
pub enum NotPrepared {
    /// An earlier run did not end well.
    #[error(
        "{0} says that an earlier run still holds GPUs: give them back with `cocoon host down --config FILE` first"
    )]
    LeftOver(PathBuf),
    /// The state before cannot be noted, so nothing was touched (or everything was undone).
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A step failed; what was done before it was undone.
    #[error("{0}; what had been done was undone")]
    Undone(StepError),
    /// A step failed, and so did undoing.
    #[error(
        "{step}; and the GPUs could not all be given back ({undo}): mend that, then `cocoon host down --config FILE`"
    )]
    Stuck {
        /// Why it failed.
        step: Box<NotPrepared>,
        /// Why it could not be undone.
        undo: NotRestored,
    },
}

/// Why not all devices were given back. The run file stays.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    /// The run file cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A VM still has one.
    #[error("{device} is still in use by process {} ({})", holder.pid, holder.name)]
    InUse {
        /// Which.
        device: PciAddress,
        /// By whom.
        holder: Holder,
    },
    /// Steps failed; the others were done.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Steps(Vec<StepError>),
}

/// Takes the devices from the host as the plan says, noting the state before in the run file.
///
/// # Errors
/// If a step fails: then everything that was done is undone, as far as that goes.
pub fn prepare(
    files: &dyn Files,
    modes: &dyn CcTool,
    plan: &Plan,
    run_file: &Path,
) -> Result<Vec<Handle>, NotPrepared> {
    if run_file.exists() {
        return Err(NotPrepared::LeftOver(run_file.to_owned()));
    }
    let mut journal = Journal::of(plan);
    journal.write(run_file)?;
    for step in &plan.steps {
        journal.begun.push(step.clone());
        let done = journal.write(run_file).map_err(NotPrepared::Journal);
        let done = done.and_then(|()| step.execute(files, modes).map_err(NotPrepared::Undone));
        if let Err(error) = done {
            return Err(match restore(files, modes, run_file) {
                Ok(_) => error,
                Err(undo) => NotPrepared::Stuck { step: Box::new(error), undo },
            });
        }
    }
    Ok(plan.devices.iter().map(|device| handle(files, device.address, device.group)).collect())
}

fn handle(files: &dyn Files, device: PciAddress, group: Option<u32>) -> Handle {
    let there = |path: String| files.exists(&path).then(|| PathBuf::from(path));
    Handle {
        device,
        cdev: vfio_device(files, device).and_then(|name| there(format!("/dev/vfio/devices/{name}"))),
        group: group.and_then(|group| there(format!("/dev/vfio/{group}"))),
    }
}

/// Gives the devices back as the run file says they were found, and deletes it. What is already as it was is left alone, so
/// it may be called again, after a crash at any point. Without a run file there is nothing to do.
///
/// Says what it did.
///
/// # Errors
/// If a VM still runs, or a step fails; the run file stays.
pub fn restore(files: &dyn Files, modes: &dyn CcTool, run_file: &Path) -> Result<Vec<Step>, NotRestored> {
    let Some(journal) = Journal::read(run_file)? else { return Ok(Vec::new()) };
    refuse_if_used(files, &journal)?;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for steps in per_device(files, modes, &journal) {
        // A step that failed makes the device's later ones senseless; other devices are given back all the same.
        for step in steps {
            if let Err(error) = step.execute(files, modes) {
                failed.push(error);
                break;
            }
            done.push(step);
        }
    }
    if !failed.is_empty() {
        return Err(NotRestored::Steps(failed));
    }
    Journal::remove(run_file)?;
    Ok(done)
}

/// What [`restore`] would do now.
pub fn restore_steps(files: &dyn Files, modes: &dyn CcTool, journal: &Journal) -> Vec<Step> {
    per_device(files, modes, journal).into_iter().flatten().collect()
}

/// The kernel makes whoever unbinds a device wait until the program that has it open lets go: that could be for ever.
fn refuse_if_used(files: &dyn Files, journal: &Journal) -> Result<(), NotRestored> {
    let inventory = find(files).unwrap_or_default();
    let taken = journal.before.iter().filter_map(|before| inventory.device(before.device));
    for device in taken.filter(|device| device.is_taken()) {
        if let Some(holder) = holders(files, device).into_iter().next() {
            return Err(NotRestored::InUse { device: device.address, holder });
        }
    }
    Ok(())
}

fn per_device(files: &dyn Files, modes: &dyn CcTool, journal: &Journal) -> Vec<Vec<Step>> {
    let there = |before: &&Before| files.exists(&before.device.folder());
    journal.before.iter().rev().filter(there).map(|b| give_back(files, modes, journal, b)).collect()
}

fn give_back(files: &dyn Files, modes: &dyn CcTool, journal: &Journal, before: &Before) -> Vec<Step> {
    let device = before.device;
    let switching = switch_back(modes, journal, before);
    let now = driver(files, device);
    let mut steps = Vec::new();
    if now != before.driver || (!switching.is_empty() && now.as_deref() != Some(VFIO_DRIVER)) {
        steps.extend(now.clone().map(|driver| Step::Unbind { device, driver }));
    }
    let unbound = now.is_none() || !steps.is_empty();
    steps.extend(switching);
    let mut pinned = driver_override(files, device);
    if let Some(wanted) = before.driver.clone().filter(|_| unbound) {
        // Its driver may not be the only one that would take it: name it while the kernel looks for one.
        if pinned.as_ref() != Some(&wanted) {
            steps.push(Step::DriverOverride { device, driver: Some(wanted.clone()) });
            pinned = Some(wanted.clone());
        }
        steps.push(Step::Bind { device, driver: wanted });
    }
    if pinned != before.driver_override {
        steps.push(Step::DriverOverride { device, driver: before.driver_override.clone() });
    }
    steps
}

/// Modes are only switched back if this run began to switch them.
fn switch_back(modes: &dyn CcTool, journal: &Journal, before: &Before) -> Vec<Step> {
    let switched = |step: &Step| {
        step.device() == before.device && matches!(step, Step::SetCcMode { .. } | Step::SetPpcieMode { .. })
    };
    if !journal.begun.iter().any(switched) {
        return Vec::new();
    }
    // A mode that cannot be read is set all the same.
    let now = Modes { cc: modes.cc_mode(before.device).ok(), ppcie: modes.ppcie_mode(before.device).ok() };
    now.steps(before.device, before.modes)
}
