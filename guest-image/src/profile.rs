//! Named machine profiles: all of a machine that its measurements depend on, and what was recorded of it.
//!
//! | changes with | what |
//! | --- | --- |
//! | vCPUs | ACPI (loader, root pointer, tables), SMBIOS, the SNP launch digest |
//! | memory | ACPI tables, SMBIOS, TD HOB |
//! | devices, their number and slots | ACPI (loader, root pointer, tables) |
//! | CPU model | SMBIOS (unless QEMU is told a processor id), the SNP launch digest |
//! | QEMU's version | possibly all of ACPI and SMBIOS |
//!
//! What QEMU generates cannot be had from files. It is in a [`Record`], made once for each profile from the log of any boot of
//! that machine, and the same for every image. SNP measures none of it and needs no record.

use cocoon_attestation::EventLog;
use cocoon_attestation::eventlog::{Bank, EventType};
use serde::{Deserialize, Serialize};

use crate::diff::LogKind;
use crate::hex_bytes::{HexBytes, Sha384};
use crate::manifest::{Provenance, is_plain_name};
use crate::snp::{VCPUS_MAX, VcpuType};

/// The largest file of a profile or record, in bytes.
pub const PROFILE_MAX: usize = 64 * 1024;
/// Most memory of a machine: 16 TiB.
pub const MEMORY_MIB_MAX: u32 = 16 << 20;
/// Most GPUs of a machine.
pub const GPUS_MAX: u8 = 16;

/// A machine. In TOML, with no other fields than these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name: lower-case letters, digits, `.` and `-`.
    pub name: String,
    /// What kind of TEE.
    pub platform: PlatformName,
    /// The firmware's file name in the image's folder `firmware`.
    pub firmware: String,
    /// QEMU's version, major and minor: `11.1`.
    pub qemu: String,
    /// How many vCPUs.
    pub vcpus: u32,
    /// How much memory, in MiB.
    pub memory_mib: u32,
    /// How many GPUs are passed through.
    pub gpus: u8,
    /// `opt/ovmf/X-PciMmio64Mb` of QEMU's fw_cfg, in MiB; eight large GPUs need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_mmio64_mib: Option<u32>,
    /// What only SNP has: given for it, and for it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snp: Option<SnpMachine>,
}

/// The kinds of machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformName {
    /// Intel TDX.
    Tdx,
    /// AMD SEV-SNP.
    Snp,
    /// QEMU without a TEE, beside the emulator of a TDX module.
    Emulation,
}

/// What an SNP launch digest depends on beside the files and the number of vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpMachine {
    /// QEMU's model of the processor.
    pub vcpu_type: VcpuType,
    /// SEV_FEATURES that KVM sets: 1 is SNP alone.
    pub guest_features: u64,
}

/// What QEMU generates for a machine: digests of what the firmware measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What kind of boot it is from.
    pub provenance: Provenance,
    /// SHA-384 of `etc/table-loader`.
    pub acpi_loader: Sha384,
    /// SHA-384 of `etc/acpi/rsdp`.
    pub acpi_rsdp: Sha384,
    /// SHA-384 of `etc/acpi/tables`.
    pub acpi_tables: Sha384,
    /// SHA-384 of the SMBIOS tables as newer firmware measures them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smbios: Option<Sha384>,
}

