//! Whether the parts of a manifest agree with each other: what each says of the other is true without any file.

use super::{
    File, MANIFEST_VERSION, Manifest, ManifestError, Measurement, Register, Registers, Variant, Verity,
    is_plain_name,
};
use crate::hex_bytes::HexBytes;
use crate::measure::replay;

/// The run-time registers that a boot fills.
const RTMRS: [Register; 3] = [Register::Rtmr0, Register::Rtmr1, Register::Rtmr2];

impl Manifest {
    /// Whether its parts agree with each other.
    pub(super) fn check(&self) -> Result<(), ManifestError> {
        if self.version != MANIFEST_VERSION {
            return Err(ManifestError::Version(self.version));
        }
        self.files_agree()
            .and_then(|()| self.boots_what_it_lists())
            .and_then(|()| self.lists_agree())
            .and_then(|()| self.measurements.iter().try_for_each(measured))
            .map_err(ManifestError::Inconsistent)
    }

    fn files_agree(&self) -> Result<(), String> {
        let sure = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        sure(is_plain_name(&self.name), "its name is not of letters, digits, `.`, `_` and `-`")?;
        let cmdline = File::of(self.command_line.as_bytes());
        sure(cmdline == self.files.cmdline, "the command line is not the file that it lists")?;
        let length = crate::verity::length(self.files.root.verity.data_blocks);
        let whole = length == Some(self.files.root.size);
        sure(whole, "the root's length is not that of its data blocks and their tree")?;
        // Names become paths below a folder.
        let plain = self.firmware.iter().all(|firmware| is_plain_name(&firmware.name));
        sure(plain, "a firmware's name is no plain file name")
    }

    /// The command line is measured, `files.root` is not: a root is only as good as the hash that PID 1 is told. The words are
    /// those that PID 1 reads (`cocoon-init`), once each, and no others that begin as its own do.
    fn boots_what_it_lists(&self) -> Result<(), String> {
        let Verity { root_hash, data_blocks } = self.files.root.verity;
        let mut expected =
            vec![format!("cocoon.root={root_hash}"), format!("cocoon.root_blocks={data_blocks}")];
        if self.variant == Variant::Development {
            expected.push("cocoon.development".to_owned());
        }
        let words = self.command_line.split_ascii_whitespace();
        let mut own: Vec<&str> = words.filter(|word| word.starts_with("cocoon")).collect();
        own.sort_unstable();
        expected.sort_unstable();
        if own == expected {
            return Ok(());
        }
        let (own, expected) = (own.join(" "), expected.join(" "));
        let variant = self.variant.word();
        Err(format!("the command line boots `{own}`, the root and the variant ({variant}) are `{expected}`"))
    }

    fn lists_agree(&self) -> Result<(), String> {
        let sorted = self.firmware.is_sorted_by(|a, b| a.name < b.name)
            && self.packages.is_sorted_by(|a, b| a.name < b.name)
            && self.programs.is_sorted_by(|a, b| a.path < b.path)
            && self.measurements.is_sorted_by(|a, b| (&a.profile, a.firmware) < (&b.profile, b.firmware));
        if !sorted {
            return Err("a list is not sorted, or names something twice".to_owned());
        }
        let known =
            |measurement: &Measurement| self.firmware.iter().any(|f| f.sha256 == measurement.firmware);
        if !self.measurements.iter().all(known) {
            return Err("a measurement is for a firmware that it does not list".to_owned());
        }
        Ok(())
    }
}

/// Whether the events are those of the registers. A step of MRTD or of a launch digest stands for many pages, whose addresses it
/// does not tell: these two can be made again from the files alone ([`crate::measure`]), RTMR0 to RTMR2 from their events.
fn measured(measurement: &Measurement) -> Result<(), String> {
    let Measurement { profile, registers, events, .. } = measurement;
    let is_snp = matches!(registers, Registers::Snp { .. });
    if events.iter().any(|event| (event.register == Register::LaunchDigest) != is_snp) {
        return Err(format!("the measurement of {profile} has an event of another platform's register"));
    }
    let (Registers::Tdx(tdx) | Registers::Emulation(tdx)) = registers else { return Ok(()) };
    for (index, (register, value)) in RTMRS.into_iter().zip(tdx.rtmr).enumerate() {
        let replayed = HexBytes(replay(events, register));
        if replayed != value {
            return Err(format!("the events of {profile} give {replayed} in RTMR{index}, not {value}"));
        }
    }
    Ok(())
}
