//! What an image is, and what a machine that boots it will measure: `manifest.json`.
//!
//! A manifest has one spelling. Its bytes are [`Manifest::to_json`] of its value, [`Manifest::from_json`] refuses any
//! other, and so its SHA-256 is a name of the image that the registry and policies can hold.

mod check;

use serde::{Deserialize, Serialize};

use crate::hex_bytes::{Sha256, Sha384};

/// The version of this format.
pub const MANIFEST_VERSION: u32 = 1;
/// No manifest is longer than this many bytes: a hundred profiles of two hundred events each.
pub const MANIFEST_MAX: usize = 8 << 20;

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// `cocoon-guest`, or another name of lower-case letters, digits, `.` and `-`.
    pub name: String,
    /// Which of the two images it is.
    pub variant: Variant,
    /// SHA-256 of the lock file that it was built from.
    pub lock: Sha256,
    /// The kernel's command line: the text of the file `cmdline`.
    pub command_line: String,
    /// What the machine boots.
    pub files: Files,
    /// The firmware it may be booted with, by name; files of the folder `firmware`.
    pub firmware: Vec<Firmware>,
    /// The packages in it, by name.
    pub packages: Vec<Package>,
    /// Our own programs in it, by path.
    pub programs: Vec<Program>,
    /// What machines measure, by profile and firmware.
    pub measurements: Vec<Measurement>,
}

/// The two images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// With a console and the simulated TEE. Its command line says so, and so it is measured.
    Development,
    /// No console, no simulated TEE, no network card.
    Production,
}

impl Variant {
    /// The word for it in files and on command lines.
    pub fn word(self) -> &'static str {
        match self {
            Variant::Development => "development",
            Variant::Production => "production",
        }
    }
}

/// What the machine boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// `vmlinuz`.
    pub kernel: File,
    /// `initrd.cpio`.
    pub initrd: File,
    /// `root.img`.
    pub root: Root,
    /// `cmdline`: the exact text, no newline.
    pub cmdline: File,
}

/// A file of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// SHA-256 of its bytes.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size: u64,
}

impl File {
    /// The entry for a file with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { sha256: Sha256::of(bytes), size: bytes.len() as u64 }
    }
}

/// `root.img`: an EROFS file system, then its dm-verity tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// SHA-256 of the whole file.
    pub sha256: Sha256,
    /// Its length in bytes, tree and all.
    pub size: u64,
    /// What the kernel is told about it.
    pub verity: Verity,
}

/// The parameters of a dm-verity device that differ between devices; see [`crate::verity`] for those that do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verity {
    /// The hash of the tree's top block.
    pub root_hash: Sha256,
    /// How many blocks of 4096 bytes of data there are; the tree begins behind them.
    pub data_blocks: u64,
}

/// A firmware file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Firmware {
    /// Its file name in the folder `firmware`.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size: u64,
}

/// A Debian package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name in the archive.
    pub name: String,
    /// Its version in the archive.
    pub version: String,
    /// SHA-256 of the `.deb`.
    pub sha256: Sha256,
}

/// One of our own programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Where it is in the guest: `/init` of the initrd, anything else in the root.
    pub path: String,
    /// SHA-256 of the executable.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size: u64,
}

/// What machines of one profile measure with one firmware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireMeasurement", into = "WireMeasurement")]
pub struct Measurement {
    /// The machine profile's name.
    pub profile: String,
    /// SHA-256 of the firmware.
    pub firmware: Sha256,
    /// The QEMU version that the prediction is for: `11.1`.
    pub qemu: String,
    /// How far it has been proved.
    pub provenance: Provenance,
    /// The platform, with the values its evidence shows.
    pub registers: Registers,
    /// What goes into them, in the order of the boot.
    pub events: Vec<Event>,
}

/// Where a prediction comes from, beside the image's files: how far it has been proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provenance {
    /// What QEMU generates was recorded from a boot on the TEE itself.
    Hardware,
    /// It was recorded from a boot of QEMU without a TEE.
    Emulated,
    /// Nothing was recorded: all follows from the vendor's documents and the sources of firmware and QEMU.
    Sources,
}

impl Measurement {
    /// Whether such a machine has shown what the prediction needs of it: emulation is itself where it was recorded.
    pub fn is_proved(&self) -> bool {
        matches!(self.registers, Registers::Emulation(_)) || self.provenance == Provenance::Hardware
    }

    /// How far it has been proved, for people.
    pub fn standing(&self) -> &'static str {
        match (self.provenance, &self.registers) {
            (Provenance::Hardware, _) => "recorded from a boot on such a machine",
            (Provenance::Emulated, Registers::Emulation(_)) => "recorded from a boot of this emulation",
            (Provenance::Emulated, _) => "NOT COMPARED WITH HARDWARE: recorded from QEMU without the TEE",
            (Provenance::Sources, _) => {
                "NOT COMPARED WITH HARDWARE: from the vendor's documents and sources alone"
            }
        }
    }
}

/// What a platform's evidence shows of the boot. RTMR3 is missing: it holds the configuration and the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registers {
    /// Intel TDX.
    Tdx(TdxRegisters),
    /// The emulator of a TDX module: MRTD is that of the firmware file, the RTMRs come from a software TPM.
    Emulation(TdxRegisters),
    /// AMD SEV-SNP.
    Snp {
        /// The launch digest.
        launch_digest: Sha384,
    },
}

