//! The attestation report, byte by byte: ATTESTATION_REPORT of AMD 56860 (SEV-SNP Firmware ABI), 7.3.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0x000 | 4, 4, 8 | VERSION, GUEST_SVN, POLICY |
//! | 0x010 | 16, 16 | FAMILY_ID, IMAGE_ID |
//! | 0x030 | 4, 4 | VMPL, SIGNATURE_ALGO |
//! | 0x038 | 8, 8 | CURRENT_TCB, PLATFORM_INFO |
//! | 0x048 | 4, 4 | AUTHOR_KEY_EN (bit 0), MASK_CHIP_KEY (1), SIGNING_KEY (4:2); reserved |
//! | 0x050 | 64, 48, 32 | REPORT_DATA, MEASUREMENT, HOST_DATA |
//! | 0x0e0 | 48, 48 | ID_KEY_DIGEST, AUTHOR_KEY_DIGEST |
//! | 0x140 | 32, 32 | REPORT_ID, REPORT_ID_MA |
//! | 0x180 | 8 | REPORTED_TCB |
//! | 0x188 | 3, 21 | CPUID family, model, stepping (version 3 and later); reserved |
//! | 0x1a0 | 64 | CHIP_ID |
//! | 0x1e0 | 8 | COMMITTED_TCB |
//! | 0x1e8 | 4, 4 | CURRENT and COMMITTED build, minor, major, reserved |
//! | 0x1f0 | 8 | LAUNCH_TCB |
//! | 0x1f8 | 8, 8 | LAUNCH_MIT_VECTOR, CURRENT_MIT_VECTOR (version 5); reserved before |
//! | 0x208 | 152 | reserved |
//! | 0x2a0 | 72, 72, 368 | signature: R and S, little endian; reserved |

use super::policy::{GuestPolicy, PlatformInfo};
use super::product::{KeyKind, Product};
use super::tcb::{TcbLayout, TcbVersion};
use crate::Malformed;

/// Length of a report, in bytes.
pub const REPORT: usize = 1184;
/// How much of it is signed.
const SIGNED: usize = 0x2a0;
/// Versions that are known: AMD documented these three.
const VERSIONS: [u32; 3] = [2, 3, 5];

const WHAT: &str = "SNP report";

/// An attestation report taken apart. Nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// 2, 3 or 5.
    pub version: u32,
    /// The guest's own security version, from its ID block.
    pub guest_svn: u32,
    /// What the host may do with the guest.
    pub policy: GuestPolicy,
    /// Family of the image, from its ID block.
    pub family_id: [u8; 16],
    /// The image, from its ID block.
    pub image_id: [u8; 16],
    /// Privilege level from which the report was asked for: 0 is the highest; 0xffff_ffff is the host itself.
    pub vmpl: u32,
    /// 1 is ECDSA P-384 with SHA-384.
    pub signature_algorithm: u32,
    /// TCB that runs now.
    pub current_tcb: TcbVersion,
    /// How the platform is set up.
    pub platform_info: PlatformInfo,
    /// AUTHOR_KEY_EN, MASK_CHIP_KEY and SIGNING_KEY.
    pub flags: u32,
    /// Report data: what the guest bound.
    pub report_data: [u8; 64],
    /// Measurement of the guest at launch.
    pub measurement: [u8; 48],
    /// What the host bound at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed the ID block; zero without one.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the key that signed the ID key. See [`Report::author_key`].
    pub author_key_digest: [u8; 48],
    /// Names this guest until it ends.
    pub report_id: [u8; 32],
    /// Names this guest's migration agent; all ones without one.
    pub report_id_ma: [u8; 32],
    /// TCB for which the signing key was derived.
    pub reported_tcb: TcbVersion,
    /// Family, model and stepping of the processor; version 3 and later.
    pub cpuid: Option<[u8; 3]>,
    /// Names the chip; zero if the host masks it.
    pub chip_id: [u8; 64],
    /// TCB below which the firmware cannot be taken back.
    pub committed_tcb: TcbVersion,
    /// Firmware that runs now: major, minor, build.
    pub current_firmware: [u8; 3],
    /// Firmware below which it cannot be taken back: major, minor, build.
    pub committed_firmware: [u8; 3],
    /// TCB at which the guest was launched or taken in.
    pub launch_tcb: TcbVersion,
    /// Mitigations that were on at launch, and that are on now; version 5.
    pub mitigations: Option<[u64; 2]>,
}

