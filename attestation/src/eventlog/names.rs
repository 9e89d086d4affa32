//! What an event is, in words. The words say what the log claims; [`super::Origin`] says how far that holds.

use super::kind::EventType;
use super::origin::{grub_string, tagged};
use super::text::{ascii, guessed, guid, utf16};
use super::uefi::{self, Variable};
use super::{Event, Origin};

/// Title and description.
type Words = (String, String);

fn words(title: &str, description: impl Into<String>) -> Words {
    (title.to_owned(), description.into())
}

/// Vendors of variables whose names mean something (UEFI 2.10, 3.3 and 32.3; shim).
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const IMAGE_SECURITY: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";
const SHIM: &str = "605dab50-e046-4300-abb6-3dd810dd8b23";
/// Type of dstack's run-time events.
const DSTACK: EventType = EventType(0x0800_0001);

pub(super) fn describe(event: &Event<'_>) -> Words {
    let data = event.data;
    match event.kind {
        EventType::NO_ACTION => words("Not measured", guessed(data)),
        EventType::SEPARATOR => separator(data),
        EventType::ACTION | EventType::EFI_ACTION => words("Firmware action", ascii(data)),
        EventType::EVENT_TAG => tag(event),
        EventType::S_CRTM_CONTENTS => words("First firmware code", guessed(data)),
        EventType::S_CRTM_VERSION => words("Firmware version", guessed(data)),
        EventType::POST_CODE => words("Firmware code", guessed(data)),
        EventType::POST_CODE2 => words("Firmware code", blob(data)),
        EventType::CPU_MICROCODE => words("Microcode", guessed(data)),
        EventType::PLATFORM_CONFIG_FLAGS => platform_configuration(data),
        EventType::IPL => boot_loader(event),
        EventType::EFI_VARIABLE_DRIVER_CONFIG
        | EventType::EFI_VARIABLE_BOOT
        | EventType::EFI_VARIABLE_BOOT2
        | EventType::EFI_VARIABLE_AUTHORITY
        | EventType::EFI_SPDM_DEVICE_POLICY
        | EventType::EFI_SPDM_DEVICE_AUTHORITY => variable(event),
        EventType::EFI_BOOT_SERVICES_APPLICATION => image("Program started by the firmware", data),
        EventType::EFI_BOOT_SERVICES_DRIVER | EventType::EFI_RUNTIME_SERVICES_DRIVER => {
            image("Driver started by the firmware", data)
        }
        EventType::EFI_GPT_EVENT | EventType::EFI_GPT_EVENT2 => {
            words("Partition table", uefi::partitions(data).unwrap_or_else(|| guessed(data)))
        }
        EventType::EFI_PLATFORM_FIRMWARE_BLOB2 => words("Firmware volume", blob(data)),
        EventType::EFI_HANDOFF_TABLES2 => handoff(data),
        DSTACK => words("dstack run-time event", guessed(data)),
        kind => (format!("{} ({:#x})", kind.name(), kind.code()), guessed(data)),
    }
}

/// PFP 3.3.2.2: zero or all ones after the firmware's own work, one after an error.
fn separator(data: &[u8]) -> Words {
    match data {
        [0, 0, 0, 0] | [0xff, 0xff, 0xff, 0xff] => words("Separator", "the firmware's own work ends here"),
        [1, 0, 0, 0] => words("Separator after an error", "the firmware could not measure"),
        other => words("Separator", guessed(other)),
    }
}

fn blob(data: &[u8]) -> String {
    uefi::firmware_blob(data).unwrap_or_else(|| guessed(data))
}

fn image(title: &str, data: &[u8]) -> Words {
    words(title, uefi::image_path(data).unwrap_or_else(|| format!("path not readable, {} bytes", data.len())))
}

/// TDX firmware measures the list of memory and devices that the host hands over as "TdxTable" (TDX Virtual Firmware
/// Design Guide, 8.3.1).
fn handoff(data: &[u8]) -> Words {
    match uefi::handoff_table(data).as_deref() {
        Some("TdxTable") => {
            words("TD HOB list", "memory and devices, as the host handed them to the firmware")
        }
        Some(other) => words("Table handed over", other),
        None => words("Table handed over", guessed(data)),
    }
}

fn platform_configuration(data: &[u8]) -> Words {
    const QEMU: &[u8] = b"QEMU FW CFG\0";
    match (data, data.strip_prefix(QEMU)) {
        (b"ACPI DATA", _) => words("ACPI tables from the host", "loader script, root pointer or tables"),
        (_, Some(file)) => {
            let end = file.iter().position(|byte| *byte == 0).unwrap_or(file.len());
            words("QEMU configuration file", ascii(&file[..end]))
        }
        _ => words("Platform configuration", guessed(data)),
    }
}

