//! What an image measures on a machine: files, profile and record in, registers and events out.

use crate::digest::{ZERO, extended, sha384};
use crate::hex_bytes::{HexBytes, Sha256};
use crate::manifest::{Event, Measurement, Provenance, Register, Registers, TdxRegisters};
use crate::pe::{NotPe, Program};
use crate::profile::{PlatformName, Profile, Record, built_in};
use crate::snp::{Launch, NotSnp, launch_digest};
use crate::tcg::{Boot, KnownFirmware, Td, known_firmware};
use crate::tdvf::{NotTdvf, Tdvf};

/// The files that a machine boots, as bytes. The root is named by its hash in the command line.
#[derive(Clone, Copy)]
pub struct BootFiles<'a> {
    /// The firmware that the profile names.
    pub firmware: &'a [u8],
    /// `vmlinuz`.
    pub kernel: &'a [u8],
    /// `initrd.cpio`.
    pub initrd: &'a [u8],
    /// `cmdline`.
    pub command_line: &'a str,
}

/// Why nothing can be predicted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotMeasure {
    /// The firmware's way of booting is not known.
    #[error(
        "no prediction for the firmware {0}: what it measures is not known. Use a firmware of the image (Debian's \
         OVMF.inteltdx.ms.fd only with empty variables), or boot it and teach tcg/firmware.rs what its log says"
    )]
    UnknownFirmware(Sha256),
    /// What QEMU generates for this machine was never recorded.
    #[error(
        "no record of the machine {0}: RTMR0 holds ACPI tables that QEMU generates. Boot any image on that machine and make one \
         from its log (cocoon image record)"
    )]
    NoRecord(String),
    /// The record lacks what this firmware measures.
    #[error(
        "the record of the machine {0} has no SMBIOS digest, and this firmware measures SMBIOS: make the record again"
    )]
    NoSmbios(String),
    /// The firmware cannot start a TD.
    #[error("firmware: {0}")]
    Tdvf(#[from] NotTdvf),
    /// The firmware cannot start an SNP guest.
    #[error("firmware: {0}")]
    Snp(#[from] NotSnp),
    /// The kernel is no EFI program.
    #[error("kernel: {0}")]
    Kernel(#[from] NotPe),
    /// A profile for SNP without its vCPU type.
    #[error("the profile {0} is for SNP and says no vCPU type")]
    NoVcpuType(String),
}

/// Predicts what `files` measure on the machine `profile`.
///
/// # Errors
/// [`CannotMeasure`], with what to do.
pub fn measure(
    files: &BootFiles<'_>,
    profile: &Profile,
    record: Option<&Record>,
) -> Result<Measurement, CannotMeasure> {
    let (provenance, (registers, events)) = match profile.platform {
        PlatformName::Snp => (Provenance::Sources, snp(files, profile)?),
        PlatformName::Tdx | PlatformName::Emulation => {
            let hash = Sha256::of(files.firmware);
            let firmware = known_firmware(hash).ok_or(CannotMeasure::UnknownFirmware(hash))?;
            let record = record.ok_or_else(|| CannotMeasure::NoRecord(profile.name.clone()))?;
            (record.provenance, tdx(files, profile, record, firmware)?)
        }
    };
    Ok(Measurement {
        profile: profile.name.clone(),
        firmware: Sha256::of(files.firmware),
        qemu: profile.qemu.clone(),
        provenance,
        registers,
        events,
    })
}

/// The measurements of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predicted {
    /// By profile, as a manifest has them.
    pub measurements: Vec<Measurement>,
    /// The profiles that could be booted, but of which no record exists.
    pub not_recorded: Vec<String>,
}

/// Predicts what an image measures on every machine of this crate whose firmware it has: what goes into its manifest.
///
/// `firmware` are names (as in the manifest) with bytes; that of `files` is not looked at.
///
/// # Errors
/// As [`measure`], but for machines without a record, which are listed.
pub fn measure_all(files: &BootFiles<'_>, firmware: &[(&str, &[u8])]) -> Result<Predicted, CannotMeasure> {
    let mut predicted = Predicted { measurements: Vec::new(), not_recorded: Vec::new() };
    for (profile, record) in built_in() {
        let Some((_, bytes)) = firmware.iter().find(|(name, _)| *name == profile.firmware) else { continue };
        let files = BootFiles { firmware: bytes, ..*files };
        match measure(&files, &profile, record.as_ref()) {
            Ok(measurement) => predicted.measurements.push(measurement),
            Err(CannotMeasure::NoRecord(name)) => predicted.not_recorded.push(name),
            Err(error) => return Err(error),
        }
    }
    Ok(predicted)
}

fn tdx(
    files: &BootFiles<'_>,
    profile: &Profile,
    record: &Record,
    firmware: &'static KnownFirmware,
) -> Result<(Registers, Vec<Event>), CannotMeasure> {
    let tdvf = Tdvf::parse(files.firmware)?;
    let mrtd = tdvf.mrtd();
    let kernel = Program::parse(files.kernel)?.sha384();
    if firmware.measures_smbios() && record.smbios.is_none() {
        return Err(CannotMeasure::NoSmbios(profile.name.clone()));
    }
    let (initrd, command_line) = (sha384(&[files.initrd]), files.command_line);
    let boot = Boot { firmware, kernel, initrd, command_line, record };
    let mut events = vec![Event {
        register: Register::Mrtd,
        pcr: None,
        kind: "firmware".to_owned(),
        digest: HexBytes(sha384(&[files.firmware])),
        what: format!("the firmware's code, page by page as its metadata says ({})", firmware.origin),
    }];
    let emulated = profile.platform == PlatformName::Emulation;
    if emulated {
        events.extend(boot.tpm_events());
    } else {
        let (variables, hand_off) = (tdvf.variables()?, tdvf.hand_off(profile.memory())?);
        let (variables, hand_off) = (sha384(&[variables]), sha384(&[&hand_off]));
        let td = Td { hand_off, variables, pci_mmio64: profile.pci_mmio64_mib };
        events.extend(boot.td_events(&td));
    }
    let rtmr = [Register::Rtmr0, Register::Rtmr1, Register::Rtmr2].map(|r| HexBytes(replay(&events, r)));
    let registers = TdxRegisters { mrtd: HexBytes(mrtd), rtmr };
    let registers = if emulated { Registers::Emulation(registers) } else { Registers::Tdx(registers) };
    Ok((registers, events))
}

fn snp(files: &BootFiles<'_>, profile: &Profile) -> Result<(Registers, Vec<Event>), CannotMeasure> {
    let machine = profile.snp.ok_or_else(|| CannotMeasure::NoVcpuType(profile.name.clone()))?;
    let launch = Launch {
        kernel: files.kernel,
        initrd: files.initrd,
        command_line: files.command_line,
        vcpus: profile.vcpus,
        vcpu_type: machine.vcpu_type,
        guest_features: machine.guest_features,
    };
    let (digest, steps) = launch_digest(files.firmware, &launch)?;
    let event = |step: crate::snp::Step| Event {
        register: Register::LaunchDigest,
        pcr: None,
        kind: "page".to_owned(),
        digest: HexBytes(step.digest),
        what: step.what,
    };
    let registers = Registers::Snp { launch_digest: HexBytes(digest) };
    Ok((registers, steps.into_iter().map(event).collect()))
}

/// What a run-time register holds when its events have been extended, in order.
pub fn replay(events: &[Event], register: Register) -> [u8; 48] {
    let own = events.iter().filter(|event| event.register == register);
    own.fold(ZERO, |value, event| extended(&value, &event.digest.0))
}

#[cfg(test)]
mod tests;
