//! Each guest its own GPUs: from the addresses of a configuration to one plan for the host, and what each guest is given.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::{CcTool, Device, PciAddress, Plan, Refusal, Request, Selection, Step, Topology, plan};
use crate::plan::{Gpu, Gpus, GuestName, Iommu};
use crate::root::Files;

/// Through which the kernel hands devices over, from Linux 6.6 on (Documentation/userspace-api/iommufd.rst).
const IOMMU_DEVICE: &str = "/dev/iommu";

/// What a guest is to have.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The guest.
    pub guest: &'a GuestName,
    /// Exactly these; none: the guest is left out.
    pub gpus: &'a [PciAddress],
    /// `pci_mmio64_mib` of its machine profile, in MiB.
    pub mmio64_mib: Option<u32>,
}

/// What one guest is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The guest.
    pub guest: GuestName,
    /// How its GPUs are protected together.
    pub topology: Topology,
    /// Its devices: GPUs, then switches.
    pub devices: Vec<Device>,
    /// The same for the launch plan.
    pub gpus: Gpus,
}

/// What all guests of a host are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// One for each guest with GPUs, in the order of the wishes.
    pub shares: Vec<Share>,
    /// What is done on the host, for all of them at once; `None` where no guest has a GPU.
    pub plan: Option<Plan>,
}

/// Why the guests cannot have their GPUs.
#[derive(Debug, thiserror::Error)]
pub enum NotShared {
    /// One of them cannot.
    #[error("guest {guest}: {refusal}")]
    Refused {
        /// Which.
        guest: GuestName,
        /// Why.
        refusal: Refusal,
    },
    /// Two cannot side by side.
    #[error(
        "guests {first} and {second} both need {device}: name each GPU in one guest only, and all GPUs of one card in the same"
    )]
    Twice {
        /// What both need.
        device: PciAddress,
        /// One guest.
        first: GuestName,
        /// The other.
        second: GuestName,
    },
}

/// Decides who gets what, and what must be done for it. Reads only. Each guest's GPUs are judged by themselves: whether
/// they are a whole board, and whether they share an IOMMU group with anything else, another guest's GPU included.
///
/// # Errors
/// If one of them cannot be had, or two guests would share one: see [`NotShared`].
pub fn share(
    files: &dyn Files,
    modes: &dyn CcTool,
    wanted: Iommu,
    wishes: &[Wish<'_>],
) -> Result<Shared, NotShared> {
    let (mut shares, mut plans) = (Vec::new(), Vec::new());
    let mut owners: BTreeMap<PciAddress, &GuestName> = BTreeMap::new();
    for Wish { guest, gpus, mmio64_mib } in wishes.iter().filter(|wish| !wish.gpus.is_empty()) {
        let request = Request { selection: Selection::Only(gpus.to_vec()), confidential: true };
        let plan = plan(files, modes, &request)
            .map_err(|refusal| NotShared::Refused { guest: (*guest).clone(), refusal })?;
        for device in plan.before.iter().map(|before| before.device) {
            if let Some(first) = owners.insert(device, guest) {
                let (first, second) = (first.clone(), (*guest).clone());
                return Err(NotShared::Twice { device, first, second });
            }
        }
        shares.push(Share {
            guest: (*guest).clone(),
            topology: plan.topology,
            gpus: handed_over(files, &plan.devices, wanted, *mmio64_mib),
            devices: plan.devices.clone(),
        });
        plans.push(plan);
    }
    Ok(Shared { shares, plan: join(plans) })
}

/// How a launch plan hands devices to its guest: by iommufd if that is wanted and this kernel has it.
pub fn handed_over(files: &dyn Files, devices: &[Device], wanted: Iommu, mmio64_mib: Option<u32>) -> Gpus {
    let iommu = if files.exists(IOMMU_DEVICE) { wanted } else { Iommu::Legacy };
    let one = |device: &Device| Gpu { address: device.address, aperture_mib: device.aperture_mib() };
    Gpus { devices: devices.iter().map(one).collect(), iommu, mmio64_mib }
}

/// One plan with the steps of all. No GPU is reset while a driver still works with another one: they may be linked.
fn join(plans: Vec<Plan>) -> Option<Plan> {
    let all = |mut whole: Plan, next: Plan| {
        if whole.topology != next.topology {
            whole.topology = Topology::PerGuest;
        }
        whole.hole_mib = whole.hole_mib.max(next.hole_mib);
        whole.devices.extend(next.devices);
        whole.before.extend(next.before);
        whole.steps.extend(next.steps);
        whole
    };
    let mut whole = plans.into_iter().reduce(all)?;
    whole.steps.sort_by_key(|step| match step {
        Step::Unbind { .. } => 0,
        Step::SetPpcieMode { .. } | Step::SetCcMode { .. } => 1,
        Step::DriverOverride { .. } | Step::Bind { .. } => 2,
    });
    Some(whole)
}

impl Shared {
    /// What one guest is given; nothing if it has no GPU.
    pub fn gpus(&self, guest: &GuestName) -> Gpus {
        self.shares
            .iter()
            .find(|share| share.guest == *guest)
            .map(|share| share.gpus.clone())
            .unwrap_or_default()
    }

    /// Who gets what, in words; then every step as a line for a shell of root. Empty where no guest has a GPU.
    pub fn describe(&self, tool: &Path) -> String {
        let mut out = String::new();
        for share in &self.shares {
            let line = writeln!(out, "# GPUs of guest {}: {}", share.guest, share.topology.about());
            line.expect("a string takes all");
            for device in &share.devices {
                let driver = device.driver.as_deref().unwrap_or("no driver");
                let line = writeln!(out, "#   {} {}, now with {driver}", device.address, device.name);
                line.expect("a string takes all");
            }
        }
        out + &self.plan.as_ref().map(|plan| plan.describe(tool)).unwrap_or_default()
    }
}
