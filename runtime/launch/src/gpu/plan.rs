//! What must be done so that a VM can have the GPUs, decided before anything is touched.

use std::path::Path;

use serde::Serialize;

use super::find::{driver, driver_override};
use super::journal::Before;
use super::names::Generation;
use super::{
    CcError, CcMode, CcTool, Device, Holder, Inventory, Neighbour, PciAddress, Step, VFIO_DRIVER, find,
    holders,
};
use crate::root::Files;

/// A board of Hopper GPUs and switches is protected as a whole only with all of its GPUs.
const BOARD: usize = 8;

/// Which GPUs, and for what.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which.
    pub selection: Selection,
    /// For a confidential VM: the GPUs' own protection is switched on. A development guest takes them as they are.
    pub confidential: bool,
}

/// Which GPUs a VM gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of the machine.
    All,
    /// These.
    Only(Vec<PciAddress>),
}

/// How the GPUs are protected together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// No confidential VM: the modes stay as they are.
    Unprotected,
    /// CC mode in each; they do not speak to each other but through the VM's memory.
    Each,
    /// Blackwell: CC mode in each, and the links between them are encrypted.
    Linked,
    /// Eight Hopper GPUs and their switches in protected-PCIe mode.
    ProtectedPcie,
    /// Several guests, whose GPUs are protected in different ways.
    PerGuest,
}

impl Topology {
    /// What an operator should know about it.
    pub fn about(self) -> &'static str {
        match self {
            Self::Unprotected => {
                "the GPUs' modes stay as they are: a development guest proves nothing about them"
            }
            Self::Each => "CC mode on in each GPU; GPUs exchange data through the VM's memory only",
            Self::Linked => "CC mode on in each GPU; the links between them are encrypted",
            Self::ProtectedPcie => {
                "protected PCIe: all eight GPUs and the switches go to one VM; traffic over NVLink is not encrypted, \
                 the board is inside the boundary"
            }
            Self::PerGuest => "the guests' GPUs are protected in different ways, each guest's in its own",
        }
    }
}

/// What will be done. Nothing has been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// How the GPUs are protected together.
    pub topology: Topology,
    /// The devices that the VM gets: GPUs, then switches.
    pub devices: Vec<Device>,
    /// Address space above 4 GiB that the guest's firmware must keep, in MiB: for `opt/ovmf/X-PciMmio64Mb`.
    pub hole_mib: u64,
    /// How every device that is touched was found.
    pub before: Vec<Before>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The steps as lines for a shell of root, with NVIDIA's admin tool at `tool`.
    pub fn describe(&self, tool: &Path) -> String {
        if self.steps.is_empty() {
            return "# the GPUs are as the guests need them: nothing to do on the host\n".to_owned();
        }
        let lines = self.steps.iter().map(|step| format!("{}\n", step.shell(tool)));
        std::iter::once("# on the host, as root:\n".to_owned()).chain(lines).collect()
    }
}

/// Why the GPUs cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The PCI bus cannot be read.
    #[error("the PCI bus cannot be listed: {0}")]
    Bus(#[from] std::io::Error),
    /// There is none.
    #[error(
        "this machine has no NVIDIA GPU: take the GPUs out of the configuration, or look at `lspci -d 10de:`"
    )]
    NoGpu,
    /// Not that one.
    #[error("there is no NVIDIA GPU at {address}: this machine has {present}")]
    NoSuchGpu {
        /// What was asked for.
        address: PciAddress,
        /// What there is.
        present: String,
    },
    /// It cannot protect anything.
    #[error(
        "{device} ({name}) has no confidential computing: choose a Hopper or Blackwell GPU for data centres, or run a \
         development guest"
    )]
    NotConfidential {
        /// Where.
        device: PciAddress,
        /// What.
        name: String,
    },
    /// The IOMMU is off.
    #[error(
        "{device} is in no IOMMU group: switch the IOMMU on (VT-d or AMD-Vi in the BIOS; `intel_iommu=on` on Intel's kernel \
         command line)"
    )]
    NoIommu {
        /// Where.
        device: PciAddress,
    },
    /// Other devices would have to go with it.
    #[error(
        "{device} shares IOMMU group {group} with {}: a VM gets a whole group or nothing; switch on ACS in the BIOS, or put \
         the card into another slot",
        others(neighbours)
    )]
    Shared {
        /// Where.
        device: PciAddress,
        /// The group.
        group: u32,
        /// The others.
        neighbours: Vec<Neighbour>,
    },
    /// Somebody uses it.
    #[error("{device} is in use by {}: end what uses it first{}", used_by(holders), hint(holders))]
    InUse {
        /// Where.
        device: PciAddress,
        /// By whom.
        holders: Vec<Holder>,
    },
    /// No driver to hand it over.
    #[error(
        "the kernel's driver vfio-pci is not loaded: `modprobe vfio-pci`, and name it in /etc/modules-load.d for the next boot"
    )]
    NoVfio,
    /// Its mode is not known.
    #[error(transparent)]
    Mode(#[from] CcError),
}

