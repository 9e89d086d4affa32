//! What a VM is made of: KVM, IOMMU, VFIO, vsock, memory.

use std::io::ErrorKind;

use super::{Look, gib};
use crate::doctor::report::{Check, Group, Tee};
use crate::gpu::VFIO_DRIVER;
use crate::root::Files;

const GROUP: Group = Group::Virtualisation;
/// Capability to lock memory without limit (capabilities(7)).
const CAP_IPC_LOCK: u32 = 14;

pub(super) fn kvm(look: &Look<'_>) -> Check {
    let check = Check::new("kvm.device", GROUP, "/dev/kvm, open to this user", "/dev/kvm");
    if look.tee == Tee::Emulation {
        return check.not_applicable("development guests run under software emulation, without KVM");
    }
    device(
        look,
        check,
        "/dev/kvm",
        "switch virtualisation on in the BIOS (VT-x or SVM) and modprobe kvm_intel or kvm_amd",
        "add this user to the group kvm (usermod -aG kvm USER) and log in again, or run as root",
    )
}

pub(super) fn sev(look: &Look<'_>) -> Check {
    let check = Check::new("sev.device", GROUP, "/dev/sev, open to this user", "/dev/sev");
    if look.tee != Tee::Snp {
        return check.not_applicable("only SEV-SNP has it");
    }
    if let Some(blocker) = look.blocked_by(&["machine.bare-metal", "cpu.tee", "bios.tee", "kernel.version"]) {
        return check.skipped(format!("{blocker} comes first"));
    }
    device(
        look,
        check,
        "/dev/sev",
        "modprobe ccp: it talks to the AMD Secure Processor; its firmware must be up to date",
        "give this user the device (a udev rule), or run as root",
    )
}

/// A device that must be there and open.
fn device(look: &Look<'_>, check: Check, path: &str, missing: &str, closed: &str) -> Check {
    if !look.root.exists(path) {
        return Check { found: format!("no {path}"), ..check }.fail("there is no such device", missing);
    }
    match look.machine.open(path) {
        Ok(()) => check.ok("it opens"),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Check { found: "permission denied".into(), ..check }.fail("this user may not open it", closed)
        }
        Err(error) => Check { found: error.to_string(), ..check }.fail("it does not open", missing),
    }
}

pub(super) fn iommu(look: &Look<'_>) -> Check {
    let groups = look.root.names("/sys/kernel/iommu_groups").unwrap_or_default().len();
    let found = if groups == 0 { "no groups".into() } else { format!("{groups} groups") };
    let check = Check::new("iommu.on", GROUP, "devices in IOMMU groups", found);
    if look.tee == Tee::Emulation || (look.tee == Tee::Tdx && !look.wants_gpus()) {
        return check.not_applicable("no device is handed to a guest");
    }
    if let Some(blocker) = look.blocked_by(&["machine.bare-metal", "kernel.command-line"]) {
        return check.skipped(format!("{blocker} comes first"));
    }
    match (groups, look.tee) {
        (0, Tee::Snp) => check.fail(
            "the IOMMU is off: SEV-SNP needs it, and so does every GPU",
            "switch on AMD-Vi (IOMMU) in the BIOS",
        ),
        (0, _) => check.fail(
            "the IOMMU is off: no GPU can be handed over",
            "switch on VT-d in the BIOS and add intel_iommu=on to the kernel's command line",
        ),
        _ => check.ok("the IOMMU is on"),
    }
}

pub(super) fn vfio(look: &Look<'_>) -> Check {
    let check = Check::new("vfio.module", GROUP, "the driver vfio-pci", "vfio-pci");
    if !look.wants_gpus() || !look.confidential() {
        return check.not_applicable("no device is handed to a guest");
    }
    if !look.root.exists(&format!("/sys/bus/pci/drivers/{VFIO_DRIVER}")) {
        return Check { found: "not loaded".into(), ..check }.fail(
            "it hands GPUs to guests",
            "modprobe vfio-pci, and write its name to /etc/modules-load.d/vfio.conf",
        );
    }
    match look.root.exists("/dev/vfio/vfio") || look.root.exists("/dev/iommu") {
        true => check.ok("loaded"),
        false => Check { found: "loaded, without /dev/vfio/vfio".into(), ..check }
            .fail("a container of VFIO is needed to map memory", "modprobe vfio and vfio_iommu_type1"),
    }
}

