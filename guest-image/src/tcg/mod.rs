//! The events of a direct kernel boot, register by register, from files alone.
//!
//! Firmware measures into a TPM's PCRs, or in a TD into the RTMR that stands for the PCR (TDX Virtual Firmware Design Guide 1.01,
//! 8.1; the emulated TDX module maps likewise). PCR 0, the firmware's own code, has no RTMR: MRTD stands for it.
//!
//! | PCR | RTMR | events |
//! | --- | --- | --- |
//! | 1 | 0 | TD HOB and variables (TDX); ACPI tables, SMBIOS, boot options |
//! | 7 | 0 | Secure Boot: off, without keys |
//! | 2, 3, 6 | 1 | separators |
//! | 4, 5 | 1 | the kernel, and the steps of starting it |
//! | 9 | 2 | command line and initrd, measured by the kernel's own EFI code |

mod firmware;
mod values;

pub use firmware::{KnownFirmware, known_firmware};

use cocoon_attestation::eventlog::EventType;

use crate::digest::sha384;
use crate::hex_bytes::HexBytes;
use crate::manifest::{Event, Register};
use crate::profile::Record;
use values::{GLOBAL, IMAGE_SECURITY, absent_variable, utf16};

/// QEMU reserves this much for the TPM's log (hw/acpi/tpm.h), and the firmware measures it, empty, as an ACPI table.
static TPM_LOG: [u8; 64 * 1024] = [0; 64 * 1024];
/// What QEMU's fw_cfg says of the boot order when it is given a kernel: one option ROM, which OVMF ignores.
const BOOT_ORDER: &[u8] = b"/rom@genroms/linuxboot_dma.bin\0";

/// What is booted, on what.
#[derive(Clone, Copy)]
pub(crate) struct Boot<'a> {
    pub(crate) firmware: &'static KnownFirmware,
    /// Authenticode digest of the kernel.
    pub(crate) kernel: [u8; 48],
    /// SHA-384 of the initrd.
    pub(crate) initrd: [u8; 48],
    pub(crate) command_line: &'a str,
    pub(crate) record: &'a Record,
}

/// What only a TD's firmware measures.
#[derive(Clone, Copy)]
pub(crate) struct Td {
    /// SHA-384 of the TD HOB.
    pub(crate) hand_off: [u8; 48],
    /// SHA-384 of the firmware's variables, as they are in the file.
    pub(crate) variables: [u8; 48],
    /// `opt/ovmf/X-PciMmio64Mb`, if the machine has it.
    pub(crate) pci_mmio64: Option<u32>,
}

/// Collects events in the order of the boot.
struct Log(Vec<Event>);

impl Log {
    fn add(&mut self, pcr: u8, kind: EventType, digest: [u8; 48], what: impl Into<String>) {
        let register = match pcr {
            1 | 7 => Register::Rtmr0,
            2..=6 => Register::Rtmr1,
            _ => Register::Rtmr2,
        };
        let (kind, digest) = (kind.name().to_owned(), HexBytes(digest));
        self.0.push(Event { register, pcr: Some(pcr), kind, digest, what: what.into() });
    }

    fn text(&mut self, pcr: u8, text: &str) {
        self.add(pcr, EventType::EFI_ACTION, sha384(&[text.as_bytes()]), text);
    }

    fn separator(&mut self, pcr: u8, what: impl Into<String>) {
        self.add(pcr, EventType::SEPARATOR, sha384(&[&[0; 4]]), what);
    }
}

