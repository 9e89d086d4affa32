//! Which packages are wanted, and why. The lock holds what these came to when it was last renewed.

use serde::{Deserialize, Serialize};

/// Packages that are unpacked into one tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// What goes into the image: a kernel, its modules, the C library.
    Guest,
    /// What makes the image.
    ImageTools,
    /// What runs the image: QEMU and a software TPM.
    VmTools,
    /// What the machine begins with, where there is no TEE.
    Firmware,
    /// What TDX and SNP machines begin with. Apart, because unstable's packages leave the archive when they are superseded.
    TeeFirmware,
    /// Programs that our own code is compared with in tests.
    TestOracles,
}

/// How a group is made.
pub(crate) struct Wanted {
    pub(crate) group: Group,
    /// In the order in which a package is looked for.
    pub(crate) suites: &'static [&'static str],
    /// A package, and the suite if it must be a certain one.
    pub(crate) roots: &'static [(&'static str, Option<&'static str>)],
    /// Whether what the roots depend on is wanted too.
    pub(crate) closure: bool,
    /// Dependencies that are left out, each with the reason.
    pub(crate) without: &'static [(&'static str, &'static str)],
}

impl Group {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Guest, Self::ImageTools, Self::VmTools, Self::Firmware, Self::TeeFirmware, Self::TestOracles];

    /// Its name in the lock file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::ImageTools => "image-tools",
            Self::VmTools => "vm-tools",
            Self::Firmware => "firmware",
            Self::TeeFirmware => "tee-firmware",
            Self::TestOracles => "test-oracles",
        }
    }
}

const STABLE: &str = "trixie";
const BACKPORTS: &str = "trixie-backports";
const UNSTABLE: &str = "sid";

/// The kernel's release: part of its packages' names and of paths in them.
pub(crate) const KERNEL: &str = "7.3.4+deb13-cloud-amd64";

pub(crate) const WANTED: [Wanted; 6] = [
    Wanted {
        group: Group::Guest,
        suites: &[STABLE],
        roots: &[
            // 7.3 is the first kernel with TSM_MEASUREMENTS: runtime registers through sysfs.
            ("linux-binary-7.3.4+deb13-cloud-amd64", Some(BACKPORTS)),
            ("linux-modules-7.3.4+deb13-cloud-amd64", Some(BACKPORTS)),
            ("libc6", None),
            ("libgcc-s1", None),
        ],
        // The root has a closed list of files: see `rootfs`.
        closure: false,
        without: &[],
    },
    Wanted {
        group: Group::ImageTools,
        suites: &[STABLE],
        roots: &[("erofs-utils", None)],
        closure: true,
        without: &[NO_GCC_BASE],
    },
    Wanted {
        group: Group::VmTools,
        suites: &[STABLE, BACKPORTS],
        roots: &[
            // 11.1 has tdx-guest and sev-snp-guest, and measures the kernel file as it is.
            ("qemu-system-x86", Some(BACKPORTS)),
            ("swtpm", None),
        ],
        closure: true,
        without: &[
            NO_GCC_BASE,
            ("qemu-system-common", "modules for sound, USB and displays; the machine has none of them"),
            ("seabios", "machines begin with OVMF"),
            ("ipxe-qemu", "nothing boots from a network"),
            ("libsasl2-modules-db", "a password database for VNC"),
            ("openssl", "the command-line program; the library is libssl3t64"),
            ("adduser", "only for an installation"),
            ("passwd", "only for an installation"),
            ("debconf", "only for an installation"),
            ("libglib2.0-bin", "no program of it is used"),
            ("openssl-provider-legacy", "loaded on demand; nothing here asks for old ciphers"),
            ("sensible-utils", "only for an installation"),
        ],
    },
    Wanted {
        group: Group::Firmware,
        suites: &[STABLE],
        roots: &[("ovmf", None)],
        closure: false,
        without: &[],
    },
    Wanted {
        group: Group::TeeFirmware,
        suites: &[UNSTABLE],
        roots: &[("ovmf-inteltdx", None), ("ovmf-amdsev", None)],
        closure: false,
        without: &[],
    },
    Wanted {
        group: Group::TestOracles,
        suites: &[STABLE],
        roots: &[("cpio", None), ("cryptsetup-bin", None)],
        closure: true,
        without: &[
            NO_GCC_BASE,
            ("debconf", "only for an installation"),
            ("openssl-provider-legacy", "as above"),
        ],
    },
];

const NO_GCC_BASE: (&str, &str) = ("gcc-14-base", "an empty folder");
