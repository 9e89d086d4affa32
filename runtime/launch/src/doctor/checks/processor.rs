//! CPU and BIOS. What the BIOS set is inferred from what the kernel shows.

use super::Look;
use crate::doctor::machine::Version;
use crate::doctor::report::{Check, Group, Tee};
use crate::root::Files;

const GROUP: Group = Group::Processor;

pub(super) fn bare_metal(look: &Look<'_>) -> Check {
    let found = match look.cpu.is_virtual() {
        true => "a virtual machine",
        false => "bare metal",
    };
    let expected = if look.confidential() { "bare metal" } else { "any machine" };
    let check = Check::new("machine.bare-metal", GROUP, expected, found);
    match (look.tee, look.cpu.is_virtual()) {
        (Tee::Emulation, true) => check.ok("good enough for emulation; no TEE is handed through to it"),
        (Tee::Emulation, false) => check.ok(""),
        (_, false) => check.ok("the hypervisor bit of the CPU is clear"),
        (_, true) => check.fail(
            "the hypervisor bit of the CPU is set: the TEE belongs to whoever runs this machine",
            "rent bare metal; in a cloud's VM only development guests run (--tee emulation)",
        ),
    }
}

pub(super) fn tee(look: &Look<'_>) -> Check {
    let cpu = &look.cpu;
    let needed = match look.tee {
        Tee::Tdx => "a Xeon with TDX: 5th generation or newer, some of the 4th",
        Tee::Snp => "an EPYC with SEV-SNP: Milan (7003) or newer",
        Tee::Emulation => "an x86-64 processor",
    };
    let check = Check::new("cpu.tee", GROUP, needed, cpu.about());
    match look.tee {
        Tee::Emulation if cpu.has("lm") => check.ok(match cpu.made_for() {
            Some(tee) if cpu.is_virtual() => {
                format!("made for {tee}, which this virtual machine does not get")
            }
            Some(tee) => format!("made for {tee}; emulation was asked for"),
            None => "no TEE".into(),
        }),
        Tee::Emulation => check.fail("guests are built for x86-64", "use another machine"),
        wanted if cpu.made_for() == Some(wanted) => check.ok(format!("made for {wanted}")),
        wanted => check.fail(
            match cpu.made_for() {
                Some(other) => format!("made for {other}, not for {wanted}"),
                None => format!("not known to have {wanted}"),
            },
            "use another machine, or leave --tee out",
        ),
    }
}

pub(super) fn bios(look: &Look<'_>) -> Check {
    match look.tee {
        Tee::Tdx => bios_tdx(look),
        Tee::Snp => bios_snp(look),
        Tee::Emulation => Check::new("bios.tee", GROUP, "", "").not_applicable("emulation needs no TEE"),
    }
}

/// The kernel finds TDX by its private KeyIDs, which the BIOS sets aside (Documentation/arch/x86/tdx.rst, "TDX boot-time
/// detection"). The CPU flag for it is not shown in /proc/cpuinfo.
fn bios_tdx(look: &Look<'_>) -> Check {
    const REMEDY: &str = "in the BIOS switch on Total Memory Encryption (TME), Multi-Key TME (TME-MT, without limit on the \
        physical address), Trust Domain Extensions (TDX) with some KeyIDs, the SEAM loader, and SGX";
    let check = Check::new("bios.tee", GROUP, "TDX switched on, with private KeyIDs", "");
    if let Some(blocker) = look.blocked_by(&["machine.bare-metal", "cpu.tee"]) {
        return check.skipped(format!("{blocker} comes first"));
    }
    let on = look.root.word("/sys/module/kvm_intel/parameters/tdx").is_some_and(|word| word == "Y");
    if on || look.logged("virt/tdx: BIOS enabled") == Some(true) {
        return Check { found: "private KeyIDs".into(), ..check }.ok("the BIOS set KeyIDs aside for TDX");
    }
    if look.logged("x86/tme: not enabled by BIOS") == Some(true) {
        return Check { found: "memory encryption (TME) is off".into(), ..check }
            .fail("TDX stands on TME, and the kernel's log says that the BIOS left it off", REMEDY);
    }
    // A kernel that knows nothing of TDX is silent about it: the kernel's version is checked next.
    let knows = look.kernel_version().is_some_and(|version| version >= Version(6, 16, 0));
    match (look.log.is_some(), knows) {
        (true, true) => Check { found: "no private KeyIDs".into(), ..check }
            .fail("the kernel looked for TDX's KeyIDs at boot and found none", REMEDY),
        (true, false) => check.skipped("this kernel is too old to say"),
        (false, _) => {
            check.skipped("the kernel's log since boot cannot be read: run as root, soon after boot")
        }
    }
}

/// What the kernel clears and why: arch/x86/kernel/cpu/amd.c (early_detect_mem_encrypt), arch/x86/virt/svm/sev.c.
fn bios_snp(look: &Look<'_>) -> Check {
    let check = Check::new("bios.tee", GROUP, "SMEE, SEV-SNP and RMP coverage switched on", "");
    if let Some(blocker) = look.blocked_by(&["machine.bare-metal", "cpu.tee"]) {
        return check.skipped(format!("{blocker} comes first"));
    }
    let shown: Vec<&str> =
        ["sme", "sev", "sev_es", "sev_snp"].into_iter().filter(|flag| look.cpu.has(flag)).collect();
    let found = if shown.is_empty() { "no flag of memory encryption".into() } else { shown.join(" ") };
    let check = Check { found, ..check };
    if !look.cpu.has("sme") && !look.cpu.has("sev") {
        return check.fail(
            "the kernel hides these flags where the BIOS left memory encryption off",
            "in the BIOS switch on SMEE (Secure Memory Encryption), usually under AMD CBS, CPU Common Options",
        );
    }
    if !look.cpu.has("sev_snp") {
        return check.fail(
            "the CPU has memory encryption, SEV-SNP is switched off",
            "in the BIOS switch on SEV-SNP (SEV Control, SNP Memory Coverage) and lock SMM",
        );
    }
    if look.logged("RMP table has not been reserved by BIOS") == Some(true) {
        return check.fail(
            "no memory is set aside for the reverse map table (RMP)",
            "in the BIOS switch on SNP Memory (RMP Table) Coverage for all memory",
        );
    }
    match asids(look) {
        Some(0) => check.fail(
            "no ASID is left for SEV-ES and SEV-SNP guests",
            "in the BIOS raise the SEV-ES ASID Space Limit (100, say)",
        ),
        Some(count) => check.ok(format!("ASIDs for {count} guests")),
        None => check.ok("the kernel shows every flag"),
    }
}

/// ASIDs that SEV-ES and SEV-SNP guests may have, as the misc controller counts them (Documentation/admin-guide/cgroup-v2.rst).
fn asids(look: &Look<'_>) -> Option<u64> {
    let text = look.root.text("/sys/fs/cgroup/misc.capacity").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("sev_es "))?;
    line.trim().parse().ok()
}