impl Boot<'_> {
    /// The events of a machine with a TPM, but for those of PCR 0.
    pub(crate) fn tpm_events(&self) -> Vec<Event> {
        let mut log = Log(Vec::new());
        self.secure_boot(&mut log);
        self.acpi(&mut log, true);
        self.boot_options(&mut log);
        for pcr in 1..=6 {
            log.separator(pcr, format!("PCR {pcr}: the firmware is ready to boot"));
        }
        self.start(&mut log);
        log.0
    }

    /// The events of a TD.
    pub(crate) fn td_events(&self, td: &Td) -> Vec<Event> {
        let mut log = Log(Vec::new());
        let (hand_off, variables) =
            ("TD HOB: the memory that QEMU gives the machine", "CFV: the firmware's variables");
        log.add(1, EventType::EFI_HANDOFF_TABLES2, td.hand_off, hand_off);
        log.add(1, EventType::EFI_PLATFORM_FIRMWARE_BLOB2, td.variables, variables);
        if self.firmware.dialect.measures_fw_cfg() {
            fw_cfg(&mut log, td.pci_mmio64);
        }
        self.secure_boot(&mut log);
        self.acpi(&mut log, false);
        self.boot_options(&mut log);
        // TDX firmware measures one separator for PCR 2 to 6, and none more for PCR 1, which shares PCR 7's register.
        log.separator(4, "the firmware is ready to boot");
        self.start(&mut log);
        log.0
    }

    fn secure_boot(&self, log: &mut Log) {
        let variables = [
            (GLOBAL, "SecureBoot"),
            (GLOBAL, "PK"),
            (GLOBAL, "KEK"),
            (IMAGE_SECURITY, "db"),
            (IMAGE_SECURITY, "dbx"),
        ];
        for (vendor, name) in variables {
            let what = format!("Secure Boot variable {name}: there is none, Secure Boot is off");
            log.add(7, EventType::EFI_VARIABLE_DRIVER_CONFIG, absent_variable(&vendor, name), what);
        }
        log.separator(7, "Secure Boot's state is known");
    }

    /// In the order of QEMU's loader script: its commands to allocate are followed one by one.
    fn acpi(&self, log: &mut Log, tpm: bool) {
        const KIND: EventType = EventType::PLATFORM_CONFIG_FLAGS;
        let record = self.record;
        log.add(1, KIND, record.acpi_loader.0, "QEMU's script for placing ACPI tables (etc/table-loader)");
        log.add(1, KIND, record.acpi_rsdp.0, "ACPI root pointer (etc/acpi/rsdp)");
        if tpm {
            log.add(1, KIND, sha384(&[&TPM_LOG]), "the area for the TPM's log, empty (etc/tpm/log)");
        }
        log.add(1, KIND, record.acpi_tables.0, "ACPI tables (etc/acpi/tables)");
    }

    /// From the loading of the kernel to "ready to boot".
    fn boot_options(&self, log: &mut Log) {
        let dialect = self.firmware.dialect;
        log.add(
            4,
            EventType::EFI_BOOT_SERVICES_APPLICATION,
            self.kernel,
            "the kernel (vmlinuz, Authenticode)",
        );
        if let Some(smbios) = self.record.smbios.filter(|_| dialect.measures_smbios()) {
            log.add(
                1,
                EventType::EFI_HANDOFF_TABLES,
                smbios.0,
                "SMBIOS tables, without serial numbers and counts",
            );
        }
        let options = dialect.boot_options();
        let order: Vec<u8> = (0..options.len() as u16).flat_map(u16::to_le_bytes).collect();
        log.add(1, EventType::EFI_VARIABLE_BOOT, sha384(&[&order]), "BootOrder: the firmware's own programs");
        for (number, option) in options.iter().enumerate() {
            let what = format!("Boot{number:04X}: {}, a program of the firmware", option.title);
            log.add(1, EventType::EFI_VARIABLE_BOOT, sha384(&[&option.bytes()]), what);
        }
        log.text(4, "Calling EFI Application from Boot Option");
    }

    /// What the kernel's EFI code measures, and the end of boot services.
    fn start(&self, log: &mut Log) {
        let command_line = utf16(&self.firmware.dialect.command_line(self.command_line));
        log.add(
            9,
            EventType::EVENT_TAG,
            sha384(&[&command_line]),
            "command line (UTF-16, with the initrd's name)",
        );
        log.add(9, EventType::EVENT_TAG, self.initrd, "initrd");
        log.text(5, "Exit Boot Services Invocation");
        log.text(5, "Exit Boot Services Returned with Success");
    }
}

/// Files of fw_cfg, in the order of the firmware's list; those that a machine of ours never has are left out.
fn fw_cfg(log: &mut Log, pci_mmio64: Option<u32>) {
    const KIND: EventType = EventType::PLATFORM_CONFIG_FLAGS;
    log.add(1, KIND, sha384(&[&[0; 2]]), "QEMU's boot menu: off (fw_cfg BootMenu)");
    if let Some(mebibytes) = pci_mmio64 {
        let what = "space for the GPUs' memory (fw_cfg opt/ovmf/X-PciMmio64Mb)";
        log.add(1, KIND, sha384(&[mebibytes.to_string().as_bytes()]), what);
    }
    log.add(1, KIND, sha384(&[BOOT_ORDER]), "QEMU's boot order: its kernel loader (fw_cfg bootorder)");
}

#[cfg(test)]
mod tests;
