//! What a difference comes from, what it likely means, and what to do: one row for each.

use super::Difference;
use crate::manifest::{Event, Register};

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cause {
    file: Option<&'static str>,
    pub(super) meaning: &'static str,
    remedy: &'static str,
}

impl Cause {
    pub(super) fn of(
        self,
        subject: String,
        profile: Option<&str>,
        expected: String,
        found: String,
    ) -> Difference {
        let Self { file, meaning, remedy } = self;
        Difference { subject, profile: profile.map(str::to_owned), expected, found, file, meaning, remedy }
    }
}

const fn row(file: Option<&'static str>, meaning: &'static str, remedy: &'static str) -> Cause {
    Cause { file, meaning, remedy }
}

const SAME_MACHINE: &str = "start the machine as its profile says, with the QEMU version that it names, or choose the profile that fits";
const REBUILD: &str =
    "compare the file's hash with the manifest (cocoon image verify), and fetch or build the image again";

pub(super) const ORDER: Cause = row(
    None,
    "the boot took another way: more or fewer steps than a direct boot of this firmware",
    "boot with exactly the options of the launch plan: no other disk, ROM, boot entry or shim",
);
pub(super) const PROFILE: Cause = row(
    None,
    "one of the two has no prediction for this machine",
    "predict it (cocoon image measure --profile), or leave it out of the comparison",
);
pub(super) const PACKAGE: Cause = row(
    Some("image.lock"),
    "another version of a package went into the image",
    "look at what the lock file's renewal changed, and at the package's changelog",
);
pub(super) const LOG: Cause = row(
    None,
    "the log is of another boot, cut short, or made up: what it tells is not what the quote vouches for",
    "take log and quote from the same boot; a worker's bundle has both",
);
pub(super) const FIELD: Cause = row(
    None,
    "a part of the manifest that moves no register is another, so its hash names another manifest",
    "take the manifest as it was published, or make it with the same version of cocoon image build",
);
pub(super) const PROGRAM: Cause = row(
    None,
    "one of our own programs was built from other sources, or by another compiler",
    "build both from the same commit with the toolchain that the repository names",
);

/// For a register of which nothing finer is known.
pub(super) fn of_register(register: Register) -> Cause {
    match register {
        Register::Mrtd => row(
            Some("firmware"),
            "another firmware was started, or a host whose QEMU builds a TD in another order",
            "start the firmware of the image; TDX needs upstream QEMU, 10.1 or later",
        ),
        Register::Rtmr0 => row(
            None,
            "another machine: QEMU version, vCPUs, memory or devices; or other firmware variables",
            SAME_MACHINE,
        ),
        Register::Rtmr1 => row(
            Some("vmlinuz"),
            "another kernel, or another way of starting it",
            "compare the kernel's hash with the manifest, and boot it directly",
        ),
        Register::Rtmr2 => {
            row(None, "another command line (with it another root), or another initrd", REBUILD)
        }
        Register::LaunchDigest => row(
            None,
            "another firmware, kernel, initrd, command line, number or type of vCPUs, or other guest features",
            "SNP tells no more: compare the files' hashes with the manifest, then the machine with its profile",
        ),
    }
}

/// For an event, by its type and register.
pub(super) fn of_event(event: &Event) -> Cause {
    match (event.register, event.kind.as_str()) {
        (Register::Rtmr0, "EV_EFI_HANDOFF_TABLES2") => row(
            None,
            "the machine has more or less memory, or another firmware wants it elsewhere",
            SAME_MACHINE,
        ),
        (Register::Rtmr0, "EV_EFI_HANDOFF_TABLES") => row(
            None,
            "SMBIOS: another QEMU version, number of vCPUs, memory, or processor model",
            SAME_MACHINE,
        ),
        (Register::Rtmr0, "EV_PLATFORM_CONFIG_FLAGS") => row(
            None,
            "QEMU described another machine: its version, vCPUs, memory, or a device at another place",
            SAME_MACHINE,
        ),
        (Register::Rtmr0, "EV_EFI_PLATFORM_FIRMWARE_BLOB2" | "EV_EFI_VARIABLE_DRIVER_CONFIG") => row(
            Some("firmware"),
            "the firmware's variables are not empty: Secure Boot keys, or settings that someone made",
            "start the firmware file of the image, as it is",
        ),
        (Register::Rtmr0, "EV_EFI_VARIABLE_BOOT") => row(
            Some("firmware"),
            "another firmware, or boot entries that someone made",
            "start the firmware file of the image, as it is",
        ),
        (Register::Rtmr1, "EV_EFI_BOOT_SERVICES_APPLICATION") => {
            row(Some("vmlinuz"), "another kernel was started", REBUILD)
        }
        (Register::Rtmr2, "EV_EVENT_TAG") if event.what == "initrd" => {
            row(Some("initrd.cpio"), "another initrd was started: PID 1 or a kernel module changed", REBUILD)
        }
        (Register::Rtmr2, "EV_EVENT_TAG") => row(
            Some("cmdline"),
            "another command line: another option, or another root.img by its root hash",
            REBUILD,
        ),
        (Register::LaunchDigest, _) => of_register(Register::LaunchDigest),
        (Register::Mrtd, _) => of_register(Register::Mrtd),
        _ => ORDER,
    }
}

/// For a file of the image, and what else a manifest says of it.
pub(super) fn of_file(name: &'static str) -> Cause {
    match name {
        "vmlinuz" => row(Some(name), "another kernel: moves RTMR1, or the launch digest", REBUILD),
        "initrd.cpio" => {
            row(Some(name), "another PID 1 or kernel module: moves RTMR2, or the launch digest", REBUILD)
        }
        "root.img" => row(
            Some(name),
            "another root: its hash is in the command line, so RTMR2 or the launch digest moves",
            "look at the packages and programs below",
        ),
        "cmdline" => row(Some(name), "another command line: moves RTMR2, or the launch digest", REBUILD),
        "firmware" => row(Some(name), "another firmware: moves MRTD and possibly all that follows", REBUILD),
        "variant" => row(
            None,
            "a development image has a console and a simulated TEE; a production image has neither",
            "never accept a development image where real work is done",
        ),
        _ => row(Some(name), "built from another lock file", "look at the packages below"),
    }
}