pub(super) fn iommufd(look: &Look<'_>) -> Check {
    let check = Check::new("vfio.iommufd", GROUP, "/dev/iommu", "/dev/iommu");
    if !look.wants_gpus() || !look.confidential() {
        return check.not_applicable("no device is handed to a guest");
    }
    match look.root.exists("/dev/iommu") {
        true => check.ok("GPUs go through iommufd"),
        false => Check { found: "no /dev/iommu".into(), ..check }.warn(
            "GPUs go through the older VFIO groups",
            "modprobe iommufd; the kernel needs CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV (or say iommu = \"legacy\" in the configuration)",
        ),
    }
}

pub(super) fn vsock(look: &Look<'_>) -> Check {
    let check = Check::new("vsock.device", GROUP, "/dev/vhost-vsock, open to this user", "/dev/vhost-vsock");
    if look.tee == Tee::Emulation {
        return check.not_applicable("development guests are reached through QEMU's user network");
    }
    device(
        look,
        check,
        "/dev/vhost-vsock",
        "modprobe vhost_vsock, and write its name to /etc/modules-load.d/vsock.conf",
        "add this user to the group kvm, or run as root",
    )
}

/// A field of /proc/meminfo, in bytes.
fn meminfo(look: &Look<'_>, name: &str) -> Option<u64> {
    let text = look.root.text("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut words = line.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    Some(if words.next() == Some("kB") { number.saturating_mul(1024) } else { number })
}

pub(super) fn memory(look: &Look<'_>) -> Check {
    let needed = look.question.memory;
    let Some(free) = meminfo(look, "MemAvailable") else {
        return Check::new("memory.free", GROUP, gib(needed), "unknown")
            .skipped("/proc/meminfo says nothing");
    };
    let check = Check::new("memory.free", GROUP, format!("{} for the guests", gib(needed)), gib(free));
    match free >= needed {
        true => check.ok("enough for the guests"),
        false => check.fail(
            "a confidential guest's memory is taken whole and never swapped",
            "end what uses memory, or give the guests less in the configuration",
        ),
    }
}

/// Guests' private memory comes from guest_memfd, which hands out ordinary pages (Documentation/virt/kvm/api.rst,
/// KVM_CREATE_GUEST_MEMFD).
pub(super) fn hugepages(look: &Look<'_>) -> Check {
    let count = meminfo(look, "HugePages_Total").unwrap_or(0);
    let size = meminfo(look, "Hugepagesize").unwrap_or(0);
    let check = Check::new("memory.hugepages", GROUP, "none set aside", format!("{count} set aside"));
    match (look.tee, count) {
        (Tee::Emulation, _) => check.not_applicable("emulation does not use them"),
        (_, 0) => check.ok("private memory cannot come from them"),
        _ => check.warn(
            format!(
                "{} cannot be used: private memory does not come from huge pages",
                gib(count.saturating_mul(size))
            ),
            "set vm.nr_hugepages to 0, unless something else needs them",
        ),
    }
}

pub(super) fn memlock(look: &Look<'_>) -> Check {
    let needed = look.question.memory;
    let limit = memlock_limit(look);
    let found = match limit {
        None => "unlimited".to_owned(),
        Some(bytes) => gib(bytes),
    };
    let check = Check::new("limits.memlock", GROUP, format!("{} or unlimited", gib(needed)), found);
    if !look.wants_gpus() || !look.confidential() {
        return check.not_applicable("no device is handed to a guest");
    }
    match limit {
        None => check.ok("a GPU's guest may be pinned in memory"),
        Some(_) if may_lock(look) => check.ok("this user may lock memory beyond the limit"),
        Some(bytes) if bytes >= needed => check.ok("a GPU's guest may be pinned in memory"),
        Some(_) => check.fail(
            "the memory of a guest with a GPU is pinned as a whole",
            "LimitMEMLOCK=infinity in the systemd unit, or `memlock unlimited` in /etc/security/limits.d",
        ),
    }
}

fn memlock_limit(look: &Look<'_>) -> Option<u64> {
    let text = look.root.text("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    line.split_whitespace().next()?.parse().ok() // "unlimited" is no number
}

fn may_lock(look: &Look<'_>) -> bool {
    let text = look.root.text("/proc/self/status").unwrap_or_default();
    let mask = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1)
}