/// The registers of TDX that the boot chain fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdxRegisters {
    /// The build-time register: the firmware.
    pub mrtd: Sha384,
    /// RTMR0, RTMR1, RTMR2.
    pub rtmr: [Sha384; 3],
}

/// One step of a measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Where it goes.
    pub register: Register,
    /// The TPM register that the firmware names in its log, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcr: Option<u8>,
    /// The event's type as in the firmware's log (`EV_SEPARATOR`), or of the launch (`page`).
    #[serde(rename = "type")]
    pub kind: String,
    /// What the register is extended with.
    pub digest: Sha384,
    /// For people: which thing was measured.
    pub what: String,
}

/// A register of a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Register {
    /// TDX: the build-time register.
    Mrtd,
    /// TDX: firmware's configuration.
    Rtmr0,
    /// TDX: kernel and boot path.
    Rtmr1,
    /// TDX: command line and initrd.
    Rtmr2,
    /// SNP: the launch digest.
    LaunchDigest,
}

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`MANIFEST_MAX`].
    #[error("the manifest has {0} bytes, more than the {MANIFEST_MAX} that one may have")]
    TooLong(usize),
    /// No JSON of this shape.
    #[error("the manifest is not of the format: {0}")]
    Format(#[from] serde_json::Error),
    /// Another version.
    #[error("the manifest is of version {0}, this program reads version {MANIFEST_VERSION}")]
    Version(u32),
    /// Parts that contradict each other or are out of range.
    #[error("the manifest contradicts itself: {0}")]
    Inconsistent(String),
    /// The right value in another spelling.
    #[error("the manifest is not in its canonical spelling, so its hash names nothing")]
    NotCanonical,
}

impl Manifest {
    /// The one spelling: pretty JSON, fields in the order of the types, a newline at the end.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("strings, numbers and lists can be written");
        json.push('\n');
        json
    }

    /// SHA-256 of the canonical bytes: the image's name in the registry.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(self.to_json().as_bytes())
    }

    /// Reads the bytes of a `manifest.json`.
    ///
    /// # Errors
    /// For bytes that are too long, of another shape or version, that contradict themselves, or that are not canonical.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_MAX {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.check()?;
        if manifest.to_json().as_bytes() != bytes {
            return Err(ManifestError::NotCanonical);
        }
        Ok(manifest)
    }
}

/// A name that is safe as the last part of a path: letters, digits, `.`, `_`, `-`, not beginning with a dot.
pub fn is_plain_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.chars().all(allowed)
}

/// A [`Measurement`] as JSON has it: flat, with the fields of its platform.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireMeasurement {
    profile: String,
    platform: Platform,
    firmware: Sha256,
    qemu: String,
    provenance: Provenance,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mrtd: Option<Sha384>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rtmr0: Option<Sha384>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rtmr1: Option<Sha384>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rtmr2: Option<Sha384>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    launch_digest: Option<Sha384>,
    events: Vec<Event>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Platform {
    Tdx,
    Emulation,
    Snp,
}

impl From<Measurement> for WireMeasurement {
    fn from(measurement: Measurement) -> Self {
        let Measurement { profile, firmware, qemu, provenance, registers, events } = measurement;
        let (platform, tdx, launch_digest) = match registers {
            Registers::Tdx(tdx) => (Platform::Tdx, Some(tdx), None),
            Registers::Emulation(tdx) => (Platform::Emulation, Some(tdx), None),
            Registers::Snp { launch_digest } => (Platform::Snp, None, Some(launch_digest)),
        };
        let mrtd = tdx.map(|tdx| tdx.mrtd);
        let [rtmr0, rtmr1, rtmr2] = [0, 1, 2].map(|index| tdx.map(|tdx| tdx.rtmr[index]));
        Self {
            profile,
            platform,
            firmware,
            qemu,
            provenance,
            mrtd,
            rtmr0,
            rtmr1,
            rtmr2,
            launch_digest,
            events,
        }
    }
}

impl TryFrom<WireMeasurement> for Measurement {
    type Error = &'static str;

    fn try_from(wire: WireMeasurement) -> Result<Self, Self::Error> {
        let tdx = match (wire.mrtd, wire.rtmr0, wire.rtmr1, wire.rtmr2) {
            (Some(mrtd), Some(rtmr0), Some(rtmr1), Some(rtmr2)) => {
                Some(TdxRegisters { mrtd, rtmr: [rtmr0, rtmr1, rtmr2] })
            }
            (None, None, None, None) => None,
            _ => return Err("a measurement has some of mrtd, rtmr0, rtmr1, rtmr2, but not all"),
        };
        let registers = match (wire.platform, tdx, wire.launch_digest) {
            (Platform::Tdx, Some(tdx), None) => Registers::Tdx(tdx),
            (Platform::Emulation, Some(tdx), None) => Registers::Emulation(tdx),
            (Platform::Snp, None, Some(launch_digest)) => Registers::Snp { launch_digest },
            _ => return Err("a measurement has not the registers of its platform"),
        };
        let WireMeasurement { profile, firmware, qemu, provenance, events, .. } = wire;
        Ok(Self { profile, firmware, qemu, provenance, registers, events })
    }
}

#[cfg(test)]
mod tests;