fn others(neighbours: &[Neighbour]) -> String {
    let one = |n: &Neighbour| format!("{} ({})", n.address, n.driver.as_deref().unwrap_or("no driver"));
    neighbours.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn used_by(holders: &[Holder]) -> String {
    let one = |h: &Holder| format!("process {} ({}) with {}", h.pid, h.name, h.file);
    holders.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn hint(holders: &[Holder]) -> &'static str {
    let daemon =
        holders.iter().any(|h| h.name.starts_with("nvidia-persist") || h.name.starts_with("nv-fabric"));
    if daemon { " (systemctl stop nvidia-persistenced nvidia-fabricmanager)" } else { "" }
}

/// Decides what must be done. Reads only.
///
/// # Errors
/// If the GPUs cannot be had: see [`Refusal`].
pub fn plan(files: &dyn Files, modes: &dyn CcTool, request: &Request) -> Result<Plan, Refusal> {
    let inventory = find(files)?;
    let gpus = choose(&inventory, &request.selection)?;
    let topology = topology(&inventory, &gpus, request.confidential)?;
    let mut devices = gpus;
    if topology == Topology::ProtectedPcie {
        devices.extend(inventory.switches.iter().cloned());
    }
    for device in &devices {
        check(files, device, &devices)?;
    }
    if !files.exists(&format!("/sys/bus/pci/drivers/{VFIO_DRIVER}")) {
        return Err(Refusal::NoVfio);
    }
    let mut before = Vec::new();
    let mut switching = Vec::new();
    for device in &devices {
        let found = Modes::of(modes, device.address, topology)?;
        before.push(Before {
            device: device.address,
            driver: device.driver.clone(),
            driver_override: device.driver_override.clone(),
            modes: found,
        });
        switching.extend(found.steps(device.address, Modes::wanted(topology, device, found)));
    }
    before.extend(companions(&devices).map(|address| Before {
        device: address,
        driver: driver(files, address),
        driver_override: driver_override(files, address),
        modes: Modes::default(),
    }));
    let steps = steps(&before, switching);
    let hole_mib = hole_mib(devices.iter().map(Device::aperture_mib));
    Ok(Plan { topology, devices, hole_mib, before, steps })
}

fn choose(inventory: &Inventory, selection: &Selection) -> Result<Vec<Device>, Refusal> {
    if inventory.gpus.is_empty() {
        return Err(Refusal::NoGpu);
    }
    let Selection::Only(addresses) = selection else { return Ok(inventory.gpus.clone()) };
    let mut wanted = addresses.clone();
    wanted.sort_unstable();
    wanted.dedup();
    let one = |address: PciAddress| {
        let present =
            || inventory.gpus.iter().map(|gpu| gpu.address.to_string()).collect::<Vec<_>>().join(", ");
        let gpu = inventory.gpus.iter().find(|gpu| gpu.address == address);
        gpu.cloned().ok_or_else(|| Refusal::NoSuchGpu { address, present: present() })
    };
    wanted.into_iter().map(one).collect()
}

fn topology(inventory: &Inventory, gpus: &[Device], confidential: bool) -> Result<Topology, Refusal> {
    if !confidential {
        return Ok(Topology::Unprotected);
    }
    if let Some(gpu) = gpus.iter().find(|gpu| gpu.generation.is_none()) {
        return Err(Refusal::NotConfidential { device: gpu.address, name: gpu.name.clone() });
    }
    let all = |generation| gpus.iter().all(|gpu| gpu.generation == Some(generation));
    let board = gpus.len() == BOARD && inventory.gpus.len() == BOARD && !inventory.switches.is_empty();
    Ok(match gpus.len() {
        2.. if all(Generation::Blackwell) => Topology::Linked,
        _ if board && all(Generation::Hopper) => Topology::ProtectedPcie,
        _ => Topology::Each,
    })
}

fn check(files: &dyn Files, device: &Device, taken: &[Device]) -> Result<(), Refusal> {
    let address = device.address;
    let group = device.group.ok_or(Refusal::NoIommu { device: address })?;
    let foreign = |n: &&Neighbour| {
        !n.is_bridge() && !n.address.shares_slot(address) && !taken.iter().any(|d| d.address == n.address)
    };
    let neighbours: Vec<Neighbour> = device.neighbours.iter().filter(foreign).cloned().collect();
    if !neighbours.is_empty() {
        return Err(Refusal::Shared { device: address, group, neighbours });
    }
    match holders(files, device) {
        holders if holders.is_empty() => Ok(()),
        holders => Err(Refusal::InUse { device: address, holders }),
    }
}

/// Other functions of the same cards (sound, USB): a group is only handed over whole.
fn companions(devices: &[Device]) -> impl Iterator<Item = PciAddress> {
    let mut found: Vec<PciAddress> = devices
        .iter()
        .flat_map(|device| device.neighbours.iter().map(move |neighbour| (device, neighbour)))
        .filter(|(device, n)| !n.is_bridge() && n.address.shares_slot(device.address))
        .map(|(_, neighbour)| neighbour.address)
        .filter(|address| !devices.iter().any(|device| device.address == *address))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter()
}

/// First every device leaves its driver, then the modes are switched, then vfio-pci takes them: a GPU must not be reset
/// below a driver, nor while another of its board is still at work.
fn steps(before: &[Before], switching: Vec<Step>) -> Vec<Step> {
    let taken = |b: &&Before| b.driver.as_deref() != Some(VFIO_DRIVER);
    let leave = before.iter().filter(taken).filter_map(|b| {
        b.driver.as_ref().map(|driver| Step::Unbind { device: b.device, driver: driver.clone() })
    });
    let take = before.iter().filter(taken).flat_map(|b| {
        let driver = VFIO_DRIVER.to_owned();
        [
            Step::DriverOverride { device: b.device, driver: Some(driver.clone()) },
            Step::Bind { device: b.device, driver },
        ]
    });
    leave.chain(switching).chain(take).collect()
}

/// Address space for devices with these apertures, in MiB: a power of two. Each stands behind a bridge of its own, whose
/// window begins at a multiple of the largest BAR: firmware places the largest first, so that small ones fill the gaps at
/// the end (edk2, MdeModulePkg/Bus/Pci/PciBusDxe/PciResourceSupport.c, CalculateResourceAperture).
pub fn hole_mib(apertures: impl Iterator<Item = u32>) -> u64 {
    let mut apertures: Vec<u64> = apertures.map(u64::from).filter(|mib| *mib > 0).collect();
    apertures.sort_unstable_by(|a, b| b.cmp(a));
    // Sixteen devices of at most 2^32 MiB each stay far below 2^64.
    let place = |end: u64, mib: u64| end.next_multiple_of(1 << mib.ilog2()) + mib;
    apertures.into_iter().fold(0, place).next_power_of_two()
}

/// The modes of a device; `None` where it has no such mode, or nobody asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modes {
    /// Its own protection.
    pub cc: Option<CcMode>,
    /// Protection together with its board.
    pub ppcie: Option<bool>,
}

