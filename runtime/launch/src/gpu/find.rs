//! What is there: GPUs and NVSwitches, as sysfs and procfs show them.

use serde::Serialize;

use super::names::{Generation, product};
use super::{PciAddress, VFIO_DRIVER};
use crate::root::Files;

/// NVIDIA's PCI vendor id.
const NVIDIA: u16 = 0x10de;
/// PCI class and subclass: VGA controller, 3D controller, other bridge (NVSwitch), PCI-to-PCI bridge, host bridge.
const VGA: u16 = 0x0300;
const GPU_3D: u16 = 0x0302;
const OTHER_BRIDGE: u16 = 0x0680;
const PCI_BRIDGE: u16 = 0x0604;
const HOST_BRIDGE: u16 = 0x0600;
/// Flags of a line of `resource` (include/linux/ioport.h): a memory window, and one that may lie above 4 GiB.
const IORESOURCE_MEM: u64 = 0x200;
const IORESOURCE_MEM_64: u64 = 0x10_0000;
/// The six BARs come first in `resource`.
const BARS: usize = 6;

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A GPU.
    Gpu,
    /// A switch between GPUs.
    NvSwitch,
}

/// A memory window of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// Its number, 0 to 5.
    pub index: usize,
    /// Its length in bytes.
    pub bytes: u64,
    /// May it lie above 4 GiB?
    pub wide: bool,
}

/// Another device of the same IOMMU group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    /// Where it sits.
    pub address: PciAddress,
    /// Its PCI class and subclass.
    pub class: u16,
    /// The driver it is bound to.
    pub driver: Option<String>,
}

impl Neighbour {
    /// Bridges stay with the host: VFIO does not mind them in a group (Documentation/driver-api/vfio.rst).
    pub fn is_bridge(&self) -> bool {
        matches!(self.class, PCI_BRIDGE | HOST_BRIDGE)
    }
}

/// A process that has a device open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name, as `/proc/PID/comm` has it.
    pub name: String,
    /// What it has open.
    pub file: String,
}

/// A GPU or NVSwitch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Where it sits.
    pub address: PciAddress,
    /// What it is.
    pub kind: Kind,
    /// PCI device id.
    pub device_id: u16,
    /// As it is sold; the id where that is not known.
    pub name: String,
    /// `None`: it cannot compute confidentially, or is not known here.
    pub generation: Option<Generation>,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// What `driver_override` says.
    pub driver_override: Option<String>,
    /// Its IOMMU group; `None` where the IOMMU is off.
    pub group: Option<u32>,
    /// The others of its group.
    pub neighbours: Vec<Neighbour>,
    /// The node of memory it is near to.
    pub numa_node: Option<u32>,
    /// Its memory windows.
    pub bars: Vec<Bar>,
    /// Version of its firmware; only NVIDIA's driver shows it.
    pub vbios: Option<String>,
    /// The number N of `/dev/nvidiaN`; only NVIDIA's driver gives one.
    pub minor: Option<u32>,
    /// The name under `/dev/vfio/devices`, once vfio-pci has it and the kernel has iommufd.
    pub vfio_device: Option<String>,
}

impl Device {
    /// MiB of address space that its memory windows take above 4 GiB: 131120 for an H100.
    pub fn aperture_mib(&self) -> u32 {
        let wide = self.bars.iter().filter(|bar| bar.wide).map(|bar| bar.bytes);
        let bytes = wide.fold(0_u64, u64::saturating_add);
        u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX)
    }

    /// Is it bound to vfio-pci?
    pub fn is_taken(&self) -> bool {
        self.driver.as_deref() == Some(VFIO_DRIVER)
    }

    /// Does a program that has `file` open use this device now?
    fn is_used_through(&self, file: &str) -> bool {
        let numbered = |prefix: &str| {
            let rest = file.strip_prefix(prefix).unwrap_or_default();
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit())
        };
        if self.is_taken() {
            let group = self.group.is_some_and(|group| file == format!("/dev/vfio/{group}"));
            let cdev = self.vfio_device.as_ref().is_some_and(|n| file == format!("/dev/vfio/devices/{n}"));
            return group || cdev;
        }
        match (self.kind, self.minor) {
            // Which switch has which number is not shown: whoever holds one is asked to let go of all.
            (Kind::NvSwitch, _) => self.driver.is_some() && numbered("/dev/nvidia-nvswitch"),
            (Kind::Gpu, Some(minor)) => file == format!("/dev/nvidia{minor}"),
            (Kind::Gpu, None) => self.driver.as_deref() == Some("nvidia") && numbered("/dev/nvidia"),
        }
    }
}

