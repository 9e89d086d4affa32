//! The kernel: its version, its command line, and whether KVM has the TEE.

use super::Look;
use crate::doctor::machine::Version;
use crate::doctor::report::{Check, Group, Tee};
use crate::root::Files;

const GROUP: Group = Group::Kernel;

/// The first kernels in whose KVM the host's side is whole.
const TDX: Version = Version(6, 16, 0);
const SNP: Version = Version(6, 11, 0);

pub(super) fn version(look: &Look<'_>) -> Check {
    let release = look.root.word("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into());
    let needed = match look.tee {
        Tee::Tdx => TDX,
        Tee::Snp => SNP,
        Tee::Emulation => {
            return Check::new("kernel.version", GROUP, "any", release).ok("emulation runs on any kernel");
        }
    };
    let check = Check::new("kernel.version", GROUP, format!("at least {needed}"), release);
    match look.kernel_version() {
        Some(found) if found >= needed => check.ok(format!("the host's side of {} is in it", look.tee)),
        Some(_) => check.fail(
            format!("the host's side of {} came with {needed}", look.tee),
            "install a newer kernel (Debian: from backports) and boot it",
        ),
        None => check.fail("its version cannot be read", "look at /proc/sys/kernel/osrelease"),
    }
}

pub(super) fn command_line(look: &Look<'_>) -> Check {
    let line = look.root.word("/proc/cmdline").unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let check = |expected: &str| Check::new("kernel.command-line", GROUP, expected, shown(&words));
    let has = |word: &str| words.contains(&word);
    match look.tee {
        Tee::Emulation => check("any").not_applicable("emulation needs nothing on it"),
        Tee::Tdx if has("intel_iommu=off") || has("iommu=off") => check("an IOMMU that is on").fail(
            "the IOMMU is switched off: no GPU can be handed over",
            "take intel_iommu=off and iommu=off from the kernel's command line (GRUB_CMDLINE_LINUX, update-grub) and reboot",
        ),
        Tee::Tdx if hibernation_blocks(look, has("nohibernate")) => check("nohibernate").fail(
            "TDX and hibernation exclude each other: the kernel leaves TDX off while it could hibernate",
            "add nohibernate to the kernel's command line (GRUB_CMDLINE_LINUX, update-grub) and reboot",
        ),
        // With iommu=pt the kernel clears SEV-SNP for good: drivers/iommu/amd/init.c, iommu_snp_enable.
        Tee::Snp if has("iommu=pt") || has("iommu.passthrough=1") => {
            check("an IOMMU that is not in passthrough mode").fail(
                "with the IOMMU in passthrough mode the kernel switches SEV-SNP off",
                "take iommu=pt and iommu.passthrough=1 from the kernel's command line and reboot: VFIO does not need them",
            )
        }
        Tee::Snp if has("amd_iommu=off") || has("iommu=off") => check("an IOMMU that is on").fail(
            "with the IOMMU off the kernel switches SEV-SNP off",
            "take amd_iommu=off and iommu=off from the kernel's command line and reboot",
        ),
        Tee::Tdx | Tee::Snp => check("nothing that stands in the way").ok("nothing on it stands in the way"),
    }
}

/// The kernel says so in its log; where that cannot be read, TDX that is off on a kernel that can hibernate is a hint.
fn hibernation_blocks(look: &Look<'_>, forbidden: bool) -> bool {
    let on = look.root.word("/sys/module/kvm_intel/parameters/tdx").is_some_and(|word| word == "Y");
    let can = look.root.word("/sys/power/disk").is_some_and(|word| !word.contains("[disabled]"));
    match look.logged("Hibernation support is enabled") {
        Some(said) => said && !on,
        None => !on && !forbidden && can,
    }
}

/// The words that matter here.
fn shown(words: &[&str]) -> String {
    const MATTER: &[&str] = &[
        "iommu",
        "intel_iommu",
        "amd_iommu",
        "iommu.passthrough",
        "kvm_intel.tdx",
        "kvm_amd.sev_snp",
        "nohibernate",
        "mem_encrypt",
    ];
    let matters = |word: &&&str| MATTER.contains(&word.split('=').next().unwrap_or_default());
    let found: Vec<&str> = words.iter().filter(matters).copied().collect();
    if found.is_empty() { "none of the words that matter".into() } else { found.join(" ") }
}

pub(super) fn tee(look: &Look<'_>) -> Check {
    let (path, option) = match look.tee {
        Tee::Tdx => ("/sys/module/kvm_intel/parameters/tdx", "kvm_intel tdx=1"),
        Tee::Snp => ("/sys/module/kvm_amd/parameters/sev_snp", "kvm_amd sev=1 sev_es=1 sev_snp=1"),
        Tee::Emulation => {
            return Check::new("kernel.tee", GROUP, "", "").not_applicable("emulation needs no TEE");
        }
    };
    let found = look.root.word(path);
    let check = Check::new(
        "kernel.tee",
        GROUP,
        format!("Y in {path}"),
        found.clone().unwrap_or_else(|| "no such file".into()),
    );
    const FIRST: &[&str] =
        &["machine.bare-metal", "cpu.tee", "bios.tee", "kernel.version", "kernel.command-line"];
    if let Some(blocker) = look.blocked_by(FIRST) {
        return check.skipped(format!("{blocker} comes first"));
    }
    match found.as_deref() {
        Some("Y" | "1") => check.ok(match tdx_module(look) {
            Some(version) => format!("KVM runs {} guests; TDX module {version}", look.tee),
            None => format!("KVM runs {} guests", look.tee),
        }),
        Some(_) => check.fail(
            format!("KVM was loaded without {}{}", look.tee, why(look)),
            format!("write `options {option}` to /etc/modprobe.d/kvm.conf and reboot; if it stays off, the kernel's log says why"),
        ),
        None => check.fail(
            format!("the KVM module is not loaded, or was built without {}", look.tee),
            match look.tee {
                Tee::Tdx => "modprobe kvm_intel; the kernel needs CONFIG_INTEL_TDX_HOST and CONFIG_KVM_INTEL_TDX",
                _ => "modprobe kvm_amd; the kernel needs CONFIG_KVM_AMD_SEV",
            },
        ),
    }
}

/// The last line of the kernel's log about the TEE that sounds like a failure.
fn why(look: &Look<'_>) -> String {
    let about = match look.tee {
        Tee::Tdx => ["tdx", "seamcall"],
        _ => ["sev", "snp"],
    };
    let sounds = |line: &&str| {
        let line = line.to_lowercase();
        about.iter().any(|word| line.contains(word))
            && ["fail", "not ", "cannot", "no "].iter().any(|word| line.contains(word))
    };
    let line = look.log.as_ref().and_then(|log| log.lines().rfind(sounds));
    line.map(|line| format!("; the kernel said: {}", line.trim())).unwrap_or_default()
}

fn tdx_module(look: &Look<'_>) -> Option<String> {
    (look.tee == Tee::Tdx).then(|| look.root.word("/sys/devices/faux/tdx_host/version"))?
}