impl Modes {
    pub(super) fn of(tool: &dyn CcTool, device: PciAddress, topology: Topology) -> Result<Self, CcError> {
        if topology == Topology::Unprotected {
            return Ok(Self::default());
        }
        Ok(Self { cc: supported(tool.cc_mode(device))?, ppcie: supported(tool.ppcie_mode(device))? })
    }

    /// What the topology wants; a mode that the device does not have is left alone, save the one that protects it: that
    /// is asked for, so that the tool says why it cannot be.
    fn wanted(topology: Topology, device: &Device, found: Self) -> Self {
        let gpu = device.kind == super::Kind::Gpu;
        match topology {
            Topology::Unprotected | Topology::PerGuest => found,
            Topology::Each | Topology::Linked => {
                Self { cc: Some(CcMode::On), ppcie: found.ppcie.map(|_| false) }
            }
            Topology::ProtectedPcie => {
                Self { cc: found.cc.filter(|_| gpu).map(|_| CcMode::Off), ppcie: Some(true) }
            }
        }
    }

    /// The steps from these modes to others: what is switched off goes first, since a device refuses both at once.
    pub(super) fn steps(self, device: PciAddress, wanted: Self) -> Vec<Step> {
        let cc = wanted.cc.filter(|mode| self.cc != Some(*mode));
        let cc = cc.map(|mode| (mode != CcMode::Off, Step::SetCcMode { device, mode }));
        let ppcie = wanted.ppcie.filter(|on| self.ppcie != Some(*on));
        let ppcie = ppcie.map(|on| (on, Step::SetPpcieMode { device, on }));
        let mut steps: Vec<(bool, Step)> = ppcie.into_iter().chain(cc).collect();
        steps.sort_by_key(|(on, _)| *on);
        steps.into_iter().map(|(_, step)| step).collect()
    }
}

fn supported<T>(answer: Result<T, CcError>) -> Result<Option<T>, CcError> {
    match answer {
        Ok(mode) => Ok(Some(mode)),
        Err(CcError::NotSupported { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_has_room_for_aligned_windows_and_small_ones_fill_the_gaps() {
        const H100: u32 = 131_120; // 128 GiB and two small BARs
        for (apertures, needed) in [
            (vec![], 1),
            (vec![0], 1),
            (vec![1], 1),
            (vec![131_072], 131_072),
            (vec![H100], 262_144),
            (vec![32, H100], 262_144),
            (vec![H100; 2], 524_288),
            ([vec![32; 4], vec![H100; 8]].concat(), 2_097_152),
            (vec![u32::MAX; 16], 1 << 36),
        ] {
            assert_eq!(hole_mib(apertures.iter().copied()), needed, "{apertures:?}");
        }
    }
}
