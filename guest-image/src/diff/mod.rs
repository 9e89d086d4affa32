//! What differs between a prediction and another one, or evidence, in words: which register, which event, which file, what it
//! likely means, what to do.

mod cause;
mod fields;

use std::fmt;

use cocoon_attestation::eventlog::{Bank, EventType};
use cocoon_attestation::{EventLog, Measurements};
use serde::Serialize;

use crate::digest::{ZERO, extended};
use crate::hex_bytes::{HexBytes, Sha384};
use crate::manifest::{Event, Manifest, Measurement, Register, Registers, Root};
use cause::{Cause, of_event, of_file, of_register};
use fields::fields;

/// One difference, with its explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What differs: a register, a file, a package, an event.
    pub subject: String,
    /// The machine profile, where it is about a measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What was expected; "nothing" if there should be none.
    pub expected: String,
    /// What was found; "nothing" if there is none.
    pub found: String,
    /// The file of the image that it comes from, where one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<&'static str>,
    /// What it likely means.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subject)?;
        if let Some(profile) = &self.profile {
            write!(f, " ({profile})")?;
        }
        writeln!(f, "\n  expected  {}\n  found     {}", self.expected, self.found)?;
        if let Some(file) = self.file {
            writeln!(f, "  file      {file}")?;
        }
        write!(f, "  means     {}\n  do        {}", self.meaning, self.remedy)
    }
}

const NOTHING: &str = "nothing";

/// Where a log's register numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// A TPM's: PCRs.
    Tpm,
    /// A TD's (CCEL): 1 to 4 for RTMR0 to RTMR3.
    Ccel,
}

impl LogKind {
    /// A TD's log never extends register 0, which stands for MRTD, nor one above 4; a TPM's always begins with PCR 0.
    pub fn of(log: &EventLog<'_>) -> Self {
        let measured = log.events().iter().filter(|event| event.kind() != EventType::NO_ACTION);
        let mut registers = measured.map(|event| event.register());
        if registers.any(|register| !(1..=4).contains(&register)) { Self::Tpm } else { Self::Ccel }
    }
}

/// What an event log says was measured, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    register: Register,
    kind: String,
    digest: Sha384,
    title: String,
}

/// The events of a log that go into RTMR0 to RTMR2, in its order. That the log is true shows when it replays to a genuine quote.
pub fn observed(log: &EventLog<'_>, kind: LogKind) -> Vec<Observed> {
    let measured = log.events().iter().filter(|event| event.kind() != EventType::NO_ACTION);
    measured
        .filter_map(|event| {
            let register = match (kind, event.register()) {
                (LogKind::Tpm, 1 | 7) | (LogKind::Ccel, 1) => Register::Rtmr0,
                (LogKind::Tpm, 2..=6) | (LogKind::Ccel, 2) => Register::Rtmr1,
                (LogKind::Tpm, 8..=15) | (LogKind::Ccel, 3) => Register::Rtmr2,
                _ => return None,
            };
            let digest = HexBytes(event.digest(Bank::Sha384)?.try_into().ok()?);
            Some(Observed { register, kind: event.kind().name().to_owned(), digest, title: event.title() })
        })
        .collect()
}

/// What two manifests differ in: their files first, then what these do to measurements. Empty exactly if they are the same bytes.
pub fn manifests(expected: &Manifest, found: &Manifest) -> Vec<Difference> {
    let mut list = Vec::new();
    files(expected, found, &mut list);
    packages(expected, found, &mut list);
    predictions(expected, found, &mut list);
    // What nothing above looks at, down to the last field: only the same bytes are the same manifest.
    if list.is_empty() {
        fields(expected, found, &mut list);
    }
    list
}

/// Pairs measurements by profile and firmware; those that are left, by profile: there the firmware is what differs.
fn predictions(expected: &Manifest, found: &Manifest, list: &mut Vec<Difference>) {
    let key = |own: &Measurement| (own.profile.clone(), own.firmware);
    let mut others: Vec<&Measurement> = found.measurements.iter().collect();
    let mut left = Vec::new();
    for own in &expected.measurements {
        match others.iter().position(|other| key(other) == key(own)) {
            Some(index) => list.extend(measurements(own, others.remove(index))),
            None => left.push(own),
        }
    }
    for own in left {
        match others.iter().position(|other| other.profile == own.profile) {
            Some(index) => list.extend(measurements(own, others.remove(index))),
            None => list.push(absent(&own.profile, "a prediction", NOTHING)),
        }
    }
    list.extend(others.into_iter().map(|other| absent(&other.profile, NOTHING, "a prediction")));
}