impl Report {
    /// Takes a report apart; every reserved byte must be zero.
    ///
    /// # Errors
    /// Names the offset and the field.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (report, fault) = Self::read(bytes)?;
        fault.map_or(Ok(report), Err)
    }

    /// As [`Report::parse`], but what is wrong with reserved bytes is given beside the report: so a changed report is seen to
    /// be changed.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Self, Option<Malformed>), Malformed> {
        let length = || {
            Malformed::at(
                WHAT,
                bytes.len().min(REPORT),
                "length",
                format!("{} bytes, must be {REPORT}", bytes.len()),
            )
        };
        let bytes: &[u8; REPORT] = bytes.try_into().map_err(|_| length())?;
        let version = u32::from_le_bytes(at(bytes, 0));
        if !VERSIONS.contains(&version) {
            return Err(Malformed::at(WHAT, 0, "VERSION", format!("{version}, must be 2, 3 or 5")));
        }
        let mut faults = Faults(None);
        let report = fields(bytes, version, &mut faults);
        reserved(bytes, version, &mut faults);
        Ok((report, faults.0))
    }

    /// The key that signed, by SIGNING_KEY; `None` for one that is none (7) or reserved.
    pub fn signing_key(&self) -> Option<KeyKind> {
        match self.flags >> 2 & 0b111 {
            0 => Some(KeyKind::Vcek),
            1 => Some(KeyKind::Vlek),
            _ => None,
        }
    }

    /// MASK_CHIP_KEY: the firmware signs nothing.
    pub fn chip_key_masked(&self) -> bool {
        self.flags & 0b10 != 0
    }

    /// AUTHOR_KEY_DIGEST, if AUTHOR_KEY_EN says that there is one.
    pub fn author_key(&self) -> Option<&[u8; 48]> {
        (self.flags & 1 != 0).then_some(&self.author_key_digest)
    }

    /// The product by the processor's CPUID; `None` in version 2 and for unknown processors.
    pub fn product(&self) -> Option<Product> {
        self.cpuid.and_then(|[family, model, _]| Product::of_cpuid(family, model))
    }

    /// How its TCB versions were read.
    pub(crate) fn layout(&self) -> TcbLayout {
        if self.reported_tcb.fmc.is_some() { TcbLayout::Turin } else { TcbLayout::Original }
    }
}

/// What is signed, and the signature as r ‖ s in big endian. `bytes` is one whole report.
pub(crate) fn signed(bytes: &[u8]) -> Option<(&[u8], [u8; 96])> {
    let bytes: &[u8; REPORT] = bytes.try_into().ok()?;
    let (mut r, mut s): ([u8; 48], [u8; 48]) = (at(bytes, SIGNED), at(bytes, SIGNED + 72));
    r.reverse();
    s.reverse();
    let mut signature = [0; 96];
    signature[..48].copy_from_slice(&r);
    signature[48..].copy_from_slice(&s);
    Some((&bytes[..SIGNED], signature))
}

/// The first fault only.
struct Faults(Option<Malformed>);

impl Faults {
    fn note(&mut self, offset: usize, field: &'static str, reason: impl Into<String>) {
        if self.0.is_none() {
            self.0 = Some(Malformed::at(WHAT, offset, field, reason));
        }
    }
}

fn fields(bytes: &[u8; REPORT], version: u32, faults: &mut Faults) -> Report {
    let cpuid = (version >= 3).then(|| at(bytes, 0x188));
    let layout = layout(cpuid, &at(bytes, 0x1a0));
    let mut tcb = |offset, field| {
        let (tcb, reserved) = TcbVersion::read(at(bytes, offset), layout);
        if reserved > 0 {
            faults.note(offset, field, "reserved bytes that are not zero");
        }
        tcb
    };
    let firmware = |offset| {
        let [build, minor, major]: [u8; 3] = at(bytes, offset);
        [major, minor, build]
    };
    let u64_at = |offset| u64::from_le_bytes(at(bytes, offset));
    Report {
        version,
        guest_svn: u32::from_le_bytes(at(bytes, 4)),
        policy: GuestPolicy(u64_at(8)),
        family_id: at(bytes, 0x10),
        image_id: at(bytes, 0x20),
        vmpl: u32::from_le_bytes(at(bytes, 0x30)),
        signature_algorithm: u32::from_le_bytes(at(bytes, 0x34)),
        current_tcb: tcb(0x38, "CURRENT_TCB"),
        platform_info: PlatformInfo(u64_at(0x40)),
        flags: u32::from_le_bytes(at(bytes, 0x48)),
        report_data: at(bytes, 0x50),
        measurement: at(bytes, 0x90),
        host_data: at(bytes, 0xc0),
        id_key_digest: at(bytes, 0xe0),
        author_key_digest: at(bytes, 0x110),
        report_id: at(bytes, 0x140),
        report_id_ma: at(bytes, 0x160),
        reported_tcb: tcb(0x180, "REPORTED_TCB"),
        cpuid,
        chip_id: at(bytes, 0x1a0),
        committed_tcb: tcb(0x1e0, "COMMITTED_TCB"),
        current_firmware: firmware(0x1e8),
        committed_firmware: firmware(0x1ec),
        launch_tcb: tcb(0x1f0, "LAUNCH_TCB"),
        mitigations: (version >= 5).then(|| [u64_at(0x1f8), u64_at(0x200)]),
    }
}