/// All of them, each list by address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// GPUs.
    pub gpus: Vec<Device>,
    /// Switches between them.
    pub switches: Vec<Device>,
}

impl Inventory {
    /// A device by its address.
    pub fn device(&self, address: PciAddress) -> Option<&Device> {
        self.gpus.iter().chain(&self.switches).find(|device| device.address == address)
    }
}

/// Finds NVIDIA's GPUs and NVSwitches. A machine without a PCI bus has none.
///
/// # Errors
/// If the PCI bus is there and cannot be listed.
pub fn find(files: &dyn Files) -> std::io::Result<Inventory> {
    const DEVICES: &str = "/sys/bus/pci/devices";
    let mut found = Inventory::default();
    if !files.exists(DEVICES) {
        return Ok(found);
    }
    for address in files.names(DEVICES)?.iter().filter_map(|name| name.parse().ok()) {
        match read(files, address) {
            Some(device) if device.kind == Kind::Gpu => found.gpus.push(device),
            Some(device) => found.switches.push(device),
            None => {}
        }
    }
    Ok(found)
}

fn read(files: &dyn Files, address: PciAddress) -> Option<Device> {
    let folder = address.folder();
    if hex16(files, &format!("{folder}/vendor"))? != NVIDIA {
        return None;
    }
    let kind = match class(files, address)? {
        VGA | GPU_3D => Kind::Gpu,
        OTHER_BRIDGE => Kind::NvSwitch,
        _ => return None,
    };
    let device_id = hex16(files, &format!("{folder}/device"))?;
    let known = product(device_id);
    let information =
        files.text(&format!("/proc/driver/nvidia/gpus/{address}/information")).unwrap_or_default();
    let group = files.link_name(&format!("{folder}/iommu_group")).and_then(|name| name.parse().ok());
    Some(Device {
        address,
        kind,
        device_id,
        name: match (known, kind) {
            (Some(product), _) => product.name.to_owned(),
            (None, Kind::Gpu) => format!("NVIDIA 10de:{device_id:04x}"),
            (None, Kind::NvSwitch) => format!("NVSwitch 10de:{device_id:04x}"),
        },
        generation: known.map(|product| product.generation),
        driver: driver(files, address),
        driver_override: driver_override(files, address),
        group,
        neighbours: group.map(|group| neighbours(files, group, address)).unwrap_or_default(),
        // −1 where there is only one node.
        numa_node: files.word(&format!("{folder}/numa_node")).and_then(|word| word.parse().ok()),
        bars: files.text(&format!("{folder}/resource")).map(|text| bars(&text)).unwrap_or_default(),
        vbios: field(&information, "Video BIOS").filter(|text| !text.contains('?')),
        minor: field(&information, "Device Minor").and_then(|text| text.parse().ok()),
        vfio_device: vfio_device(files, address),
    })
}

/// The driver a device is bound to now.
pub(super) fn driver(files: &dyn Files, address: PciAddress) -> Option<String> {
    files.link_name(&format!("{}/driver", address.folder()))
}

/// What `driver_override` says; the kernel writes "(null)" for nothing.
pub(super) fn driver_override(files: &dyn Files, address: PciAddress) -> Option<String> {
    let word = files.word(&format!("{}/driver_override", address.folder()))?;
    (!word.is_empty() && word != "(null)").then_some(word)
}

/// The name under `/dev/vfio/devices` that vfio-pci gave a device (Documentation/driver-api/vfio.rst, VFIO device cdev).
pub(super) fn vfio_device(files: &dyn Files, address: PciAddress) -> Option<String> {
    let names = files.names(&format!("{}/vfio-dev", address.folder())).ok()?;
    names.into_iter().find(|name| name.starts_with("vfio"))
}

