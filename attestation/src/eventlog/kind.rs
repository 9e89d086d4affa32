//! Event types, and what the digest of each is over.
//!
//! Names, numbers and rules are those of the TCG PC Client Platform Firmware Profile (PFP) 1.06, 10.4.1, table 27.
//! Where firmware and boot loaders in the field do otherwise, the rule says so here and nowhere else:
//!
//! - `EV_EFI_VARIABLE_BOOT`: EDK II hashes the variable's data alone, not the structure with its name.
//! - `EV_PLATFORM_CONFIG_FLAGS`: OVMF measures what QEMU handed over and logs only a label ("ACPI DATA").
//! - `EV_EVENT_TAG`: Linux' EFI stub and systemd-boot measure an initrd or a command line and log only a label; attestation
//!   agents hash the tagged data without its head.
//! - `EV_IPL`: GRUB hashes what follows its prefix, without the closing zero; shim logs a variable's name and hashes its value.

/// What a digest is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Nothing: the event is not extended, and its digests are zero.
    NotExtended,
    /// The event's data, all of it; anything else is refused.
    Data,
    /// UEFI_VARIABLE_DATA, or the variable's value alone; anything else is refused.
    Variable,
    /// What a boot loader says it is, see [`super::origin`].
    BootLoader,
    /// A TCG_PCClientTaggedEvent, its data, or something outside the log.
    Tagged,
    /// The event's data, or something outside the log: code, tables, blobs.
    Anything,
}

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventType(pub(super) u32);

macro_rules! event_types {
    ($($name:ident $code:literal $rule:ident)*) => {
        #[expect(missing_docs, reason = "the names are the specification's own")]
        impl EventType {
            $(pub const $name: Self = Self($code);)*
        }

        const TABLE: &[(u32, &str, Rule)] = &[$(($code, concat!("EV_", stringify!($name)), Rule::$rule)),*];
    };
}

event_types! {
    POST_CODE 0x0000_0001 Anything
    NO_ACTION 0x0000_0003 NotExtended
    SEPARATOR 0x0000_0004 Data
    ACTION 0x0000_0005 Data
    EVENT_TAG 0x0000_0006 Tagged
    S_CRTM_CONTENTS 0x0000_0007 Anything
    S_CRTM_VERSION 0x0000_0008 Data
    CPU_MICROCODE 0x0000_0009 Anything
    PLATFORM_CONFIG_FLAGS 0x0000_000a Anything
    TABLE_OF_DEVICES 0x0000_000b Anything
    COMPACT_HASH 0x0000_000c Anything
    IPL 0x0000_000d BootLoader
    IPL_PARTITION_DATA 0x0000_000e Anything
    NONHOST_CODE 0x0000_000f Anything
    NONHOST_CONFIG 0x0000_0010 Anything
    NONHOST_INFO 0x0000_0011 Anything
    OMIT_BOOT_DEVICE_EVENTS 0x0000_0012 Data
    POST_CODE2 0x0000_0013 Anything
    EFI_VARIABLE_DRIVER_CONFIG 0x8000_0001 Data
    EFI_VARIABLE_BOOT 0x8000_0002 Variable
    EFI_BOOT_SERVICES_APPLICATION 0x8000_0003 Anything
    EFI_BOOT_SERVICES_DRIVER 0x8000_0004 Anything
    EFI_RUNTIME_SERVICES_DRIVER 0x8000_0005 Anything
    EFI_GPT_EVENT 0x8000_0006 Data
    EFI_ACTION 0x8000_0007 Data
    EFI_PLATFORM_FIRMWARE_BLOB 0x8000_0008 Anything
    EFI_HANDOFF_TABLES 0x8000_0009 Anything
    EFI_PLATFORM_FIRMWARE_BLOB2 0x8000_000a Anything
    EFI_HANDOFF_TABLES2 0x8000_000b Anything
    EFI_VARIABLE_BOOT2 0x8000_000c Variable
    EFI_GPT_EVENT2 0x8000_000d Data
    EFI_HCRTM_EVENT 0x8000_0010 Anything
    EFI_VARIABLE_AUTHORITY 0x8000_00e0 Data
    EFI_SPDM_FIRMWARE_BLOB 0x8000_00e1 Anything
    EFI_SPDM_FIRMWARE_CONFIG 0x8000_00e2 Anything
    EFI_SPDM_DEVICE_POLICY 0x8000_00e3 Data
    EFI_SPDM_DEVICE_AUTHORITY 0x8000_00e4 Data
}

impl EventType {
    /// Its number.
    pub fn code(self) -> u32 {
        self.0
    }

    /// The specification's name, or "unknown type".
    pub fn name(self) -> &'static str {
        self.row().map_or("unknown type", |(_, name, _)| name)
    }

    pub(super) fn rule(self) -> Rule {
        self.row().map_or(Rule::Anything, |(.., rule)| *rule)
    }

    fn row(self) -> Option<&'static (u32, &'static str, Rule)> {
        TABLE.iter().find(|(code, ..)| *code == self.0)
    }
}
