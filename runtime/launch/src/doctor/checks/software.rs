//! QEMU and the guest's firmware.

use ring::digest::{SHA256, digest};

use super::Look;
use crate::doctor::firmware::{MOST_BYTES, abilities};
use crate::doctor::machine::Version;
use crate::doctor::report::{Check, Group, Tee};

const GROUP: Group = Group::Software;

/// The first QEMU with each TEE; under emulation the first that boots our kernels every time.
fn needed(tee: Tee) -> Version {
    match tee {
        Tee::Tdx => Version(10, 1, 0),
        Tee::Snp => Version(9, 2, 0),
        Tee::Emulation => Version(10, 0, 0),
    }
}

pub(super) fn qemu(look: &Look<'_>) -> Check {
    const REMEDY: &str =
        "use the QEMU that comes with the image (`cocoon image build` fetches it), or install a newer one";
    let needed = needed(look.tee);
    let check = Check::new("qemu.version", GROUP, format!("at least {needed}"), "none");
    match look.machine.qemu() {
        Err(why) => check.fail(why, REMEDY),
        Ok(qemu) => {
            let check = Check { found: format!("{} ({})", qemu.version, qemu.source), ..check };
            match qemu.version >= needed {
                true => check.ok("new enough"),
                false => check.fail(format!("{} came with {needed}", look.tee), REMEDY),
            }
        }
    }
}

pub(super) fn objects(look: &Look<'_>) -> Check {
    let mut wanted = match look.tee {
        Tee::Tdx => vec!["tdx-guest"],
        Tee::Snp => vec!["sev-snp-guest", "memory-backend-memfd"],
        Tee::Emulation => vec!["memory-backend-ram"],
    };
    if look.confidential() && look.wants_gpus() {
        wanted.push("iommufd");
    }
    let check = Check::new("qemu.objects", GROUP, wanted.join(", "), "");
    if let Some(blocker) = look.blocked_by(&["qemu.version"]) {
        return check.skipped(format!("{blocker} comes first"));
    }
    let objects = look.machine.qemu().map(|qemu| qemu.objects).unwrap_or_default();
    let missing: Vec<&str> =
        wanted.iter().copied().filter(|wanted| !objects.iter().any(|object| object == wanted)).collect();
    match missing.is_empty() {
        true => Check { found: wanted.join(", "), ..check }.ok("all there"),
        false => Check { found: format!("no {}", missing.join(", ")), ..check }.fail(
            "this QEMU was built without it",
            "use the QEMU that comes with the image, or one that was built with KVM and this TEE",
        ),
    }
}

pub(super) fn swtpm(look: &Look<'_>) -> Check {
    let check = Check::new("emulation.swtpm", GROUP, "swtpm", "none");
    if look.tee != Tee::Emulation {
        return check.not_applicable("the TEE measures the guest itself");
    }
    match look.machine.swtpm() {
        Ok(version) => Check { found: version, ..check }.ok("it holds the registers of development guests"),
        Err(why) => check.fail(
            why,
            "use the one that comes with the image (`cocoon image build` fetches it), or apt install swtpm",
        ),
    }
}

pub(super) fn firmware(look: &Look<'_>) -> Check {
    let expected = match look.tee {
        Tee::Tdx => "OVMF with TDVF metadata",
        Tee::Snp => "OVMF with SEV metadata and a table for the kernel's hashes",
        Tee::Emulation => "OVMF",
    };
    let check = Check::new("firmware.abilities", GROUP, expected, "");
    let Some(path) = &look.question.firmware else {
        return check.skipped("no firmware is chosen yet: it comes with the image");
    };
    let path = path.display().to_string();
    let file = match look.root.bytes(&path, MOST_BYTES) {
        Ok(file) => file,
        Err(error) => {
            return Check { found: path, ..check }.fail(
                format!("it cannot be read: {error}"),
                "build the image again: it is one of its files",
            );
        }
    };
    let found = abilities(&file);
    let check = Check { found: path, ..check };
    const OTHER: &str = "use the firmware of the image's profile: a build for this TEE";
    match look.tee {
        _ if !found.table => check.fail("it is no OVMF: the table at its end is missing", OTHER),
        Tee::Tdx if !found.tdx => check.fail("it has no TDVF metadata: no TD can be built from it", OTHER),
        Tee::Snp if !found.snp => {
            check.fail("it has no SEV metadata: no SNP guest can be built from it", OTHER)
        }
        Tee::Snp if !found.snp_hashes => check.fail(
            "it has no place for the kernel's hashes: kernel, initrd and command line would not be measured",
            OTHER,
        ),
        tee => check.ok(format!("made for {tee}")),
    }
}

pub(super) fn firmware_known(look: &Look<'_>) -> Check {
    let check = Check::new("firmware.known", GROUP, "a firmware with known measurements", "");
    if let Some(blocker) = look.blocked_by(&["firmware.abilities"]) {
        return check.skipped(format!("{blocker} comes first"));
    }
    let Some(path) = &look.question.firmware else {
        return check.skipped("no firmware is chosen yet: it comes with the image");
    };
    if look.question.known_firmware.is_empty() {
        return check.skipped("no image's manifest was given to compare with");
    }
    let Ok(file) = look.root.bytes(&path.display().to_string(), MOST_BYTES) else {
        return check.skipped("it cannot be read");
    };
    let hash = hex::encode(digest(&SHA256, &file));
    let known = look.question.known_firmware.iter().any(|known| known.eq_ignore_ascii_case(&hash));
    let check = Check { found: format!("SHA-256 {hash}"), ..check };
    match known {
        true => check.ok("the image's manifest says what it measures"),
        false => check.fail(
            "no manifest says what it measures: clients would refuse the guest",
            "use the firmware that comes with the image, or have the image measured with this one",
        ),
    }
}