/// The processes that have a device open. Processes of others are seen by root alone.
pub fn holders(files: &dyn Files, device: &Device) -> Vec<Holder> {
    let mut found = Vec::new();
    // Processes come and go while they are listed: whatever cannot be read has ended.
    let pids =
        files.names("/proc").unwrap_or_default().into_iter().filter_map(|name| name.parse::<u32>().ok());
    for pid in pids {
        let folder = format!("/proc/{pid}/fd");
        let open = files.names(&folder).unwrap_or_default();
        let mut targets = open.iter().filter_map(|fd| files.link(&format!("{folder}/{fd}")).ok());
        if let Some(file) = targets.find(|target| device.is_used_through(&target.to_string_lossy())) {
            let name = files.word(&format!("/proc/{pid}/comm")).unwrap_or_default();
            found.push(Holder { pid, name, file: file.to_string_lossy().into_owned() });
        }
    }
    found.sort_by_key(|holder| holder.pid);
    found
}

fn neighbours(files: &dyn Files, group: u32, own: PciAddress) -> Vec<Neighbour> {
    let members = files.names(&format!("/sys/kernel/iommu_groups/{group}/devices")).unwrap_or_default();
    let others = members.iter().filter_map(|name| name.parse().ok()).filter(|address| *address != own);
    others
        .map(|address| Neighbour {
            address,
            class: class(files, address).unwrap_or_default(),
            driver: driver(files, address),
        })
        .collect()
}

fn class(files: &dyn Files, address: PciAddress) -> Option<u16> {
    let text = files.word(&format!("{}/class", address.folder()))?;
    let whole = u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()?;
    u16::try_from(whole >> 8).ok() // the last byte is the programming interface
}

fn hex16(files: &dyn Files, path: &str) -> Option<u16> {
    u16::from_str_radix(files.word(path)?.strip_prefix("0x")?, 16).ok()
}

/// Lines `start end flags`, all hexadecimal, one for each BAR (Documentation/PCI/sysfs-pci.rst).
fn bars(text: &str) -> Vec<Bar> {
    let number = |word: Option<&str>| u64::from_str_radix(word?.strip_prefix("0x")?, 16).ok();
    let parse = |(index, line): (usize, &str)| {
        let mut words = line.split_whitespace();
        let (start, end, flags) = (number(words.next())?, number(words.next())?, number(words.next())?);
        let bytes = end.checked_sub(start)?.checked_add(1)?;
        let used = end > 0 && flags & IORESOURCE_MEM != 0;
        used.then_some(Bar { index, bytes, wide: flags & IORESOURCE_MEM_64 != 0 })
    };
    text.lines().take(BARS).enumerate().filter_map(parse).collect()
}

/// A line `Name: value` of the driver's description of a GPU.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_read_with_their_lengths() {
        let text = "0x000020e042000000 0x000020e042ffffff 0x000000000014220c\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x000020c000000000 0x000020dfffffffff 0x000000000014220c\n\
                    0x00000000fe000000 0x00000000fe00ffff 0x0000000000040200\n";
        assert_eq!(
            bars(text),
            [
                Bar { index: 0, bytes: 16 << 20, wide: true },
                Bar { index: 2, bytes: 128 << 30, wide: true },
                Bar { index: 3, bytes: 64 << 10, wide: false },
            ]
        );
    }

    #[test]
    fn a_resource_file_of_nonsense_has_no_bars() {
        for text in ["", "x", "0x1", "0xffffffffffffffff 0x0 0x200", "0x0 0xffffffffffffffff 0x200", "é é é"]
        {
            assert_eq!(bars(text), [], "{text:?}");
        }
    }

    #[test]
    fn a_vbios_that_the_driver_does_not_know_yet_is_not_shown() {
        let text = "Model: \t\t NVIDIA H100\nVideo BIOS: \t ??.??.??.??.??\nDevice Minor: \t 3\n";
        assert_eq!(field(text, "Device Minor").as_deref(), Some("3"));
        assert_eq!(field(text, "Video BIOS").filter(|t| !t.contains('?')), None);
    }
}