/// What two measurements differ in, event by event.
pub fn measurements(expected: &Measurement, found: &Measurement) -> Vec<Difference> {
    let others: Vec<Observed> = found
        .events
        .iter()
        .map(|event| Observed {
            register: event.register,
            kind: event.kind.clone(),
            digest: event.digest,
            title: event.what.clone(),
        })
        .collect();
    registers(expected, &values(found), Some(&others))
}

/// What a TD's quote, and its event log if there is one, differ in from what was predicted. RTMR3 is not the image's.
///
/// A log that does not replay to the quote is a difference of its own, the first, and then explains nothing.
pub fn quote(expected: &Measurement, quoted: &Measurements, log: Option<&[Observed]>) -> Vec<Difference> {
    let mut list = log.map(|log| of_another_boot(quoted, log)).unwrap_or_default();
    let log = log.filter(|_| list.is_empty());
    let rtmr = [Register::Rtmr0, Register::Rtmr1, Register::Rtmr2].into_iter().zip(quoted.rtmr);
    let mut values = vec![(Register::Mrtd, HexBytes(quoted.mrtd))];
    values.extend(rtmr.map(|(register, value)| (register, HexBytes(value))));
    list.extend(registers(expected, &values, log));
    list
}

/// The registers to which a log does not replay.
fn of_another_boot(quoted: &Measurements, log: &[Observed]) -> Vec<Difference> {
    let rtmr = [Register::Rtmr0, Register::Rtmr1, Register::Rtmr2].into_iter().zip(quoted.rtmr);
    let compared = rtmr.filter_map(|(register, value)| {
        let own = log.iter().filter(|event| event.register == register);
        let replayed = own.fold(ZERO, |value, event| extended(&value, &event.digest.0));
        let subject = format!("the log is not the quote's: {}", word(register));
        let [expected, found] = [value, replayed].map(|value| HexBytes(value).to_string());
        (replayed != value).then(|| cause::LOG.of(subject, None, expected, found))
    });
    compared.collect()
}

/// What an SNP report's measurement differs in from what was predicted.
pub fn launch_digest(expected: &Measurement, reported: [u8; 48]) -> Vec<Difference> {
    registers(expected, &[(Register::LaunchDigest, HexBytes(reported))], None)
}

/// What a log alone differs in from what was predicted, for the run-time registers.
pub fn log(expected: &Measurement, log: &[Observed]) -> Vec<Difference> {
    let mut list = Vec::new();
    for register in [Register::Rtmr0, Register::Rtmr1, Register::Rtmr2] {
        events(expected, register, log, &mut list);
    }
    list
}

/// A platform's registers with their values.
fn values(measurement: &Measurement) -> Vec<(Register, Sha384)> {
    match &measurement.registers {
        Registers::Tdx(tdx) | Registers::Emulation(tdx) => {
            let [rtmr0, rtmr1, rtmr2] = tdx.rtmr;
            let registers = [Register::Mrtd, Register::Rtmr0, Register::Rtmr1, Register::Rtmr2];
            registers.into_iter().zip([tdx.mrtd, rtmr0, rtmr1, rtmr2]).collect()
        }
        Registers::Snp { launch_digest } => vec![(Register::LaunchDigest, *launch_digest)],
    }
}

fn registers(
    expected: &Measurement,
    found: &[(Register, Sha384)],
    log: Option<&[Observed]>,
) -> Vec<Difference> {
    let mut list = Vec::new();
    for (register, value) in values(expected) {
        let other = found.iter().find(|(other, _)| *other == register).map(|(_, value)| *value);
        if other == Some(value) {
            continue;
        }
        let found = other.map_or(NOTHING.to_owned(), |other| other.to_string());
        let cause = of_register(register);
        list.push(cause.of(word(register).to_owned(), Some(&expected.profile), value.to_string(), found));
        if let Some(log) = log {
            events(expected, register, log, &mut list);
        }
    }
    list
}

