//! How the firmware that we know boots a kernel directly: what differs between builds, by the file's hash.
//!
//! Found by booting each under emulation with a software TPM and reading its log, and for TDX from the logs of real machines;
//! where only EDK II's sources say it, [`Dialect`] says so.

use super::values::{BOOT_MANAGER_MENU, LoadOption, UI_APP};
use crate::hex_bytes::Sha256;

/// A firmware file that predictions exist for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFirmware {
    /// SHA-256 of the file.
    pub sha256: &'static str,
    /// Where it is from, for people.
    pub origin: &'static str,
    pub(super) dialect: Dialect,
}

/// What builds do differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// EDK II up to stable202502.
    Old,
    /// EDK II from stable202505 on, OvmfPkgX64. As TDX firmware it also measures what QEMU's fw_cfg says of the boot menu, of the boot order
    /// and of 64-bit PCI memory, between its variables and Secure Boot's (OvmfPkg/Library/QemuFwCfgLib/QemuFwCfgCacheInit.c):
    /// from the sources, and seen by others on TDX with stable202505, not by us.
    New,
    /// The same time's IntelTdxX64: no set-up program among its boot options. It has no driver for a TPM, so its options were read
    /// from the variables of an emulated boot.
    NewTdx,
}

const KNOWN: &[KnownFirmware] = &[
    KnownFirmware {
        sha256: "14954040cc754ade0c625ac3470ea46d4c14318b5b1396de4ef77090203d76db",
        origin: "Debian ovmf 2025.02-8+deb13u1, OVMF.fd",
        dialect: Dialect::Old,
    },
    KnownFirmware {
        sha256: "6a3e8f438ad7269f5dfd884647587b88391fb23965bb3aa7902b519438dba129",
        origin: "Debian ovmf 2026.08+ds-2, OVMF.fd",
        dialect: Dialect::New,
    },
    KnownFirmware {
        sha256: "424e12dec9d1e175f2e9f56ea73a76dc91dd59e28334ba77310a10dd1702d7e9",
        origin: "Debian ovmf-inteltdx 2026.08+ds-2, OVMF.inteltdx.ms.fd, with empty variables",
        dialect: Dialect::NewTdx,
    },
];

/// The firmware with this hash, if predictions exist for it.
pub fn known_firmware(sha256: Sha256) -> Option<&'static KnownFirmware> {
    let hash = sha256.to_string();
    KNOWN.iter().find(|known| known.sha256 == hash)
}

impl KnownFirmware {
    /// Whether a record for it must have a digest of the SMBIOS tables.
    pub fn measures_smbios(&self) -> bool {
        self.dialect.measures_smbios()
    }
}

impl Dialect {
    /// The command line as the firmware hands it to the kernel, which measures that: the initrd's name is added.
    pub(super) fn command_line(self, command_line: &str) -> String {
        match self {
            Self::Old => format!("{command_line} initrd=initrd"),
            Self::New | Self::NewTdx => format!("initrd=initrd {command_line}"),
        }
    }

    /// The boot options that the firmware makes for its own programs, in the order of BootOrder.
    pub(super) fn boot_options(self) -> &'static [LoadOption] {
        const ACTIVE_HIDDEN_APPLICATION: u32 = 0x109;
        const ACTIVE_APPLICATION: u32 = 0x101;
        const UI: LoadOption =
            LoadOption { attributes: ACTIVE_HIDDEN_APPLICATION, title: "UiApp", program: UI_APP };
        const MENU: LoadOption = LoadOption {
            attributes: ACTIVE_HIDDEN_APPLICATION,
            title: "BootManagerMenuApp",
            program: BOOT_MANAGER_MENU,
        };
        const SETUP: LoadOption =
            LoadOption { attributes: ACTIVE_APPLICATION, title: "EFI Firmware Setup", program: UI_APP };
        match self {
            Self::Old => &[UI],
            Self::New => &[MENU, SETUP],
            Self::NewTdx => &[MENU],
        }
    }

    /// Whether it measures SMBIOS tables.
    pub(super) fn measures_smbios(self) -> bool {
        self != Self::Old
    }

    /// Whether, in a TD, it measures what it takes from fw_cfg.
    pub(super) fn measures_fw_cfg(self) -> bool {
        self != Self::Old
    }
}