/// By the processor; in version 2, which does not name it, by the chip id, of which Turin fills 8 bytes. (Whatever is assumed
/// here, the layout must be the one of the product whose root vouches for the chip.)
fn layout(cpuid: Option<[u8; 3]>, chip_id: &[u8; 64]) -> TcbLayout {
    match cpuid {
        // A processor that is not known is refused later; its family says enough to read it.
        Some([family, ..]) if family >= 0x1a => TcbLayout::Turin,
        Some(_) => TcbLayout::Original,
        None => {
            let (first, rest) = chip_id.split_at(8);
            let short = first.iter().any(|byte| *byte != 0) && rest.iter().all(|byte| *byte == 0);
            if short { TcbLayout::Turin } else { TcbLayout::Original }
        }
    }
}

/// Fields that AMD reserves: offset and length. In version 2 the CPUID's three bytes are among them, before version 5 the
/// two mitigation vectors.
fn reserved(bytes: &[u8; REPORT], version: u32, faults: &mut Faults) {
    if u32::from_le_bytes(at(bytes, 0x48)) >> 5 != 0 {
        faults.note(0x48, "SIGNING_KEY", "reserved bits (5 and above) that are not zero");
    }
    let after_tcb = if version >= 3 { 0x18b } else { 0x188 };
    let after_launch = if version >= 5 { 0x208 } else { 0x1f8 };
    let ranges = [
        (0x4c..0x50, "reserved after SIGNING_KEY"),
        (after_tcb..0x1a0, "reserved before CHIP_ID"),
        (0x1eb..0x1ec, "reserved after CURRENT_MAJOR"),
        (0x1ef..0x1f0, "reserved after COMMITTED_MAJOR"),
        (after_launch..SIGNED, "reserved before SIGNATURE"),
        (SIGNED + 48..SIGNED + 72, "SIGNATURE.R"),
        (SIGNED + 120..SIGNED + 144, "SIGNATURE.S"),
        (SIGNED + 144..REPORT, "SIGNATURE's reserved bytes"),
    ];
    for (range, field) in ranges {
        let start = range.start;
        if let Some(odd) = bytes[range].iter().position(|byte| *byte != 0) {
            faults.note(start + odd, field, "must be zero");
        }
    }
}

fn at<const N: usize>(bytes: &[u8; REPORT], offset: usize) -> [u8; N] {
    bytes[offset..offset + N].try_into().expect("offsets are the table's, all inside a report")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(version: u8) -> [u8; REPORT] {
        let mut bytes = [0; REPORT];
        bytes[0] = version;
        if version >= 3 {
            bytes[0x188..0x18a].copy_from_slice(&[0x19, 0x11]);
        }
        bytes
    }

    #[test]
    fn every_byte_is_a_field_or_must_be_zero() {
        let zero_in_all =
            [0x4c..0x50, 0x18b..0x1a0, 0x1eb..0x1ec, 0x1ef..0x1f0, 0x208..0x2a0, 0x2d0..0x2e8, 0x318..REPORT];
        for version in [2, 3, 5] {
            let bytes = report(version);
            let clean = Report::parse(&bytes).expect("nothing but zero");
            for at in 4..REPORT {
                let mut changed = bytes;
                changed[at] ^= 0x80;
                let tcb_reserved =
                    [0x38, 0x180, 0x1e0, 0x1f0].iter().any(|tcb| (tcb + 2..tcb + 6).contains(&at));
                let flags = (0x48..0x4c).contains(&at);
                let zero = zero_in_all.iter().any(|range| range.contains(&at))
                    || (version < 3 && (0x188..0x18b).contains(&at))
                    || (version < 5 && (0x1f8..0x208).contains(&at));
                match Report::parse(&changed) {
                    Err(error) => {
                        assert!(zero || tcb_reserved || flags, "version {version}: {error}");
                        assert!(
                            error.offset.is_some_and(|offset| offset <= at && at < offset + 8),
                            "{error}"
                        );
                    }
                    Ok(other) => {
                        assert!(!zero && !flags, "version {version}, byte {at:#x}");
                        let in_signature = at >= SIGNED;
                        assert!(in_signature || other != clean, "byte {at:#x} is read");
                    }
                }
            }
        }
    }

    #[test]
    fn other_versions_and_lengths_are_refused() {
        for version in [0, 1, 4, 6, 255] {
            let error = Report::parse(&report(version)).expect_err("an unknown version");
            assert_eq!((error.offset, error.field), (Some(0), "VERSION"));
        }
        for length in [0, 4, REPORT - 1, REPORT + 1] {
            assert_eq!(Report::parse(&vec![2; length]).expect_err("another length").field, "length");
        }
    }
}