/// Compares one register's events in order. From the first on that is of another type, missing or too many, the rest cannot be
/// paired.
fn events(expected: &Measurement, register: Register, log: &[Observed], list: &mut Vec<Difference>) {
    let own: Vec<&Event> = expected.events.iter().filter(|event| event.register == register).collect();
    let other: Vec<&Observed> = log.iter().filter(|event| event.register == register).collect();
    for index in 0..own.len().max(other.len()) {
        let (own, other) = (own.get(index), other.get(index));
        if own.map(|event| event.digest) == other.map(|event| event.digest) {
            continue;
        }
        let told = own.map_or_else(|| other.map_or("", |event| &event.title), |event| &event.what);
        let subject = format!("{}, event {}: {told}", word(register), index + 1);
        let digest = own.map_or(NOTHING.to_owned(), |event| event.digest.to_string());
        let pair = own.zip(other).filter(|(own, other)| own.kind == other.kind);
        let (cause, found) = match (pair, other) {
            (Some((own, other)), _) => (of_event(own), other.digest.to_string()),
            (None, Some(other)) => (cause::ORDER, format!("{} ({})", other.digest, other.title)),
            (None, None) => (cause::ORDER, NOTHING.to_owned()),
        };
        list.push(cause.of(subject, Some(&expected.profile), digest, found));
        if pair.is_none() {
            return;
        }
    }
}

/// The register's name for people.
pub fn word(register: Register) -> &'static str {
    match register {
        Register::Mrtd => "MRTD",
        Register::Rtmr0 => "RTMR0",
        Register::Rtmr1 => "RTMR1",
        Register::Rtmr2 => "RTMR2",
        Register::LaunchDigest => "launch digest",
    }
}

fn absent(profile: &str, expected: &str, found: &str) -> Difference {
    cause::PROFILE.of("prediction".to_owned(), Some(profile), expected.to_owned(), found.to_owned())
}

fn files(expected: &Manifest, found: &Manifest, list: &mut Vec<Difference>) {
    let mut compare = |name: &'static str, own: String, other: String| {
        if own != other {
            list.push(of_file(name).of(format!("file {name}"), None, own, other));
        }
    };
    compare("variant", expected.variant.word().to_owned(), found.variant.word().to_owned());
    let (own, other) = (&expected.files, &found.files);
    compare("vmlinuz", own.kernel.sha256.to_string(), other.kernel.sha256.to_string());
    compare("initrd.cpio", own.initrd.sha256.to_string(), other.initrd.sha256.to_string());
    let root = |root: &Root| format!("{}, root hash {}", root.sha256, root.verity.root_hash);
    compare("root.img", root(&own.root), root(&other.root));
    compare("cmdline", expected.command_line.clone(), found.command_line.clone());
    compare("image.lock", expected.lock.to_string(), found.lock.to_string());
    let list_of = |manifest: &Manifest, name: &str| {
        manifest.firmware.iter().find(|f| f.name == name).map_or(NOTHING.to_owned(), |f| f.sha256.to_string())
    };
    let mut names: Vec<&str> =
        expected.firmware.iter().chain(&found.firmware).map(|firmware| firmware.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (own, other) = (list_of(expected, name), list_of(found, name));
        if own != other {
            list.push(of_file("firmware").of(format!("file firmware/{name}"), None, own, other));
        }
    }
}

fn packages(expected: &Manifest, found: &Manifest, list: &mut Vec<Difference>) {
    let version = |manifest: &Manifest, name: &str| {
        let package = manifest.packages.iter().find(|package| package.name == name);
        package.map_or(NOTHING.to_owned(), |package| format!("{} ({})", package.version, package.sha256))
    };
    let program = |manifest: &Manifest, path: &str| {
        let program = manifest.programs.iter().find(|program| program.path == path);
        program.map_or(NOTHING.to_owned(), |program| program.sha256.to_string())
    };
    let mut compare = |kind: &str, name: &str, own: String, other: String, cause: Cause| {
        if own != other {
            list.push(cause.of(format!("{kind} {name}"), None, own, other));
        }
    };
    let mut names: Vec<&str> =
        expected.packages.iter().chain(&found.packages).map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        compare("package", name, version(expected, name), version(found, name), cause::PACKAGE);
    }
    let mut paths: Vec<&str> =
        expected.programs.iter().chain(&found.programs).map(|p| p.path.as_str()).collect();
    paths.sort_unstable();
    paths.dedup();
    for path in paths {
        compare("program", path, program(expected, path), program(found, path), cause::PROGRAM);
    }
}

#[cfg(test)]
mod tests;