fn variable(event: &Event<'_>) -> Words {
    let Some(variable) = Variable::parse(event.data) else {
        return words("Variable", guessed(event.data));
    };
    let (vendor, name, value) = (guid(variable.vendor), variable.name(), variable.value);
    match (vendor.as_str(), name.as_str()) {
        (GLOBAL, "SecureBoot") => match value {
            [1] => words("Secure Boot is on", ""),
            [0] => words("Secure Boot is off", ""),
            [] => words("Secure Boot is off", "the firmware has no such variable"),
            other => words("Secure Boot is in no known state", guessed(other)),
        },
        _ if event.kind == EventType::EFI_VARIABLE_AUTHORITY => authority(&vendor, &name, value),
        (GLOBAL, "PK") => words("Platform key (PK)", database(value)),
        (GLOBAL, "KEK") => words("Key exchange keys (KEK)", database(value)),
        (IMAGE_SECURITY, "db") => words("Keys of accepted programs (db)", database(value)),
        (IMAGE_SECURITY, "dbx") => words("Barred programs (dbx)", database(value)),
        (GLOBAL, "BootOrder") => {
            words("Boot order", uefi::boot_order(value).unwrap_or_else(|| guessed(value)))
        }
        (GLOBAL, name) if is_boot_entry(name) => (
            format!("Boot variable {name}"),
            uefi::load_option(value).unwrap_or_else(|| format!("{} bytes, not a load option", value.len())),
        ),
        (_, name) => (format!("Variable {name}"), format!("{} (vendor {vendor})", guessed(value))),
    }
}

fn is_boot_entry(name: &str) -> bool {
    name.strip_prefix("Boot")
        .is_some_and(|number| number.len() == 4 && number.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// What a program was accepted by: a certificate of a database (PFP 3.3.4.8), or shim's own variables.
fn authority(vendor: &str, name: &str, value: &[u8]) -> Words {
    match (vendor, name) {
        (SHIM, "SbatLevel") => words("shim: revocation level (SBAT)", guessed(value)),
        (SHIM, name) => (format!("shim: {name}"), guessed(value)),
        (_, name) => (
            format!("A program was accepted by {name}"),
            format!("certificate or hash of {} bytes", value.len()),
        ),
    }
}

fn database(value: &[u8]) -> String {
    match uefi::signatures(value) {
        Some(0) => "empty".into(),
        Some(count) => format!("{count} certificates or hashes, {} bytes", value.len()),
        None => format!("{} bytes, not a signature database", value.len()),
    }
}

/// Strings of GRUB, sections of a unified kernel image, command lines, shim's variables, or names of files.
fn boot_loader(event: &Event<'_>) -> Words {
    let data = event.data;
    if let Some(text) = grub_string(data) {
        let title = match data.first() {
            Some(b'k') => "Kernel command line",
            Some(b'm') => "GRUB module command line",
            _ => "GRUB command",
        };
        return words(title, ascii(text));
    }
    let text = guessed(data);
    match event.origin {
        Origin::Recomputed if text.starts_with('.') => words("Section of a unified kernel image", text),
        Origin::Recomputed => words("Boot loader's text", text),
        _ if text.starts_with('.') => words("Contents of a section of a unified kernel image", text),
        _ if text.starts_with("Mok") => (format!("shim: {text}"), String::new()),
        _ if text.starts_with('/') || text.starts_with('(') => words("File read by the boot loader", text),
        _ => words("Measured by the boot loader", text),
    }
}

/// Tags of Linux' EFI stub (drivers/firmware/efi/libstub) and of systemd (src/fundamental/tpm2-pcr.h).
fn tag(event: &Event<'_>) -> Words {
    let Some((tag, inner)) = tagged(event.data) else {
        return words("Tagged event", guessed(event.data));
    };
    let title = match tag {
        0x8f3b_22ec => "Initial RAM disk",
        0x8f3b_22ed => "Kernel command line, by digest",
        0xf5bc_582a => "systemd-boot: loader.conf",
        0x6c46_f751 => "systemd-stub: device tree",
        0x49df_fe0f => "systemd-stub: initial RAM disk of an add-on",
        0xdac0_8e1a => "systemd-stub: microcode of an add-on",
        0x13ae_d6db => "systemd-stub: profile of the unified kernel image",
        _ => return (format!("Tagged event {tag:#010x}"), guessed(inner)),
    };
    let zero_terminated_utf16 = inner.ends_with(&[0, 0]);
    words(title, if zero_terminated_utf16 { utf16(inner) } else { guessed(inner) })
}