/// Why a profile or record is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidProfile {
    /// Too long, or no TOML of this shape.
    #[error("not of the format: {0}")]
    Format(String),
    /// A value that no machine has.
    #[error("{field}: {reason}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A log without the events that a record is made of.
    #[error(
        "the log is not of a direct boot of known firmware: it has {0} events of ACPI tables, not 3 or, with a TPM, 4"
    )]
    Log(usize),
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// If it is not of the format, or has a value that no machine of ours has.
    pub fn from_toml(text: &str) -> Result<Self, InvalidProfile> {
        let profile: Self = from_toml(text)?;
        let wrong = |field, reason| Err(InvalidProfile::Value { field, reason });
        if !is_plain_name(&profile.name) || profile.name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return wrong("name", "must be of lower-case letters, digits, `.` and `-`");
        }
        if !is_plain_name(&profile.firmware) {
            return wrong("firmware", "must be a plain file name");
        }
        if !is_version(&profile.qemu) {
            return wrong("qemu", "must be a version of two numbers, such as 11.1");
        }
        if !(1..=VCPUS_MAX).contains(&profile.vcpus) {
            return wrong("vcpus", "must be 1 to 1024");
        }
        if !(256..=MEMORY_MIB_MAX).contains(&profile.memory_mib) {
            return wrong("memory_mib", "must be 256 to 16777216");
        }
        if profile.gpus > GPUS_MAX {
            return wrong("gpus", "must be 0 to 16");
        }
        if profile.snp.is_some() != (profile.platform == PlatformName::Snp) {
            return wrong("snp", "must be given for SNP, and for nothing else");
        }
        Ok(profile)
    }

    /// The machine's memory, in bytes.
    pub fn memory(&self) -> u64 {
        u64::from(self.memory_mib) << 20
    }
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// If it is not of the format.
    pub fn from_toml(text: &str) -> Result<Self, InvalidProfile> {
        let record: Self = from_toml(text)?;
        if record.provenance == Provenance::Sources {
            let reason = "must be `hardware` or `emulated`: what nobody booted is no record";
            return Err(InvalidProfile::Value { field: "provenance", reason });
        }
        Ok(record)
    }

    /// Its fields as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("digests can be written")
    }

    /// Makes a record from the log of a boot of that machine, by a TPM or by a TD's firmware (CCEL). Who makes it believes the
    /// machine that the log is from, and that a log of a TD's form is of a TD; that the record is true shows when a prediction from it meets a genuine quote.
    ///
    /// # Errors
    /// If the log has not exactly the events of ACPI tables that a direct boot makes, in the SHA-384 bank.
    pub fn from_log(log: &EventLog<'_>) -> Result<Self, InvalidProfile> {
        let digests = |kind: EventType| {
            let events = log.events().iter().filter(move |event| event.kind() == kind);
            events.filter_map(|event| {
                let digest: [u8; 48] = event.digest(Bank::Sha384)?.try_into().ok()?;
                Some((event.data(), HexBytes(digest)))
            })
        };
        let acpi: Vec<_> = digests(EventType::PLATFORM_CONFIG_FLAGS)
            .filter(|(data, _)| *data == b"ACPI DATA")
            .map(|(_, digest)| digest)
            .collect();
        let (acpi_loader, acpi_rsdp, acpi_tables) = match acpi.as_slice() {
            [loader, rsdp, tables] | [loader, rsdp, _, tables] => (*loader, *rsdp, *tables),
            other => return Err(InvalidProfile::Log(other.len())),
        };
        let smbios = digests(EventType::EFI_HANDOFF_TABLES).next().map(|(_, digest)| digest);
        let provenance = match LogKind::of(log) {
            LogKind::Ccel => Provenance::Hardware,
            LogKind::Tpm => Provenance::Emulated,
        };
        Ok(Self { provenance, acpi_loader, acpi_rsdp, acpi_tables, smbios })
    }
}

fn from_toml<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, InvalidProfile> {
    if text.len() > PROFILE_MAX {
        return Err(InvalidProfile::Format("it is longer than 64 KiB".to_owned()));
    }
    toml::from_str(text).map_err(|error| InvalidProfile::Format(error.to_string()))
}

fn is_version(text: &str) -> bool {
    let number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    matches!(text.split_once('.'), Some((major, minor)) if number(major) && number(minor))
}

macro_rules! profiles {
    ($($name:literal $record:expr;)*) => {
        /// Each profile's text, and its record's if there is one.
        const BUILT_IN: &[(&str, Option<&str>)] =
            &[$((include_str!(concat!("../profiles/", $name, ".toml")), $record)),*];
    };
}

macro_rules! record {
    ($name:literal) => {
        Some(include_str!(concat!("../profiles/", $name, ".record.toml")))
    };
}

profiles! {
    "emulation-1" record!("emulation-1");
    "emulation-2" record!("emulation-2");
    "snp-h100-1" None;
    "snp-h100-8" None;
    "tdx-cpu-1" record!("tdx-cpu-1");
    "tdx-h100-1" record!("tdx-h100-1");
    "tdx-h100-8" None;
}

/// The profiles that come with this crate, by name, each with its record if there is one.
pub fn built_in() -> Vec<(Profile, Option<Record>)> {
    let read = |(profile, record): &(&str, Option<&str>)| {
        let record = record.map(|text| Record::from_toml(text).expect("a test reads each"));
        (Profile::from_toml(profile).expect("a test reads each"), record)
    };
    BUILT_IN.iter().map(read).collect()
}

#[cfg(test)]
mod tests;
